//! `imgmv serve` as a process: the distribution specification's four categories, written from its text, and everything
//! that clients do to a server beside that.

#[path = "support/mod.rs"]
mod support;

#[path = "serve/abuse.rs"]
mod abuse;
#[path = "serve/browser.rs"]
mod browser;
#[path = "serve/client.rs"]
mod client;
#[path = "serve/discovery.rs"]
mod discovery;
#[path = "serve/killed.rs"]
mod killed;
#[path = "serve/management.rs"]
mod management;
#[path = "serve/operations.rs"]
mod operations;
#[path = "serve/peers.rs"]
mod peers;
#[path = "serve/pull.rs"]
mod pull;
#[path = "serve/push.rs"]
mod push;
#[path = "serve/rights.rs"]
mod rights;
#[path = "serve/signed.rs"]
mod signed;
#[path = "serve/sources.rs"]
mod sources;

use client::{Reply, Server};
use imgmv::internals::image::{Algorithm, media_type};
use imgmv::{Descriptor, Digest, Hasher};
use serde_json::{Value, json};
use support::noise::noise;

fn sha512(bytes: &[u8]) -> Digest {
    Hasher::new(Algorithm::Sha512).with(bytes).finish()
}

/// A manifest of `config` and `layers`, with whatever `more` has.
fn manifest(config: &[u8], layers: &[&[u8]], more: Value) -> Vec<u8> {
    let layers: Vec<Descriptor> =
        layers.iter().map(|layer| Descriptor::of(media_type::OCI_LAYER_GZIP, layer)).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, config),
        "layers": layers,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    manifest.to_string().into_bytes()
}

/// An index over `children`.
fn index(children: &[&[u8]]) -> Vec<u8> {
    let children: Vec<Descriptor> = children.iter().map(|one| Descriptor::of(media_type::OCI_MANIFEST, one)).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
    index.to_string().into_bytes()
}
