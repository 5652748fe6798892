//! `imgmv serve --proxy`: a mirror of registries, its cache, its peers, and the clients that are told of it.

#[path = "proxy/cache.rs"]
mod cache;
#[allow(dead_code)]
#[path = "serve/client.rs"]
mod client;
#[path = "proxy/clients.rs"]
mod clients;
#[path = "proxy/credentials.rs"]
mod credentials;
#[path = "proxy/lines.rs"]
mod lines;
#[path = "proxy/peers.rs"]
mod peers;
#[path = "proxy/settings.rs"]
mod settings;
#[path = "support/mod.rs"]
mod support;
#[path = "proxy/tags.rs"]
mod tags;

use client::{Reply, Server};
use imgmv::image::{Descriptor, Digest, Manifest, media_type};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::noise::noise;
use support::registry::Double;
use tempfile::TempDir;

/// For `client.rs`, which pushes images too.
fn manifest(config: &[u8], layers: &[&[u8]], _more: Value) -> Vec<u8> {
    let layers: Vec<Descriptor> = layers.iter().map(|layer| Descriptor::of(media_type::OCI_LAYER, layer)).collect();
    Manifest::synthesise(&Descriptor::of(media_type::OCI_CONFIG, config), &layers).bytes
}

/// A directory for a mirror's cache.
fn folder() -> Arc<TempDir> {
    Arc::new(TempDir::new().unwrap())
}

/// A mirror of docker.io, which is really at `upstream`, with its cache in `dir`.
fn mirror_in(dir: &Arc<TempDir>, upstream: &str, options: &[&str]) -> Server {
    let proxy = format!("docker.io={upstream}");
    let cache = format!("oci:{}", cached(dir).display());
    let base = ["--proxy", &proxy, "--cache", &cache, "--authfile", "/nonexistent/auth.json"];
    Server::start_in(dir.clone(), &[&base[..], options].concat())
}

fn mirror(upstream: &str, options: &[&str]) -> Server {
    mirror_in(&folder(), upstream, options)
}

fn cached(dir: &Arc<TempDir>) -> PathBuf {
    dir.path().join("cache")
}

fn blob_file(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(digest.blob_path())
}

fn blob_path(digest: &Digest) -> String {
    format!("/v2/library/app/blobs/{digest}")
}

const TAG: &str = "/v2/library/app/manifests/1";

/// An upstream with one image in `library/app:1`, of one layer.
fn upstream(layer: &[u8]) -> (Double, Manifest) {
    let double = Double::start();
    let image = double.image("library/app", "1", &[layer]);
    (double, image)
}

/// Waits until `there` holds.
fn eventually(what: &str, there: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !there() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everything of the image behind `tag`, as a client pulls it.
fn pull(server: &Server, tag: &str) -> Reply {
    let reply = server.get(tag);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let name = tag.split("/manifests/").next().unwrap();
    let media_type = reply.header("content-type").to_owned();
    let manifest = Manifest::from_bytes(reply.body.clone(), &media_type).unwrap();
    assert_eq!(manifest.digest().to_string(), reply.header("docker-content-digest"));
    for blob in manifest.blobs() {
        let got = server.get(&format!("{name}/blobs/{}", blob.digest));
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(Digest::of(&got.body), blob.digest);
    }
    reply
}
