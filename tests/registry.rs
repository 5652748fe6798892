//! The registry transport's promises, against a double that fails as it is told and against the real docker-registry.

#[path = "support/mod.rs"]
mod support;

#[path = "registry/auth.rs"]
mod auth;
#[path = "registry/environment.rs"]
mod environment;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/login.rs"]
mod login;
#[path = "registry/pull.rs"]
mod pull;
#[path = "registry/push.rs"]
mod push;
#[path = "registry/real.rs"]
mod real;
#[path = "registry/shared.rs"]
mod shared;
#[path = "registry/tags.rs"]
mod tags;

use imgmv::internals::image::media_type;
use imgmv::internals::registry::{Access, Insecure, Registry, RegistryPool, RepositorySink, RepositoryStore};
use imgmv::{
    Cancel, Compress, Descriptor, Digest, Event, Manifest, Name, Naming, Options, Report, Selector, Silent, Source,
    Store, Watch, copy,
};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::noise::noise;
use support::registry::Double;

/// Quick to try again, and blind to the files of whoever runs the tests.
fn access() -> Access {
    Access {
        authfile: Some("/nonexistent/auth.json".into()),
        certs_dirs: Vec::new(),
        retry_pause: Duration::from_millis(1),
        ..Access::default()
    }
}

fn reach(host: &str, access: Access) -> Arc<Registry> {
    Registry::new(host, access, Arc::new(Silent), Cancel::default()).unwrap()
}

fn store(double: &Double, repository: &str) -> RepositoryStore {
    reach(&double.host(), access()).repository(repository)
}

fn sink(double: &Double, repository: &str) -> RepositorySink {
    reach(&double.host(), access()).sink(repository)
}

/// Everything of the image under `tag`, as the engine reads it.
fn pull(store: &dyn Store, tag: &str) -> imgmv::Result<Manifest> {
    let root = store.roots(&[Selector::Name(tag.to_owned())])?.remove(0);
    let manifest = root.read(store)?;
    for blob in manifest.blobs() {
        assert_eq!(Digest::of(&read(store, blob, 0)?), blob.digest);
    }
    Ok(manifest)
}

fn read(store: &dyn Store, blob: &Descriptor, from: u64) -> imgmv::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open(blob, from)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Copies `tag` with its bytes as they are.
fn send(store: RepositoryStore, sink: &RepositorySink, tag: &str) -> imgmv::Result<Report> {
    send_with(store, sink, tag, &Silent)
}

fn send_with(store: RepositoryStore, sink: &RepositorySink, tag: &str, watch: &dyn Watch) -> imgmv::Result<Report> {
    let options = Options {
        selectors: vec![Selector::Name(tag.to_owned())],
        naming: Naming::Names(vec![Name::new(tag)?]),
        compress: Compress::Keep,
        ..Options::default()
    };
    copy(Source::Store(Arc::new(store)), sink, &options, None, watch, &Cancel::default())
}

/// A manifest that refers to `subject`, as a signature does; its config is the double's.
fn referrer(subject: &Manifest) -> Manifest {
    let config = Descriptor::of(media_type::OCI_CONFIG, support::registry::config());
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x.signature",
        "config": config, "layers": [], "subject": subject.descriptor, "annotations": { "by": "someone" },
    });
    Manifest::from_bytes(text.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap()
}

/// Remembers what it is told.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Watch for Heard {
    fn event(&self, event: Event<'_>) {
        let text = match event {
            Event::Info(text) | Event::Detail(text) => text.to_owned(),
            Event::Retry { what, why, after } => format!("retry {what}: {why}, after {after:?}"),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}
