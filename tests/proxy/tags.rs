//! Tags: asked upstream each time; and which upstream.

use super::*;

#[test]
fn a_tag_that_moved_is_seen_at_once() {
    let (double, old) = upstream(&noise(1, 1000));
    let server = mirror(&double.host(), &[]);
    assert_eq!(pull(&server, TAG).header("docker-content-digest"), old.digest().to_string());
    let new = double.image("library/app", "1", &[&noise(2, 1000)]);
    assert_eq!(pull(&server, TAG).header("docker-content-digest"), new.digest().to_string());
    let tags = server.get("/v2/library/app/tags/list").json();
    assert_eq!(tags["tags"], serde_json::json!(["1"]));
}

#[test]
fn the_last_known_answer_is_given_and_marked_when_nobody_answers() {
    let dir = folder();
    let (double, image) = upstream(&noise(3, 1000));
    let server = mirror_in(&dir, &double.host(), &["--retry", "0"]);
    assert_eq!(pull(&server, TAG).find("warning"), None);
    double.faults().stumbles = vec![support::registry::Stumble::new("HEAD", "/manifests/1", 503, 2)];
    let reply = server.get(TAG);
    assert_eq!((reply.status, reply.header("docker-content-digest")), (200, &*image.digest().to_string()));
    assert!(reply.header("warning").starts_with("111 "));
    server.says("docker.io/library/app:1: cannot resolve the tag upstream; serving the last known digest");
    double.faults().stumbles.clear();
    assert_eq!(server.get(TAG).find("warning"), None);
    // Also by another process, with nobody there at all.
    drop((server, double));
    let server = mirror_in(&dir, "127.0.0.1:1", &["--retry", "0"]);
    let reply = pull(&server, TAG);
    assert_eq!(reply.header("docker-content-digest"), image.digest().to_string());
    assert!(reply.header("warning").starts_with("111 "));
    assert_eq!(server.get("/v2/library/app/tags/list").json()["tags"], serde_json::json!(["1"]));
    assert_eq!(server.get("/v2/library/app/manifests/2").status, 502);
}

#[test]
fn a_tag_that_is_gone_upstream_is_gone_here() {
    let dir = folder();
    let (double, _) = upstream(&noise(4, 1000));
    let server = mirror_in(&dir, &double.host(), &[]);
    pull(&server, TAG);
    double.faults().stumbles = vec![support::registry::Stumble::new("HEAD", "/manifests/1", 404, 1)];
    assert_eq!(server.get(TAG).status, 404);
    drop((server, double));
    let server = mirror_in(&dir, "127.0.0.1:1", &["--retry", "0"]);
    assert_eq!(server.get(TAG).status, 502);
}

#[test]
fn only_named_upstreams_are_reached_however_they_are_meant() {
    let (docker, _) = upstream(&noise(5, 1000));
    let quay = Double::start();
    let other = quay.image("org/app", "1", &[&noise(6, 1000)]);
    let proxies = format!("docker.io={},quay.io={}", docker.host(), quay.host());
    let dir = folder();
    let cache = format!("oci:{}", cached(&dir).display());
    let server = Server::start_in(dir.clone(), &["--proxy", &proxies, "--cache", &cache]);
    for path in [
        // docker: no word of a registry. containerd: a parameter. podman: a prefix.
        "/v2/library/app/manifests/1",
        "/v2/app/manifests/1",
        "/v2/library/app/manifests/1?ns=docker.io",
        "/v2/docker.io/library/app/manifests/1",
        "/v2/quay.io/org/app/manifests/1",
        "/v2/org/app/manifests/1?ns=quay.io",
        "/v2/org/app/manifests/1?ns=QUAY.IO",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    quay.forget_requests();
    docker.forget_requests();
    let metadata = quay.host();
    for path in [
        "/v2/org/app/manifests/1?ns=ghcr.io".to_owned(),
        format!("/v2/org/app/manifests/1?ns={metadata}"),
        "/v2/org/app/manifests/1?ns=quay.io%2F..".to_owned(),
        "/v2/org/app/manifests/1?ns=quay.io%40evil.example".to_owned(),
        "/v2/ghcr.io/org/app/manifests/1".to_owned(),
        "/v2/localhost/org/app/manifests/1".to_owned(),
        "/v2/169.254.169.254/latest/manifests/1".to_owned(),
    ] {
        assert_eq!(server.get(&path).status, 404, "{path}");
    }
    assert_eq!((quay.requests().len(), docker.requests().len()), (0, 0));
    // The same bytes are the same blob, whichever registry they came from.
    let path = format!("/v2/library/app/manifests/{}", other.digest());
    assert_eq!(server.get(&path).body, other.bytes);
    let catalog = server.get("/v2/_catalog").json();
    assert_eq!(catalog["repositories"], serde_json::json!(["docker.io/library/app", "quay.io/org/app"]));
}

#[test]
fn what_lies_here_comes_before_the_mirror() {
    let (double, _) = upstream(&noise(7, 1000));
    let dir = folder();
    let store = format!("oci:{}", dir.path().join("store").display());
    let cache = format!("oci:{}", cached(&dir).display());
    let proxy = format!("docker.io={}", double.host());
    let server = Server::start_in(dir.clone(), &[&store, "--writable", "--proxy", &proxy, "--cache", &cache]);
    let [_, _, own] = server.push_image("team/own", "1", 1000);
    double.image("team/own", "1", &[&noise(8, 1000)]);
    assert_eq!(pull(&server, "/v2/team/own/manifests/1").body, own);
    assert_eq!(double.requests().len(), 0);
    pull(&server, TAG);
}

/// Adds a signature of `image` to `double`.
fn sign(double: &Double, image: &Manifest) -> Manifest {
    sign_as(double, image, "")
}

fn sign_as(double: &Double, image: &Manifest, text: &str) -> Manifest {
    let config = Descriptor::of(media_type::OCI_CONFIG, support::registry::config());
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x.signature",
        "config": config, "layers": [], "subject": image.descriptor, "annotations": { "text": text },
    });
    let signature = Manifest::from_bytes(text.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap();
    double.put_manifest("library/app", None, &signature);
    signature
}

/// The digests that `server` lists as referrers of `subject`.
fn listed(server: &Server, subject: &Digest) -> Vec<String> {
    let reply = server.get(&format!("/v2/library/app/referrers/{subject}"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let list = reply.json();
    list["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn referrers_come_from_upstream_and_the_last_known_list_without_it() {
    let dir = folder();
    let (double, image) = upstream(&noise(9, 1000));
    let server = mirror_in(&dir, &double.host(), &["--retry", "0"]);
    assert_eq!(listed(&server, &image.digest()), [""; 0]);
    let plain = double.image("library/app", "plain", &[&noise(12, 1000)]);
    pull(&server, "/v2/library/app/manifests/plain");
    assert_eq!(listed(&server, &plain.digest()), [""; 0]);
    let signature = sign(&double, &image).digest().to_string();
    assert_eq!(listed(&server, &image.digest()), [&*signature]);
    pull(&server, TAG);
    // A digest that upstream does not have takes no place in the cache.
    let unknown = Digest::of(b"of no image");
    assert_eq!(listed(&server, &unknown), [""; 0]);
    assert!(!std::fs::read_to_string(cached(&dir).join("index.json")).unwrap().contains(&unknown.hex()));
    // A client without the referrers API asks for the referrers tag, which upstream does not have.
    let tag = format!("/v2/library/app/manifests/sha256-{}", image.digest().hex());
    assert_eq!(server.get(&tag).status, 404);
    drop((server, double));
    let server = mirror_in(&dir, "127.0.0.1:1", &["--retry", "0"]);
    assert_eq!(listed(&server, &image.digest()), [&*signature]);
    server.says("cannot list the referrers");
    assert_eq!(listed(&server, &plain.digest()), [""; 0]);
    let tags = server.get("/v2/library/app/tags/list").json();
    assert_eq!(tags["tags"], serde_json::json!(["1", "plain"]));
    let unknown = Digest::of(b"never asked");
    assert_eq!(server.get(&format!("/v2/library/app/referrers/{unknown}")).status, 502);
}

/// A mirror of the registry that has the image without its signatures.
#[test]
fn an_empty_list_of_one_host_does_not_hide_the_referrers_at_another() {
    let layer = noise(11, 1000);
    let ((first, image), (second, _)) = (upstream(&layer), upstream(&layer));
    let signature = sign(&second, &image).digest().to_string();
    let server = mirror(&format!("{},docker.io={}", first.host(), second.host()), &["--retry", "0"]);
    assert_eq!(listed(&server, &image.digest()), std::slice::from_ref(&signature));
    assert_eq!(first.count("GET", "/referrers/"), 1);
    // Nor does a list with other signatures.
    let older = sign_as(&first, &image, "older").digest().to_string();
    let both = std::collections::BTreeSet::from([signature, older]);
    assert_eq!(listed(&server, &image.digest()).into_iter().collect::<std::collections::BTreeSet<_>>(), both);
}

/// imgmv finds cosign's tags in the list of tags.
#[test]
fn the_list_of_tags_is_that_of_all_hosts() {
    let layer = noise(13, 1000);
    let ((first, image), (second, _)) = (upstream(&layer), upstream(&layer));
    let tag = sig_tag(&image);
    second.image("library/app", &tag, &[b"signature"]);
    let options = format!("{},docker.io={}", first.host(), second.host());
    let server = mirror(&options, &["--retry", "0"]);
    assert_eq!(server.get("/v2/library/app/tags/list").json()["tags"], serde_json::json!(["1", tag]));
}

fn sig_tag(image: &Manifest) -> String {
    format!("sha256-{}.sig", image.digest().hex())
}

/// An image that is not signed is copied through a mirror whose upstream is gone.
#[test]
fn cosigns_tags_that_upstream_does_not_have_are_remembered() {
    let dir = folder();
    let (double, image) = upstream(&noise(14, 1000));
    let server = mirror_in(&dir, &double.host(), &["--retry", "0"]);
    let tag = |ending: &str| format!("/v2/library/app/manifests/sha256-{}.{ending}", image.digest().hex());
    // Of an image that is not cached, nothing is remembered.
    assert_eq!(server.head(&tag("sbom")).status, 404);
    pull(&server, TAG);
    assert_eq!(server.head(&tag("sig")).status, 404);
    assert_eq!(listed(&server, &image.digest()), [""; 0]);
    assert_eq!(server.head(&tag("att")).status, 404);
    // One that is made later is found, and known when it is gone again.
    double.image("library/app", &format!("sha256-{}.att", image.digest().hex()), &[b"attestation"]);
    assert_eq!(server.head(&tag("att")).status, 200);
    drop((server, double));
    let server = mirror_in(&dir, "127.0.0.1:1", &["--retry", "0"]);
    let answers = ["sig", "att", "sbom"].map(|ending| server.head(&tag(ending)).status);
    assert_eq!(answers, [404, 200, 502]);
    server.says("it did not exist when upstream answered last");
    assert_eq!(listed(&server, &image.digest()), [""; 0]);
}

/// What is known of cosign's tags is not a list of referrers.
#[test]
fn a_missing_tag_does_not_say_that_there_are_no_referrers() {
    let dir = folder();
    let (double, image) = upstream(&noise(15, 1000));
    let server = mirror_in(&dir, &double.host(), &["--retry", "0"]);
    pull(&server, TAG);
    let tag = format!("/v2/library/app/manifests/{}", sig_tag(&image));
    assert_eq!(server.head(&tag).status, 404);
    drop((server, double));
    let server = mirror_in(&dir, "127.0.0.1:1", &["--retry", "0"]);
    assert_eq!(server.head(&tag).status, 404);
    assert_eq!(server.get(&format!("/v2/library/app/referrers/{}", image.digest())).status, 502);
    assert_eq!(server.get(&format!("/v2/library/app/manifests/sha256-{}", image.digest().hex())).status, 502);
}

/// A server that also takes pushes hides an upstream that does not respond, but it does not say that an image is not
/// signed.
#[test]
fn an_upstream_that_is_gone_is_not_a_list_without_referrers() {
    let dir = folder();
    let (store, cache) = (format!("oci:{}", dir.path().join("store").display()), cached(&dir));
    let cache = format!("oci:{}", cache.display());
    let options = [&store, "--writable", "--proxy", "docker.io=127.0.0.1:1", "--cache", &cache, "--retry", "0"];
    let server = Server::start_in(dir.clone(), &options);
    let unknown = Digest::of(b"of upstream");
    assert_eq!(server.get(&format!("/v2/library/app/referrers/{unknown}")).status, 502);
    // What was pushed here has its referrers here.
    let [_, _, own] = server.push_image("library/app", "1", 1000);
    assert_eq!(listed(&server, &Digest::of(&own)), [""; 0]);
}

#[test]
fn what_is_pushed_here_is_not_hidden_by_an_upstream_that_refuses_or_is_gone() {
    use support::registry::{Auth, Bearer};
    let (double, _) = upstream(&noise(10, 1000));
    let user = Some(("me".to_owned(), "secret".to_owned()));
    double.faults().auth = Auth::Bearer(Bearer { user, ..Bearer::default() });
    for upstream in [double.host(), "127.0.0.1:1".to_owned()] {
        let dir = folder();
        let store = format!("oci:{}", dir.path().join("store").display());
        let server = mirror_in(&dir, &upstream, &["--retry", "0"]);
        assert!(matches!(server.get("/v2/team/own/tags/list").status, 403 | 502));
        drop(server);
        let (cache, proxy) = (format!("oci:{}", cached(&dir).display()), format!("docker.io={upstream}"));
        let options = [&store, "--writable", "--proxy", &proxy, "--cache", &cache, "--retry", "0"];
        let server = Server::start_in(dir.clone(), &options);
        // As docker does before it pushes.
        assert_eq!(server.head(&format!("/v2/team/own/blobs/{}", Digest::of(b"x"))).status, 404, "{upstream}");
        server.push_image("team/own", "1", 1000);
        pull(&server, "/v2/team/own/manifests/1");
        assert_eq!(server.get("/v2/team/own/manifests/2").status, 404, "{upstream}");
        assert_eq!(server.get("/v2/team/own/tags/list").json()["tags"], serde_json::json!(["1"]));
        // Who says which registry is meant is told what that one says.
        let named = server.get("/v2/team/own/manifests/2?ns=docker.io");
        assert!(matches!(named.status, 403 | 502), "{upstream}: {}", named.status);
    }
}
