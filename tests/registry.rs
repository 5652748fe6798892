//! The registry transport's promises, against a double that fails as it is told.

#[path = "support/mod.rs"]
mod support;

use imgmv::Kind;
use imgmv::cancel::Cancel;
use imgmv::image::{Descriptor, Digest, Hasher, Manifest, Name, media_type};
use imgmv::plan::Image;
use imgmv::progress::{Event, Silent, Watch};
use imgmv::sink::{Begin, Sink};
use imgmv::source::{Claim, Origin, Pick, Store};
use imgmv::transport::registry::{Access, Credentials, Registry, Secret};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::registry::{Auth, Bearer, Double, Faults, Ranges, Stumble, config, image};

/// Quick to give up, and blind to the files of whoever runs the tests.
fn access() -> Access {
    Access {
        authfile: Some("/nonexistent/auth.json".into()),
        certs_dirs: Vec::new(),
        pause: Duration::from_millis(1),
        timeout: Duration::from_secs(20),
        ..Access::default()
    }
}

fn registry(double: &Double, access: Access) -> Arc<Registry> {
    Registry::new(&double.host(), access, Arc::new(Silent), Cancel::default()).unwrap()
}

fn pull(store: &dyn Store, tag: &str) -> imgmv::Result<Manifest> {
    let root = store.roots(&[Pick::Name(tag.to_owned())])?.remove(0);
    let manifest = Manifest::parse(store.manifest(&root.descriptor)?, &root.descriptor)?;
    for blob in manifest.blobs() {
        read(store, blob, 0)?;
    }
    Ok(manifest)
}

fn read(store: &dyn Store, blob: &Descriptor, from: u64) -> imgmv::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open(blob, from)?.read_to_end(&mut bytes)?;
    if from == 0 {
        assert_eq!(Digest::of(&bytes), blob.digest);
    }
    Ok(bytes)
}

#[test]
fn an_image_is_pulled_with_one_request_for_each_blob_and_one_for_its_manifest() {
    let double = Double::start();
    let image = double.image("team/app", "1", &[b"layer one", b"layer two"]);
    let store = registry(&double, access()).repository("team/app");
    assert_eq!(pull(&store, "1").unwrap().digest(), image.digest());
    assert_eq!(double.requests().len(), 4, "{:#?}", double.requests());
}
