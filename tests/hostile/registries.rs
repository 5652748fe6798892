//! Registries that lie, stall and never end, copied from and pushed to as a whole. How single requests are answered is
//! shown in `tests/registry`; here it is what such a registry leaves behind.

use super::images::plain;
use super::support::registry::{Auth, Bearer, Double, Stumble};
use super::support::web::{Body, Response, Web};
use super::target::Target;
use super::ways::{access, repository};
use super::world::{World, layer};
use imgmv::internals::registry::Registry;
use imgmv::{Cancel, Digest, Kind, Options, Silent, Source, copy};
use std::sync::Arc;
use std::time::Duration;

fn source(double: &Double) -> Source {
    let registry = Registry::new(&double.host(), access(), Arc::new(Silent), Cancel::default()).unwrap();
    Source::Store(Arc::new(registry.repository("app")))
}

fn double() -> Double {
    let double = Double::start();
    double.image("app", "1", &[&layer(1), &[7; 300_000]]);
    double
}

#[test]
fn an_endless_or_broken_registry_names_nothing() {
    let cases: Vec<(&str, fn(&Double), Kind)> = vec![
        ("endless tags", |double| double.faults().endless = Some("/tags/"), Kind::Invalid),
        ("endless manifests", |double| double.faults().endless = Some("/manifests/"), Kind::Invalid),
        ("endless blobs", |double| double.faults().endless = Some("/blobs/"), Kind::Invalid),
        ("blobs that break off", |double| double.faults().cut = Some((100, usize::MAX)), Kind::Network),
        ("blobs that break off at once", |double| double.faults().cut = Some((0, usize::MAX)), Kind::Network),
        ("manifests that are altered", |double| double.faults().flip_manifest = usize::MAX, Kind::Invalid),
        (
            "redirects into the void",
            |double| double.faults().redirect_blobs = Some("http://127.0.0.1:1".into()),
            Kind::Network,
        ),
        ("redirects to itself", |double| double.faults().redirect_blobs = Some(double.base()), Kind::Failed),
        (
            "a wait of a year",
            |double| {
                let wait = Stumble {
                    retry_after: Some("31536000".into()),
                    ..Stumble::new("GET", "/manifests/", 403, usize::MAX)
                };
                double.faults().stumbles = vec![wait];
            },
            Kind::Denied,
        ),
        (
            "a realm that is a file",
            |double| {
                let realm = Some("file:///etc/passwd".to_owned());
                double.faults().auth = Auth::Bearer(Bearer { realm, ..Bearer::default() });
            },
            Kind::Denied,
        ),
    ];
    for (what, break_it, kind) in cases {
        let double = double();
        break_it(&double);
        let target = Target::new();
        let error = target.refuse(Ok(source(&double)));
        println!("{what}: {error}");
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(plain(&error.to_string()), "{what}: {error:?}");
    }
}

#[test]
fn a_registry_that_goes_silent_in_a_blob_is_left() {
    let double = double();
    double.faults().stall = Some((1000, usize::MAX));
    let patience = imgmv::internals::registry::Access { timeout: Duration::from_millis(300), ..access() };
    let registry = Registry::new(&double.host(), patience, Arc::new(Silent), Cancel::default()).unwrap();
    let error = Target::new().refuse(Ok(Source::Store(Arc::new(registry.repository("app")))));
    assert_eq!(error.kind(), Kind::Network, "{error}");
}

#[test]
fn a_token_service_that_never_ends_or_sends_rubbish_is_left() {
    let bodies: [fn() -> Body; 4] = [
        || Body::Endless,
        || Body::Bytes(format!("{{\"token\":\"{}\"}}", "a".repeat(100_000)).into_bytes()),
        || Body::Bytes(br#"{"token":"a\r\nX-Injected: 1"}"#.to_vec()),
        || Body::Bytes(b"[[[[[[[[[[[[[[[[[".to_vec()),
    ];
    for body in bodies {
        let web = Web::start(
            None,
            Arc::new(move |request, _| {
                let host = request.header("host").unwrap_or_default().to_owned();
                Some(match request.path.as_str() {
                    "/token" => Response::new(200).with("Content-Type", "application/json").body(body()),
                    _ => Response::new(401)
                        .with("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\",service=\"s\"")),
                })
            }),
        );
        let error = Target::new().refuse(Ok(repository(&web)));
        assert!([Kind::Invalid, Kind::Denied, Kind::Failed].contains(&error.kind()), "{error}");
        assert!(plain(&error.to_string()) && error.to_string().len() < 2000, "{error}");
    }
}

#[test]
fn a_registrys_words_are_bounded_and_stay_on_their_line() {
    let words = format!(
        r#"{{"errors":[{{"code":"DENIED\n","message":"no\r\nimgmv: done\u001b]0;x\u0007{}","detail":{{"a":"\u202e"}}}}]}}"#,
        "long ".repeat(10_000)
    );
    for status in [400, 401, 403, 404, 429, 500] {
        let words = words.clone();
        let web = Web::start(None, Arc::new(move |_, _| Some(Response::json(status, &words))));
        let text = Target::new().refuse(Ok(repository(&web))).to_string();
        assert!(plain(&text) && text.len() < 3000, "{status}: {text:?}");
    }
}

/// A copy of an honest image to `double`, and what became of it.
fn push(double: &Double) -> imgmv::Result<imgmv::Report> {
    let mut world = World::default();
    let root = world.image(&[layer(1), layer(2)]);
    let world = world.name(root);
    let registry = Registry::new(&double.host(), access(), Arc::new(Silent), Cancel::default()).unwrap();
    let opened = super::ways::Way::Layout.open(&world);
    let options = Options { compress: imgmv::Compress::Keep, ..Options::default() };
    copy(opened.source.unwrap(), &registry.sink("new"), &options, None, &Silent, &Cancel::default())
}

#[test]
fn a_registry_that_is_pushed_to_and_lies_is_told_on() {
    let cases: Vec<(&str, Box<dyn Fn(&Double)>)> = vec![
        ("another digest", Box::new(|double| double.faults().stored_digest = Some(Digest::of(b"other").to_string()))),
        ("locations that are files", Box::new(|double| double.faults().locations = Some("file:///etc".into()))),
        ("locations in the open", Box::new(|double| double.faults().locations = Some("http://192.0.2.1".into()))),
        (
            "locations with a password",
            Box::new(|double| double.faults().locations = Some("http://a:b@127.0.0.1".into())),
        ),
        (
            "uploads that break off",
            Box::new(|double| {
                double.faults().cut_upload = Some((10, usize::MAX));
                double.faults().forget_uploads = true;
            }),
        ),
        (
            "uploads that are refused",
            Box::new(|double| {
                double.faults().stumbles = vec![Stumble::new("POST", "/uploads/", 500, usize::MAX)];
            }),
        ),
        (
            "manifests that are refused",
            Box::new(|double| {
                double.faults().stumbles = vec![Stumble::new("PUT", "/manifests/", 400, usize::MAX)];
            }),
        ),
    ];
    for (what, break_it) in cases {
        let double = Double::start();
        break_it(&double);
        let error = push(&double).unwrap_err();
        println!("{what}: {error}");
        assert!(plain(&error.to_string()), "{what}: {error:?}");
        assert!(what == "another digest" || double.tag("new", "1").is_none(), "{what}: it was tagged");
    }
}
