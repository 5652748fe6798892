//! The specification's fourth category: content management.

use super::*;

#[test]
fn a_tag_goes_and_its_manifest_stays() {
    let server = Server::writable();
    let [_, _, manifest] = server.push_image("app", "v1", 100);
    assert_eq!(server.push_manifest("app", "v2", &manifest).status, 201);
    let deleted = server.delete("/v2/app/manifests/v1");
    assert_eq!(deleted.status, 202);
    assert_eq!(server.get("/v2/app/manifests/v1").code(), "MANIFEST_UNKNOWN");
    assert_eq!(server.delete("/v2/app/manifests/v1").status, 404);
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!(["v2"]));
    assert_eq!(server.delete("/v2/app/manifests/v2").status, 202);
    let by_digest = server.get(&format!("/v2/app/manifests/{}", Digest::of(&manifest)));
    assert!(by_digest.body == manifest);
}

#[test]
fn a_manifest_goes_with_all_its_tags() {
    let server = Server::writable();
    let [_, _, manifest] = server.push_image("app", "v1", 100);
    server.push_image("app", "other", 100);
    assert_eq!(server.push_manifest("app", "v2", &manifest).status, 201);
    let path = format!("/v2/app/manifests/{}", Digest::of(&manifest));
    assert_eq!(server.delete(&path).status, 202);
    for gone in [&path, "/v2/app/manifests/v1", "/v2/app/manifests/v2"] {
        assert_eq!((server.get(gone).status, server.head(gone).status), (404, 404), "{gone}");
    }
    assert_eq!(server.delete(&path).status, 404);
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!(["other"]));
}

#[test]
fn a_blob_goes_from_one_repository_and_its_space_with_the_last() {
    let server = Server::writable();
    let bytes = noise(20, 10_000);
    let digest = server.push_blob("one", &bytes);
    server.push_blob("two", &bytes);
    let blob = |repository: &str| format!("/v2/{repository}/blobs/{digest}");
    assert_eq!(server.delete(&blob("one")).status, 202);
    assert_eq!((server.get(&blob("one")).status, server.get(&blob("two")).status), (404, 200));
    assert_eq!(server.delete(&blob("one")).code(), "BLOB_UNKNOWN");
    let shared = server.store().join(".imgmv-shared/blobs/sha256").join(digest.hex());
    assert!(shared.exists());
    assert_eq!(server.delete(&blob("two")).status, 202);
    assert!(!shared.exists());
    // A repository that is not there has nothing to delete.
    assert_eq!(server.delete(&blob("none")).status, 404);
    assert_eq!(server.delete("/v2/none/manifests/v1").status, 404);
    // It can come again.
    server.push_blob("one", &bytes);
    assert_eq!(server.get(&blob("one")).body, bytes);
}

#[test]
fn what_a_tag_pointed_at_before_is_still_there_by_its_digest() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    let build = |n: u32| manifest(b"{}", &[], json!({ "annotations": { "n": n.to_string() } }));
    for n in 0..10 {
        let all = index(&[&build(n)]);
        assert_eq!(server.push_manifest("app", &Digest::of(&build(n)).to_string(), &build(n)).status, 201);
        assert_eq!(server.push_manifest("app", "latest", &all).status, 201);
    }
    assert_eq!(server.get(&format!("/v2/app/manifests/{}", Digest::of(&build(3)))).status, 200);
    assert_eq!(server.get(&format!("/v2/app/manifests/{}", Digest::of(&index(&[&build(3)])))).status, 200);
    // The layout's own list does not grow with every build.
    let listed: Value = serde_json::from_slice(&std::fs::read(server.store().join("app/index.json")).unwrap()).unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn a_server_for_pulling_says_that_it_is_one() {
    let dir = tempfile::TempDir::new().unwrap();
    let pushed = Server::writable();
    pushed.push_image("app", "v1", 100);
    let layout = pushed.store().join("app").display().to_string();
    let server = Server::start_in(dir.into(), &[&layout]);
    let digest = Digest::of(b"x");
    for (method, path) in [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("PUT", "/v2/app/manifests/v2".to_owned()),
        ("DELETE", "/v2/app/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{digest}")),
    ] {
        let reply = server.ask(method, &path, &[], b"{}");
        assert_eq!((reply.status, reply.code().as_str()), (405, "UNSUPPORTED"), "{method} {path}");
    }
    assert_eq!(server.ask("PATCH", "/v2/app/tags/list", &[], b"").status, 405);
    assert_eq!(server.ask("POST", "/v2/", &[], b"").header("allow"), "GET, HEAD");
}
