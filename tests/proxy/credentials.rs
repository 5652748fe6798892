//! Images that need credentials: this server has them, and its clients may not.

use super::support::registry::{Auth, Bearer};
use super::*;
use base64::Engine as _;
use std::fs;

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// An upstream that wants credentials, and the file that has them.
fn closed(dir: &Arc<TempDir>, layer: &[u8]) -> (Double, Manifest, String) {
    let (double, image) = upstream(layer);
    let user = Some(("me".to_owned(), "secret".to_owned()));
    double.faults().auth = Auth::Bearer(Bearer { user, ..Bearer::default() });
    let file = dir.path().join("auth.json");
    let login = base64::engine::general_purpose::STANDARD.encode("me:secret");
    let auths = serde_json::json!({ "auths": { double.host(): { "auth": login } } });
    fs::write(&file, auths.to_string()).unwrap();
    (double, image, file.display().to_string())
}

fn start(dir: &Arc<TempDir>, double: &Double, file: &str, options: &[&str]) -> Server {
    let proxy = format!("docker.io={}", double.host());
    let cache = format!("oci:{}", cached(dir).display());
    let base = ["--proxy", &proxy, "--cache", &cache, "--authfile", file];
    Server::start_in(dir.clone(), &[&base[..], options].concat())
}

#[test]
fn nobody_gets_what_needs_credentials_unless_it_is_said() {
    let dir = folder();
    let layer = noise(1, 400_000);
    let (double, image, file) = closed(&dir, &layer);
    let server = start(&dir, &double, &file, &[]);
    let by_digest = format!("/v2/library/app/manifests/{}", image.digest());
    let refused = |server: &Server| {
        for path in [TAG, &by_digest, &blob_path(&Digest::of(&layer)), "/v2/library/app/tags/list"] {
            let reply = server.get(path);
            assert_eq!((reply.status, &*reply.code()), (403, "DENIED"), "{path}");
        }
    };
    refused(&server);
    drop(server);
    let server = start(&dir, &double, &file, &["--share-private"]);
    pull(&server, TAG);
    // What was got with credentials lies apart, and is nobody's afterwards either.
    assert!(!blob_file(&cached(&dir), &Digest::of(&layer)).exists());
    let private = cached(&dir).join("private");
    assert!(blob_file(&private, &Digest::of(&layer)).exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&private).unwrap().permissions());
    assert_eq!(mode & 0o077, 0);
    drop(server);
    refused(&start(&dir, &double, &file, &[]));
}

#[test]
fn users_of_this_server_get_it_and_others_are_asked_to_log_in() {
    let dir = folder();
    let layer = noise(2, 400_000);
    let (double, _, file) = closed(&dir, &layer);
    let users = dir.path().join("users");
    fs::write(&users, format!("ann:{}\n", bcrypt::hash("ann's", 4).unwrap())).unwrap();
    let users = users.display().to_string();
    let server = start(&dir, &double, &file, &["--htpasswd", &users, "--anonymous-pull"]);
    let ann = [("Authorization", &*basic("ann", "ann's"))];
    for path in [TAG, &blob_path(&Digest::of(&layer))] {
        let reply = server.get(path);
        assert_eq!(reply.status, 401, "{path}");
        assert!(reply.find("www-authenticate").is_some());
        assert_eq!(server.ask("GET", path, &ann, b"").status, 200, "{path}");
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    // A public image in the same registry is everybody's.
    double.faults().auth = Auth::Bearer(Bearer::default());
    assert_eq!(server.get(TAG).status, 200);
    assert!(
        !double
            .requests()
            .iter()
            .any(|request| request.header("authorization").is_some_and(|shown| shown.contains("ann")))
    );
}

#[test]
fn credentials_given_by_hand_are_for_one_host_only() {
    let dir = folder();
    let cache = format!("oci:{}", cached(&dir).display());
    let run = support::program::imgmv(
        &["serve", "--proxy", "docker.io,quay.io", "--cache", &cache, "--src-creds", "me:secret"],
        None,
    );
    assert_eq!(run.status.code(), Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("imgmv login"), "{}", run.stderr);
}
