//! Registries that answer reads wrongly, oddly or too late.

use super::support;

#[path = "downloads/bodies.rs"]
mod bodies;
#[allow(dead_code)]
#[path = "../serve/client.rs"]
mod client;
#[path = "downloads/pages.rs"]
mod pages;
#[path = "downloads/serving.rs"]
mod serving;
#[path = "downloads/tokens.rs"]
mod tokens;

use imgmv::internals::image::media_type;
use imgmv::internals::registry::{Access, Registry};
use imgmv::{Cancel, Descriptor, Digest, Event, Manifest, Selector, Silent, Store, Watch};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::noise::noise;
use support::registry::Double;
use support::web::{Request, Response, Web};

/// For `client.rs`, which pushes images too.
fn manifest(config: &[u8], layers: &[&[u8]], _more: serde_json::Value) -> Vec<u8> {
    let layers: Vec<Descriptor> = layers.iter().map(|layer| Descriptor::of(media_type::OCI_LAYER, layer)).collect();
    Manifest::synthesise(&Descriptor::of(media_type::OCI_CONFIG, config), &layers).bytes
}

/// Quick to try again, and without the files of this user.
fn access() -> Access {
    Access {
        authfile: Some("/nonexistent/auth.json".into()),
        certs_dirs: Vec::new(),
        retry_pause: Duration::from_millis(1),
        ..Access::default()
    }
}

fn registry(host: &str) -> Arc<Registry> {
    Registry::new(host, access(), Arc::new(Silent), Cancel::default()).unwrap()
}

fn heard_at(host: &str) -> (Arc<Registry>, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    (Registry::new(host, access(), heard.clone(), Cancel::default()).unwrap(), heard)
}

/// Everything that is said.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Watch for Heard {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

fn read(store: &dyn Store, blob: &Descriptor, from: u64) -> imgmv::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open(blob, from)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A web server that remembers what it was asked.
fn noting(answer: impl Fn(&Request, usize) -> Response + Send + Sync + 'static) -> (Web, Arc<Mutex<Vec<Request>>>) {
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let notes = seen.clone();
    let web = Web::start(
        None,
        Arc::new(move |request, _| {
            let nth = {
                let mut notes = notes.lock().unwrap();
                notes.push(request.clone());
                notes.len()
            };
            Some(answer(request, nth))
        }),
    );
    (web, seen)
}

#[test]
fn one_bad_entry_of_a_list_hides_no_others() {
    let tags = r#"{"name":"app","tags":["1","a\u001b[31mred\nx","2",7,"../../etc","-x","3"]}"#;
    let digest = Digest::of(b"a signature");
    let referrers = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"sha256:x","size":1}},
            {{"mediaType":"a/b","digest":"{digest}","size":11}},null]}}"#
    );
    let (web, _) = noting(move |request, _| match &*request.path {
        "/v2/app/tags/list" => Response::json(200, tags),
        path if path.contains("/referrers/") => Response::json(200, &referrers),
        _ => Response::new(404),
    });
    let (registry, heard) = heard_at(&web.address.to_string());
    let store = registry.repository("app");
    let tags: Vec<String> = store.names().unwrap().iter().filter_map(|name| name.tag()).collect();
    assert_eq!(tags, ["1", "2", "3"]);
    let said = heard.all();
    assert!(said.contains("skipped 4 entries that are not a tag") && said.contains(r"a\u{1b}[31mred\nx"), "{said}");
    assert!(!said.contains('\u{1b}') && said.lines().count() == 1, "{said:?}");
    let found = store.referrers(&Digest::of(b"an image")).unwrap();
    assert_eq!(found.entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [digest]);
    assert!(found.incomplete.is_some_and(|why| why.contains("not every entry")));
    assert!(heard.all().contains("skipped 2 entries that are not a descriptor"), "{}", heard.all());
    // The program lists the rest and says the same.
    let out = support::program::imgmv(&["list", &format!("{}/app", web.address)], None);
    assert_eq!((out.status.code(), out.stdout.lines().count()), (Some(0), 3), "{}", out.stderr);
    assert!(out.stderr.contains("4 entries") && !out.stderr.contains('\u{1b}'), "{}", out.stderr);
}

/// A list of referrers that ends before the registry says so is not a complete one.
#[test]
fn a_list_of_referrers_without_an_end_says_that_it_is_not_complete() {
    let page = |nth: usize| {
        let digest = Digest::of(&nth.to_le_bytes());
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{digest}","size":1}}]}}"#);
        let next = format!("</v2/app/referrers/{}?page={}>; rel=\"next\"", Digest::of(b"an image"), nth + 1);
        Response::json(200, &text).with("link", next)
    };
    for (distinct, found, told) in [(usize::MAX, 200, "more than 200 pages"), (3, 3, "has no new entry")] {
        let (web, _) = noting(move |request, _| {
            let nth = request.parameter("page").and_then(|page| page.parse().ok()).unwrap_or(0usize);
            page(nth.min(distinct - 1))
        });
        let list = registry(&web.address.to_string()).repository("app").referrers(&Digest::of(b"an image")).unwrap();
        assert_eq!(list.entries.len(), found);
        assert!(list.incomplete.as_deref().is_some_and(|why| why.contains(told)), "{:?}", list.incomplete);
    }
}

#[test]
fn a_list_that_is_not_one_is_refused() {
    for body in ["{}", "[]", r#"{"tags":"1"}"#, r#"{"errors":[]}"#, "nothing"] {
        let (web, _) = noting(move |_, _| Response::json(200, body));
        let error = registry(&web.address.to_string()).repository("app").names().unwrap_err();
        assert_eq!(error.kind(), imgmv::Kind::Invalid, "{body}: {error}");
    }
    for body in [r#"{"name":"app","tags":null}"#, r#"{"name":"app"}"#, r#"{"tags":[]}"#] {
        let (web, _) = noting(move |_, _| Response::json(200, body));
        assert!(registry(&web.address.to_string()).repository("app").names().unwrap().is_empty(), "{body}");
    }
}

/// Before: asked 2000 times.
#[test]
fn a_list_that_leads_back_to_itself_ends() {
    let (web, seen) = noting(|request, nth| {
        let link = format!("<{}?n=1&last={nth}>; rel=\"next\"", request.path);
        Response::json(200, r#"{"name":"app","tags":["1"]}"#).with("Link", link)
    });
    let error = registry(&web.address.to_string()).repository("app").names().unwrap_err().to_string();
    assert!(error.contains("the tags of app form a loop") && seen.lock().unwrap().len() == 2, "{error}");
}
