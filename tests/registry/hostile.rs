//! Registries that lie, flood and mislead: each ends in a clear error, soon and within bounds. And TLS, which keeps
//! others from posing as a registry.

use super::support::registry::{Double, Stumble};
use super::support::web::{Body, Response, Tls, Web};
use super::*;
use imgmv::Kind;
use imgmv::sink::Sink;
use std::path::{Path, PathBuf};

fn tls(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tls").join(file)
}

/// A web server that answers everything alike.
fn always(response: impl Fn() -> Response + Send + Sync + 'static) -> Web {
    Web::start(None, Arc::new(move |_, _| Some(response())))
}

fn store_at(web: &Web) -> RepositoryStore {
    reach(&web.address.to_string(), access()).repository("app")
}

#[test]
fn answers_without_end_are_cut_off() {
    let double = Double::start();
    let image = double.image("app", "1", &[b"layer"]);
    for part in ["/manifests/", "/tags/", "/blobs/", "/referrers/"] {
        double.faults().endless = Some(part);
        let store = store(&double, "app");
        let error = match part {
            "/manifests/" => store.roots(&[Selector::Name("1".into())]).map(|_| ()),
            "/tags/" => store.names().map(|_| ()),
            "/blobs/" => read(&store, &image.layers()[0], 0).map(|_| ()),
            _ => store.referrers(&image.digest()).map(|_| ()),
        };
        assert_eq!(error.unwrap_err().kind(), Kind::Invalid, "{part}");
    }
}

#[test]
fn an_error_without_end_is_still_told() {
    let web = always(|| Response::new(404).body(Body::Endless));
    assert_eq!(store_at(&web).roots(&[Selector::Name("1".into())]).unwrap_err().kind(), Kind::NotFound);
    let web = always(|| Response::new(401).with("WWW-Authenticate", "Bearer realm=\"/token\"").body(Body::Endless));
    assert_eq!(store_at(&web).roots(&[Selector::Name("1".into())]).unwrap_err().kind(), Kind::Denied);
}

#[test]
fn pages_of_tags_that_never_end_are_refused() {
    let web =
        always(|| Response::json(200, r#"{"tags":["again"]}"#).with("Link", "</v2/app/tags/list?n=1>; rel=\"next\""));
    let error = store_at(&web).names().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let web = always(|| Response::json(200, r#"{"tags":[]}"#).with("Link", "</v2/app/tags/list>; rel=\"next\""));
    assert!(store_at(&web).names().unwrap().is_empty());
}

#[test]
fn a_list_that_goes_on_at_another_host_is_refused() {
    let web = always(|| Response::json(200, r#"{"tags":["a"]}"#).with("Link", "<http://localhost:1/x>; rel=next"));
    assert_eq!(store_at(&web).names().unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn tags_that_are_not_tags_are_skipped() {
    for tag in ["../../etc/passwd", "", "a\\u001b[31m", "-x"] {
        let text = format!(r#"{{"tags":["{tag}"]}}"#);
        let web = always(move || Response::json(200, &text));
        let heard = Arc::new(Heard::default());
        let registry = Registry::new(&web.address.to_string(), access(), heard.clone(), Cancel::default()).unwrap();
        assert!(registry.repository("app").names().unwrap().is_empty(), "{tag}");
        assert!(heard.all().contains("is not a tag") && !heard.all().contains('\u{1b}'), "{}", heard.all());
    }
}

#[test]
fn redirects_go_neither_in_circles_nor_from_loopback_into_the_open() {
    let web = always(|| Response::new(302).with("Location", "/v2/app/manifests/1"));
    let error = store_at(&web).roots(&[Selector::Name("1".into())]).unwrap_err();
    assert!(error.to_string().contains("more than 8 redirects"), "{error}");
    for location in
        ["http://example.com/x", "file:///etc/passwd", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "http://["]
    {
        let web = always(move || Response::new(307).with("Location", location));
        let error = store_at(&web).roots(&[Selector::Name("1".into())]).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{location}: {error}");
    }
}

#[test]
fn a_blob_of_another_size_is_refused_before_it_is_read() {
    let double = Double::start();
    let image = double.image("app", "1", &[b"layer"]);
    for size in [4, 6] {
        let wrong = Descriptor { size, ..image.layers()[0].clone() };
        assert_eq!(read(&store(&double, "app"), &wrong, 0).unwrap_err().kind(), Kind::Invalid);
    }
}

#[test]
fn what_a_registry_says_reaches_no_terminal_as_it_is() {
    let words = r#"{"errors":[{"code":"X","message":"\u001b]0;owned\u0007 \u202e reversed"}]}"#;
    let double = Double::start();
    double.faults().stumbles = vec![Stumble { body: words.into(), ..Stumble::new("GET", "/manifests/", 400, 1) }];
    let error = store(&double, "app").roots(&[Selector::Name("1".into())]).unwrap_err().to_string();
    assert!(error.contains("owned") && !error.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{error:?}");
}

#[test]
fn nonsense_instead_of_http_is_a_clear_error() {
    for nonsense in [&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], b"\0\0\0\0", b"HTTP/1.1 999999\r\n\r\n"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            use std::io::Write;
            for stream in listener.incoming().flatten().take(20) {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(nonsense);
            }
        });
        let error = reach(&host, access()).repository("app").roots(&[Selector::Name("1".into())]).unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[test]
fn tls_is_spoken_where_it_is_and_only_with_whom_is_trusted() {
    let double = Double::start_tls(Tls::Server);
    let image = double.image("app", "1", &[b"layer"]);
    // Nobody vouches: no request is made, and plain HTTP is not tried either.
    let error = super::pull(&store(&double, "app"), "1").unwrap_err();
    assert_eq!((error.kind(), double.requests().len()), (Kind::Network, 0));
    assert!(error.to_string().contains("certificate"), "{error}");
    let trusting = Access { ca: Some(tls("ca.crt")), ..access() };
    let found = super::pull(&reach(&double.host(), trusting).repository("app"), "1").unwrap();
    assert_eq!(found.digest(), image.digest());
    let careless = Access { insecure: Insecure::ByUser, ..access() };
    assert!(super::pull(&reach(&double.host(), careless).repository("app"), "1").is_ok());
}

#[test]
fn certs_d_names_authorities_and_client_certificates_for_one_host() {
    let double = Double::start_tls(Tls::Mutual);
    double.image("app", "1", &[]);
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(double.host());
    std::fs::create_dir_all(&own).unwrap();
    let with_dir = || Access { certs_dirs: vec![dir.path().to_owned()], ..access() };
    std::fs::copy(tls("ca.crt"), own.join("ca.crt")).unwrap();
    let error = super::pull(&reach(&double.host(), with_dir()).repository("app"), "1").unwrap_err();
    assert!(error.to_string().contains("requires a client certificate"), "{error}");
    std::fs::copy(tls("client.crt"), own.join("client.cert")).unwrap();
    let error = super::pull(&reach(&double.host(), with_dir()).repository("app"), "1").unwrap_err();
    assert!(error.to_string().contains("client.key"), "{error}");
    std::fs::copy(tls("client.key"), own.join("client.key")).unwrap();
    super::pull(&reach(&double.host(), with_dir()).repository("app"), "1").unwrap();
    // A key that is not the certificate's is found out before anything is sent.
    std::fs::copy(tls("server.key"), own.join("client.key")).unwrap();
    let error = super::pull(&reach(&double.host(), with_dir()).repository("app"), "1").unwrap_err();
    assert!(error.to_string().contains("does not belong to the certificate"), "{error}");
}

#[test]
fn a_redirect_from_https_to_http_is_not_followed() {
    let (double, plain) = (Double::start_tls(Tls::Server), Double::start());
    double.image("app", "1", &[b"layer"]);
    plain.put_blob("app", b"layer");
    let trusting = Access { ca: Some(tls("ca.crt")), ..access() };
    let registry = reach(&double.host(), trusting);
    double.faults().redirect_blobs = Some(plain.base());
    let error = super::pull(&registry.repository("app"), "1").unwrap_err();
    assert_eq!((error.kind(), plain.requests().len()), (Kind::Invalid, 0), "{error}");
    double.faults().locations = Some(plain.base());
    let image = support::registry::image(&[]);
    let error = registry.sink("new").begin(&(&image.descriptor).into(), None).map(|_| ());
    assert!(error.is_ok(), "a small blob opens its upload when it is known");
    let from = Double::start();
    from.image("app", "1", &[b"new layer"]);
    let error = send(store(&from, "app"), &registry.sink("new"), "1").unwrap_err();
    assert_eq!((error.kind(), plain.requests().len()), (Kind::Invalid, 0), "{error}");
    assert!(error.to_string().contains("X-Forwarded-Proto"), "{error}");
}

#[test]
fn a_host_that_is_no_host_is_refused() {
    for host in ["", "..", "a/b", "../../etc", "-x", "a:b", "a b", "user@host"] {
        assert!(Registry::new(host, access(), Arc::new(Silent), Cancel::default()).is_err(), "{host}");
    }
}
