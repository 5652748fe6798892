//! Web pages and other documents where a registry should answer.

use super::client::Server;
use super::support::program::imgmv;
use super::support::registry::{Auth, Bearer};
use super::support::web::Body;
use super::*;
use imgmv::Kind;

const PAGE: &str = "<!DOCTYPE html>\n<html><title>Log in to the network</title></html>";

fn document(media_type: &str, body: &'static str) -> Response {
    Response::new(200).with("Content-Type", media_type).body(Body::Bytes(body.as_bytes().to_vec()))
}

/// A captive portal: the same page for everything.
fn portal() -> Web {
    noting(|_, _| document("text/html; charset=utf-8", PAGE)).0
}

#[test]
fn what_is_not_an_image_is_refused_and_not_stored() {
    let manifest = media_type::OCI_MANIFEST;
    for (media_type, body, status, words) in [
        ("text/html; charset=utf-8", PAGE, 6, "responded with a web page, not image lib/img"),
        ("TEXT/HTML", "{}", 6, "responded with a web page"),
        ("application/json", PAGE, 6, "responded with a web page"),
        (manifest, PAGE, 6, "responded with a web page"),
        ("text/plain", "It works!", 5, "is something that is not JSON, not image lib/img"),
        ("", "", 5, "not JSON"),
        ("image/png", "\u{1}PNG", 5, "not JSON"),
        ("application/json", r#"{"error":"log in"}"#, 5, "is JSON without a manifest's fields"),
        ("application/vnd.other+json", r#"["schemaVersion",2]"#, 5, "without a manifest's fields"),
        (manifest, "{}", 5, "without a manifest's fields"),
    ] {
        let (web, _) = noting(move |_, _| document(media_type, body));
        let host = web.address.to_string();
        let dir = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}", dir.path().join("l").display());
        let archive = dir.path().join("a.tar").display().to_string();
        let tagged = format!("docker://{host}/lib/img:latest");
        for args in [
            vec!["copy", &tagged, &layout],
            vec!["save", &tagged, "-o", &archive],
            vec!["digest", &tagged],
            vec!["inspect", &tagged],
            vec!["verify", &tagged],
        ] {
            let out = imgmv(&args, None);
            assert_eq!(out.status.code(), Some(status), "{media_type} {body} {args:?}: {}", out.stderr);
            assert!(out.stdout.is_empty() && out.stderr.contains(words), "{args:?}: {}{}", out.stdout, out.stderr);
            assert!(out.stderr.contains(&host), "{}", out.stderr);
        }
        assert!(super::client::files(dir.path()).iter().all(|file| !file.contains("blobs")), "{media_type} {body}");
    }
}

#[test]
fn other_manifests_than_images_are_carried_as_they_are() {
    for (media_type, body) in [
        ("application/vnd.cncf.oras.artifact.manifest.v1+json", r#"{"artifactType":"a/b","blobs":[]}"#),
        ("application/vnd.other.v1+json", r#"{"schemaVersion":2,"other":[]}"#),
    ] {
        let (web, _) = noting(move |_, _| document(media_type, body));
        let dir = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}", dir.path().join("l").display());
        let out = imgmv(&["copy", &format!("{}/lib/img:1", web.address), &layout], None);
        assert_eq!(out.status.code(), Some(0), "{}", out.stderr);
        assert!(out.stdout.contains(&Digest::of(body.as_bytes()).to_string()), "{}", out.stdout);
    }
    // Docker's schema 1 has its own sentence.
    let (web, _) = noting(|_, _| document(media_type::DOCKER_SCHEMA1[0], r#"{"schemaVersion":1,"fsLayers":[]}"#));
    let out = imgmv(&["inspect", &format!("{}/lib/img:1", web.address)], None);
    assert!(out.status.code() == Some(5) && out.stderr.contains("schema 1"), "{}", out.stderr);
}

#[test]
fn a_portal_is_not_believed_in_any_other_answer() {
    let web = portal();
    let host = web.address.to_string();
    let store = registry(&host).repository("lib/img");
    let (digest, blob) = (Digest::of(b"x"), Descriptor::of(media_type::OCI_LAYER, &[7; 500]));
    let by_digest = [Selector::Digest(digest)];
    let answers: Vec<(&str, imgmv::Result<()>)> = vec![
        ("tags", store.names().map(drop)),
        ("referrers", store.referrers(&digest).map(drop)),
        ("a manifest by digest", store.roots(&by_digest).map(drop)),
        ("HEAD of a tag", store.resolve_tag("latest").map(drop)),
        ("HEAD of a manifest", store.find_manifest(&digest).map(drop)),
        ("HEAD of a blob", store.blob_size(&digest).map(drop)),
        ("either", store.find(&digest).map(drop)),
        ("a blob", read(&store, &blob, 0).map(drop)),
        ("a blob's end", read(&store, &blob, 300).map(drop)),
        ("API", registry(&host).check_login().map(drop)),
    ];
    for (what, answer) in answers {
        let error = answer.expect_err(what);
        assert_eq!(error.kind(), Kind::Network, "{what}: {error}");
        assert!(error.to_string().contains("responded with a web page"), "{what}: {error}");
    }
    // A login keeps nothing, and a push finds out before it says that blobs are there.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let password = dir.path().join("password");
    std::fs::write(&password, "pw").unwrap();
    let args = ["login", &host, "-u", "me", "--password-file", password.to_str().unwrap()];
    let out = imgmv(&[&args[..], &["--authfile", file.to_str().unwrap()]].concat(), None);
    assert!(out.status.code() == Some(6) && !file.exists(), "{}", out.stderr);
    let double = Double::start();
    double.image("app", "1", &[b"layer"]);
    let out = imgmv(&["copy", &format!("{}/app:1", double.host()), &format!("docker://{host}/app:1")], None);
    assert!(out.status.code() == Some(6) && out.stderr.contains("web page"), "{}", out.stderr);
    // A token service behind the portal.
    double.faults().auth = Auth::Bearer(Bearer { realm: Some(format!("http://{host}/token")), ..Bearer::default() });
    let error = registry(&double.host()).repository("app").names().unwrap_err();
    assert!(error.kind() == Kind::Network && error.to_string().contains("not a token"), "{error}");
}

#[test]
fn a_registry_that_calls_its_own_answers_html_is_still_one() {
    // quay.io's `/v2/`; a blob that is a web page.
    let page = PAGE.as_bytes();
    let (web, _) = noting(move |request, _| match &*request.path {
        "/v2/" => document("text/html", "true").with("Docker-Distribution-API-Version", "registry/2.0"),
        _ => document("text/html", PAGE),
    });
    let registry = registry(&web.address.to_string());
    assert!(!registry.check_login().unwrap());
    let blob = Descriptor::of("text/html", page);
    assert_eq!(read(&registry.repository("docs"), &blob, 0).unwrap(), page);
}

#[test]
fn a_mirror_gives_no_page_and_keeps_none() {
    let web = portal();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let cache = format!("oci:{}", dir.path().join("cache").display());
    let proxy = format!("docker.io={}", web.address);
    let authfile = ["--authfile", "/nonexistent/auth.json"];
    let server = Server::start_in(dir.clone(), &[&["--proxy", &*proxy, "--cache", &*cache][..], &authfile].concat());
    let digest = Digest::of(PAGE.as_bytes());
    for path in ["manifests/latest".to_owned(), format!("manifests/{digest}"), format!("blobs/{digest}")] {
        let reply = server.get(&format!("/v2/lib/img/{path}"));
        assert_eq!(reply.status, 502, "{path}: {}", reply.text());
    }
    let kept = super::client::files(dir.path());
    assert!(!kept.iter().any(|file| file.contains(&digest.hex())), "{kept:?}");
}
