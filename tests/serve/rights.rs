//! Who may do what: passwords, addresses, and pages in browsers.

use super::support::program::imgmv;
use super::*;
use base64::Engine as _;
use tempfile::TempDir;

/// Users and their passwords: `ann` `sesame`, `bob` `mellon`; bcrypt at the least cost.
const USERS: &str = "\
ann:$2y$04$abcdefghijklmnopqrstuuinwY/tkBVrn3xrxQI/TgnMHhkvl85RW
bob:$2y$04$zyxwvutsrqponmlkjihgfec7n9ZKC0dxr8OVd.QD0eG/SxzfstGV.
";

fn server(options: &[&str]) -> Server {
    let dir = TempDir::new().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, USERS).unwrap();
    let all = [&["--htpasswd", users.to_str().unwrap()], options].concat();
    Server::writable_in(dir.into(), &all)
}

fn ask(server: &Server, method: &str, path: &str, user: &str, body: &[u8]) -> Reply {
    let shown = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user));
    match user {
        "" => server.ask(method, path, &[], body),
        _ => server.ask(method, path, &[("Authorization", &shown)], body),
    }
}

#[test]
fn nobody_without_a_password_gets_in() {
    let server = server(&[]);
    for path in ["/v2/", "/v2/_catalog", "/v2/app/tags/list", "/v2/app/manifests/v1", "/v2/app/blobs/uploads/"] {
        for user in ["", "ann:wrong", "carl:sesame", ":"] {
            let reply = ask(&server, "GET", path, user, b"");
            assert_eq!((reply.status, reply.code().as_str()), (401, "UNAUTHORIZED"), "{user} {path}");
            assert!(reply.header("www-authenticate").starts_with("Basic realm="));
        }
    }
    for user in ["ann:sesame", "bob:mellon"] {
        assert_eq!(ask(&server, "GET", "/v2/", user, b"").status, 200);
        assert_eq!(ask(&server, "POST", "/v2/app/blobs/uploads/", user, b"").status, 202);
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn pulling_and_pushing_are_rights_apart() {
    let server = server(&["--push-user", "ann", "--anonymous-pull"]);
    let digest = Digest::of(b"{}");
    let blob = format!("/v2/app/blobs/uploads/?digest={digest}");
    assert_eq!(ask(&server, "POST", &blob, "", b"{}").status, 401);
    let bob = ask(&server, "POST", &blob, "bob:mellon", b"{}");
    assert_eq!((bob.status, bob.code().as_str()), (403, "DENIED"));
    assert_eq!(ask(&server, "POST", &blob, "ann:sesame", b"{}").status, 201);
    let path = format!("/v2/app/blobs/{digest}");
    for user in ["", "bob:mellon", ":"] {
        assert_eq!(ask(&server, "GET", &path, user, b"").status, 200, "{user}");
        assert_eq!(ask(&server, "DELETE", &path, user, b"").status, if user == "bob:mellon" { 403 } else { 401 });
    }
    assert_eq!(ask(&server, "GET", &path, "ann:wrong", b"").status, 401);
    // Here docker learns where tokens are to be had, for anybody and for users.
    let base = ask(&server, "GET", "/v2/", "", b"");
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"imgmv\"", server.host);
    assert_eq!((base.status, base.header("www-authenticate")), (401, &*realm));
    assert_eq!(ask(&server, "GET", "/token?scope=repository:app:pull,push", "ann:wrong", b"").status, 401);
    let push = |user: &str| {
        let given = ask(&server, "GET", "/token?service=imgmv&scope=repository:app:pull,push", user, b"").json();
        let shown = format!("Bearer {}", given["token"].as_str().unwrap());
        let with = [("Authorization", &*shown)];
        let read = server.ask("GET", &path, &with, b"").status;
        (read, server.ask("POST", "/v2/app/blobs/uploads/", &with, b"").status)
    };
    assert_eq!((push("ann:sesame"), push("bob:mellon"), push("")), ((200, 202), (200, 403), (200, 401)));
    let made_up = [("Authorization", "Bearer 0000")];
    assert_eq!(server.ask("GET", &path, &made_up, b"").status, 401);
    assert_eq!(ask(&server, "GET", "/v2/", "bob:mellon", b"").status, 200);
}

#[test]
fn nobody_pushes_from_afar_without_being_let_in_in_so_many_words() {
    let dir = TempDir::new().unwrap();
    let store = format!("oci:{}", dir.path().join("store").display());
    let refused = imgmv(&["serve", &store, "--writable", "--listen", "0.0.0.0:0"], None);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("--anonymous-push"), "{}", refused.stderr);
    let server = Server::writable_in(dir.into(), &["--listen", "0.0.0.0:0", "--anonymous-push"]);
    assert_eq!(server.ask("POST", "/v2/app/blobs/uploads/", &[], b"").status, 202);
}

#[test]
fn what_makes_no_sense_is_said_before_anything_listens() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "ann:{SHA}abc\n").unwrap();
    let (file, store) = (file.to_str().unwrap(), format!("oci:{}", dir.path().join("store").display()));
    let hello = super::support::program::fixture("hello-docker20.tar");
    let packed = super::support::program::fixture("hello-docker20.tar.gz");
    for (args, status, told) in [
        (&["serve", &store][..], 3, "no OCI layout"),
        (&["serve", &hello, "--writable"], 2, "--writable needs a directory"),
        (&["serve", &packed], 2, "compressed as a whole"),
        (&["serve", "-"], 2, "not a store that can be served"),
        (&["serve", "app:2"], 2, "remove the tag or digest"),
        (&["serve", &hello, "--listen", "nowhere"], 2, "expected ADDRESS:PORT"),
        (&["serve", &hello, "--htpasswd", file], 5, "bcrypt"),
        (&["serve", &hello, "--htpasswd", "/nonexistent"], 3, "no such file"),
        (&["serve", &hello, "--tls-cert", file, "--tls-key", file], 5, "PEM"),
    ] {
        let said = imgmv(args, None);
        assert_eq!(said.status.code(), Some(status), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(told), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn a_page_in_a_browser_cannot_write_nor_call_loopback_by_another_name() {
    let server = Server::writable();
    let upload = |headers: &[(&str, &str)]| server.ask("POST", "/v2/app/blobs/uploads/", headers, b"").status;
    assert_eq!(upload(&[]), 202);
    assert_eq!(upload(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(upload(&[("Origin", &format!("http://{}", server.host))]), 403);
    assert_eq!(upload(&[("Sec-Fetch-Site", "same-origin")]), 403);
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:5000", 403),
        ("localhost:1", 200),
        ("[::1]", 200),
        ("host.docker.internal", 200),
    ] {
        assert_eq!(server.ask("GET", "/v2/", &[("Host", host)], b"").status, status, "{host}");
    }
    // A target that names another host is judged by that.
    let reply = server.raw(b"GET http://evil.example/v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_ne!(reply.status, 200);
    let named = Server::writable_in(server.dir.clone(), &["--allow-host", "registry.lan"]);
    assert_eq!(named.ask("GET", "/v2/", &[("Host", "registry.lan:5000")], b"").status, 200);
}

#[test]
fn it_speaks_tls_with_a_certificate_from_files() {
    let tls = |name: &str| format!("{}/tests/support/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["server.crt", "server.key"] {
        std::fs::copy(tls(name), at(name)).unwrap();
    }
    let (crt, key, ca) = (at("server.crt"), at("server.key"), tls("ca.crt"));
    let server = Server::writable_in(dir.into(), &["--tls-cert", &crt, "--tls-key", &key]);
    // A certificate that cannot be used does not take the place of one that can.
    std::fs::write(&crt, "no certificate").unwrap();
    assert!(server.log()[0].starts_with("listening on https://"));
    let hello = super::support::program::fixture("hello-skopeo-oci.tar");
    let there = format!("docker://{}/app:1", server.host);
    let pushed = imgmv(&["copy", "-q", &hello, &there, "--dst-ca", &ca], None);
    assert!(pushed.status.success(), "{}", pushed.stderr);
    let back = server.dir.path().join("back").display().to_string();
    let pulled = imgmv(&["copy", "-q", &there, &format!("oci:{back}"), "--src-ca", &ca], None);
    assert!(pulled.status.success() && pulled.stdout.contains("@sha256:"), "{}", pulled.stderr);
}
