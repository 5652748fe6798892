//! Layers of nondistributable types, and other layers that name `urls`.

use super::world::{World, names, packed, tar, told};
use crate::support::registry::Double;
use crate::support::web::{Answer, Body, Response, Tls, Web};
use imgmv::internals::image::media_type;
use imgmv::{Coding, Descriptor, Digest};
use serde_json::json;
use std::sync::{Arc, Mutex};

const NONDISTRIBUTABLE: [&str; 3] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
];

/// A Windows image whose first layer is of `media_type` and names a place elsewhere; that layer.
fn image(media_type: &str) -> (World, Descriptor) {
    image_with(media_type, ["https://mirror.invalid/base".to_owned()].into_iter())
}

fn image_with(media_type: &str, urls: impl Iterator<Item = String>) -> (World, Descriptor) {
    let mut world = World::new();
    let raw = [tar(b"base"), tar(b"app")];
    let mut base = world.blob(media_type, &packed(&raw[0], Coding::Gzip));
    base.urls = Some(urls.collect());
    let app = world.blob(media_type::OCI_LAYER_GZIP, &packed(&raw[1], Coding::Gzip));
    let config = world.config("windows/amd64", &raw.map(|raw| Digest::of(&raw)));
    let manifest = world.manifest(&config, &[base.clone(), app], json!({}));
    world.name("app", &manifest);
    (world, base)
}

/// Copies the image along layout, archive, registry, layout; each way's exit status, and whether `layer` came along.
fn ways(world: &World, layer: &Descriptor, options: &[&str]) -> Vec<(String, Option<i32>, bool)> {
    let registry = Double::start();
    let reference = format!("{}/app:1", registry.host());
    let ways = [
        ["oci:DIR/l:app", "DIR/app.tar"],
        ["oci:DIR/l:app", &reference],
        ["DIR/app.tar", "oci:DIR/fromtar"],
        [&reference, "oci:DIR/fromregistry"],
    ];
    let mut ended = Vec::new();
    for [from, to] in ways {
        let out = world.run(&[&["copy", from, to], options].concat());
        let there = match to.rsplit_once('/') {
            Some((_, "app.tar")) => std::fs::read(world.path("app.tar"))
                .is_ok_and(|bytes| names(&bytes).iter().any(|name| name.ends_with(&layer.digest.hex()))),
            Some((_, "app:1")) => registry.blob("app", &layer.digest).is_some(),
            Some((_, layout)) => world.read(layout, &layer.digest).is_some(),
            None => false,
        };
        ended.push((told(&out), out.status.code(), there));
    }
    ended
}

#[test]
fn a_foreign_layer_that_the_source_has_comes_along() {
    for kind in NONDISTRIBUTABLE {
        let (world, layer) = image(kind);
        for (told, code, there) in ways(&world, &layer, &[]) {
            assert!(code == Some(0) && there, "{kind} {told}");
        }
        let out = world.run(&["verify", "oci:DIR/fromregistry"]);
        assert!(out.status.success(), "{}", told(&out));
        let (world, layer) = image(kind);
        for (told, code, _) in ways(&world, &layer, &["--foreign", "leave"]) {
            assert!(code == Some(0) && told.contains("nondistributable"), "{kind} {told}");
        }
        assert!(world.read("fromtar", &layer.digest).is_none() && world.read("fromregistry", &layer.digest).is_none());
    }
}

#[test]
fn only_a_foreign_layer_may_be_missing() {
    for kind in NONDISTRIBUTABLE {
        let (world, layer) = image(kind);
        world.lose(&layer);
        for (told, code, there) in ways(&world, &layer, &[]) {
            assert!(code == Some(0) && told.contains(&layer.digest.to_string()), "{kind} {told}");
            assert!(!there, "{kind} {told}");
        }
    }
    for kind in [media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP] {
        let (world, layer) = image(kind);
        world.lose(&layer);
        for (told, code, there) in &ways(&world, &layer, &[])[..2] {
            assert!(*code == Some(3) && !there && told.contains(&layer.digest.hex()[..12]), "{kind} {told}");
        }
        // From an archive, from a stream and from a registry too.
        let (world, layer) = image(kind);
        let registry = Double::start();
        let reference = format!("{}/app:1", registry.host());
        for way in [["oci:DIR/l:app", "DIR/app.tar"], ["oci:DIR/l:app", &reference]] {
            assert!(world.run(&["copy", way[0], way[1]]).status.success());
        }
        without(&world, &layer);
        registry.lose_blob("app", &layer.digest);
        for from in ["DIR/less.tar", &reference, "-"] {
            let less = world.path("less.tar");
            let out = world
                .run_with(&["copy", from, "oci:DIR/n:new"], Some(&less).filter(|_| from == "-").map(|p| p.as_path()));
            assert_eq!(out.status.code(), Some(3), "{from} {}", told(&out));
            assert!(out.stderr.contains(&layer.digest.hex()[..12]), "{from} {}", told(&out));
        }
    }
}

#[test]
fn a_foreign_layer_is_fetched_over_https_only_and_believed_by_its_digest() {
    let bytes = packed(&tar(b"base"), Coding::Gzip);
    let (right, asked) = (bytes.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = asked.clone();
    let answer: Answer = Arc::new(move |request, _| {
        seen.lock().unwrap().push(request.clone());
        let whole = |bytes: &[u8]| Some(Response::new(200).body(Body::Bytes(bytes.to_vec())));
        match &*request.path {
            "/right" => whole(&right),
            "/wrong" => whole(&vec![b'x'; right.len()]),
            "/longer" => whole(&vec![b'x'; right.len() + 1]),
            "/moved" => Some(Response::new(302).with("Location", "/right")),
            "/plain" => Some(Response::new(302).with("Location", "http://127.0.0.1:9/right")),
            "/cut" if request.header("range").is_none() => Some(Response::new(200).body(Body::Part {
                bytes: Arc::new(right.clone()),
                from: 0,
                to: right.len(),
                cut: Some(9),
            })),
            "/cut" => Some(
                Response::new(206)
                    .with("Content-Range", format!("bytes 9-{}/{}", right.len() - 1, right.len()))
                    .body(Body::Bytes(right[9..].to_vec())),
            ),
            _ => Some(Response::new(404)),
        }
    });
    let web = Web::start(Some(Tls::Server), answer.clone());
    let plain = Web::start(None, answer);
    let ca = format!("{}/tests/support/tls/ca.crt", env!("CARGO_MANIFEST_DIR"));
    for (paths, code) in [
        (&["/right"][..], 0),
        (&["/none", "/moved"], 0),
        (&["/cut"], 0),
        (&["/wrong"], 5),
        (&["/longer"], 5),
        (&["/plain"], 6),
        (&["/none"], 6),
    ] {
        let (world, layer) =
            image_with(NONDISTRIBUTABLE[0], paths.iter().map(|path| format!("https://{}{path}", web.address)));
        world.lose(&layer);
        let options = ["--foreign", "fetch", "--src-ca", &ca, "--src-creds", "user:secret", "--retry", "1"];
        let out = world.run(&[&["copy", "oci:DIR/l:app", "oci:DIR/n"], &options[..]].concat());
        assert_eq!(out.status.code(), Some(code), "{paths:?} {}", told(&out));
        assert_eq!(world.read("n", &layer.digest).is_some(), code == 0, "{paths:?} {}", told(&out));
    }
    assert!(asked.lock().unwrap().iter().all(|request| request.header("authorization").is_none()));
    // Without TLS, or with a user in the address, nobody is asked.
    let addresses = [format!("http://{}/right", plain.address), format!("https://u:p@{}/right", web.address)];
    let (world, layer) = image_with(NONDISTRIBUTABLE[0], addresses.into_iter());
    world.lose(&layer);
    let before = asked.lock().unwrap().len();
    let out = world.run(&["copy", "oci:DIR/l:app", "oci:DIR/n", "--foreign", "fetch", "--src-ca", &ca]);
    assert!(out.status.success() && out.stderr.contains("is not copied"), "{}", told(&out));
    assert_eq!(asked.lock().unwrap().len(), before);
}

/// `less.tar` is `app.tar` without `layer`.
fn without(world: &World, layer: &Descriptor) {
    let bytes = std::fs::read(world.path("app.tar")).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut less = tar::Builder::new(std::fs::File::create(world.path("less.tar")).unwrap());
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        // Without docker's list, which has to agree with the layers.
        if !name.contains(&layer.digest.hex()) && name != "manifest.json" {
            let mut header = entry.header().clone();
            less.append_data(&mut header, name, entry).unwrap();
        }
    }
    less.finish().unwrap();
}
