//! Layers that their publisher wanted nobody else to have, and layers that merely say where else they are.

use super::world::{World, names, packed, tar, told};
use crate::support::registry::Double;
use imgmv::image::{Coding, Descriptor, Digest, media_type};
use serde_json::json;

const NONDISTRIBUTABLE: [&str; 3] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
];

/// A Windows image whose first layer is of `media_type` and names a place elsewhere; that layer.
fn image(media_type: &str) -> (World, Descriptor) {
    let mut world = World::new();
    let raw = [tar(b"base"), tar(b"app")];
    let mut base = world.blob(media_type, &packed(&raw[0], Coding::Gzip));
    base.urls = Some(vec!["https://mirror.invalid/base".to_owned()]);
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
