//! Artifacts keep every byte, and conversions of images keep what is still true.

use super::world::{World, packed, tar, told};
use crate::support::registry::Double;
use imgmv::internals::image::media_type;
use imgmv::{Coding, Descriptor, Digest};
use serde_json::json;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Artifacts whose layers have an image's types: what each is, and its root.
fn artifacts(world: &mut World) -> Vec<(&'static str, Descriptor)> {
    let empty = world.blob(EMPTY, b"{}");
    let config = world.config("linux/amd64", &[Digest::of(b"a policy")]);
    let cache = world.blob("application/vnd.buildkit.cacheconfig.v0", b"{\"layers\":[]}");
    let plugin = world.blob("application/vnd.docker.plugin.v1+json", b"{\"plugin\":1}");
    let layers = [
        world.blob(media_type::OCI_LAYER, b"a policy"),
        world.blob(media_type::OCI_LAYER_GZIP, &packed(&tar(b"p"), Coding::Gzip)),
    ];
    let image = world.image("linux/amd64", b"signed");
    let subject = Descriptor { platform: None, ..image.clone() };
    let mut overlaybd = world.blob(media_type::OCI_LAYER, &tar(b"a block device"));
    overlaybd.annotate("containerd.io/snapshot/overlaybd/blob-digest", "sha256:00");
    let lazy = world.config("linux/amd64", &[overlaybd.digest]);
    vec![
        ("an empty config", world.manifest(&empty, &layers, json!({ "artifactType": "application/x-policy" }))),
        ("an image's config", world.manifest(&config, &layers, json!({ "artifactType": "application/x-policy" }))),
        ("a referrer", world.manifest(&config, &layers[..1], json!({ "subject": subject }))),
        ("BuildKit's cache", world.manifest(&cache, &layers, json!({}))),
        ("docker's plugin", world.manifest(&plugin, &layers, json!({}))),
        ("BuildKit's older cache", world.index(&[layers[1].clone(), cache], json!({}))),
        ("an index of artifacts", world.index(&[image], json!({ "artifactType": "application/x-set" }))),
        ("a layer that is no tar", world.manifest(&lazy, &[overlaybd], json!({}))),
    ]
}

#[test]
fn an_artifact_never_changes_on_its_way() {
    let mut world = World::new();
    let artifacts = artifacts(&mut world);
    for (at, (_, root)) in artifacts.iter().enumerate() {
        world.name(&format!("a{at}"), root);
    }
    let registry = Double::start();
    let ways: [&[&str]; 5] =
        [&[], &["--compress", "gzip"], &["--compress", "none"], &["--compress", "zstd"], &["--format", "docker"]];
    for (way, options) in ways.into_iter().enumerate() {
        for (at, (what, root)) in artifacts.iter().enumerate() {
            // In docker's form the image around such a layer is another one; the layer stays.
            if *what == "a layer that is no tar" && options.contains(&"docker") {
                continue;
            }
            let (repository, tag) = (format!("art{way}"), at.to_string());
            let target = format!("{}/{repository}:{tag}", registry.host());
            let out = world.run(&[&["copy", &format!("oci:DIR/l:a{at}"), &target], options].concat());
            assert!(out.status.success(), "{what} {options:?} {}", told(&out));
            assert_eq!(registry.tag(&repository, &tag), Some(root.digest), "{what} {options:?} {}", told(&out));
            let said = out.stderr.contains("stays as it is");
            assert!(said || options.is_empty() || !what.starts_with("an empty"), "{what} {options:?} {}", told(&out));
        }
    }
    // A container image's raw layer is compressed on the same way.
    let image = world.image("linux/amd64", b"an image");
    world.name("image", &image);
    let out = world.run(&["copy", "oci:DIR/l:image", &format!("{}/image:1", registry.host())]);
    assert!(out.status.success(), "{}", told(&out));
    assert_ne!(registry.tag("image", "1"), Some(image.digest));
}

#[test]
fn a_blob_that_an_artifact_shares_with_an_image_stays_in_both() {
    let mut world = World::new();
    let image = world.image("linux/amd64", b"shared");
    let (empty, layer) = (world.blob(EMPTY, b"{}"), world.blob(media_type::OCI_LAYER, &tar(b"shared")));
    let artifact = world.manifest(&empty, &[layer], json!({ "artifactType": "application/x-policy" }));
    world.name("image", &image);
    world.name("artifact", &artifact);
    let out = world.run(&["copy", "oci:DIR/l", "oci:DIR/n", "--compress", "zstd"]);
    assert!(out.status.success(), "{}", told(&out));
    for root in [image, artifact] {
        assert!(world.read("n", &root.digest).is_some(), "{}", told(&out));
    }
}

/// A stream shows a blob before it shows which manifest lists it.
#[test]
fn an_artifact_that_passes_is_not_published_in_other_bytes() {
    let mut world = World::new();
    let (empty, layer) = (world.blob(EMPTY, b"{}"), world.blob(media_type::OCI_LAYER, &tar(b"a policy")));
    let artifact = world.manifest(&empty, &[layer], json!({ "artifactType": "application/x-policy" }));
    world.name("artifact", &artifact);
    let out = world.run(&["copy", "oci:DIR/l:artifact", "DIR/a.tar"]);
    assert!(out.status.success(), "{}", told(&out));
    let (registry, archive) = (Double::start(), world.path("a.tar"));
    let target = format!("{}/art:1", registry.host());
    // Engines write the blobs first.
    let engines = world.path("engine.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&engines).unwrap());
    tar.append_dir_all("blobs", world.path("l/blobs")).unwrap();
    tar.append_path_with_name(world.path("l/index.json"), "index.json").unwrap();
    tar.finish().unwrap();
    for (archive, options) in [(&engines, &[][..]), (&archive, &["--compress", "gzip"])] {
        let out = world.run_with(&[&["copy", "-", &target], options].concat(), Some(archive));
        assert_eq!(out.status.code(), Some(2), "{}", told(&out));
        assert!(out.stderr.contains("--compress keep"), "{}", told(&out));
        assert_eq!(registry.tag("art", "1"), None);
    }
    for (archive, options) in [(&engines, &["--compress", "keep"][..]), (&archive, &[])] {
        let registry = Double::start();
        let target = format!("{}/art:1", registry.host());
        let out = world.run_with(&[&["copy", "-", &target], options].concat(), Some(archive));
        assert!(out.status.success(), "{}", told(&out));
        assert_eq!(registry.tag("art", "1"), Some(artifact.digest));
    }
}

#[test]
fn a_conversion_drops_the_annotations_of_the_old_bytes_only() {
    let untrue = [
        "containerd.io/snapshot/stargz/toc.digest",
        "io.containers.estargz.uncompressed-size",
        "io.github.containers.zstd-chunked.manifest-checksum",
        "io.github.containers.zstd-chunked.manifest-position",
        "io.github.containers.zstd-chunked.tarsplit-position",
        "io.containers.zstd-chunked.manifest-checksum",
    ];
    let kept = [
        "containerd.io/uncompressed",
        "buildkit/createdat",
        "containerd.io/snapshot/nydus-bootstrap",
        "org.example/own",
    ];
    for (was, coding) in [(media_type::OCI_LAYER_GZIP, Coding::Gzip), (media_type::OCI_LAYER_ZSTD, Coding::Zstd)] {
        let mut world = World::new();
        let raw = tar(b"a lazily pulled layer");
        let mut layer = world.blob(was, &packed(&raw, coding));
        untrue.iter().chain(&kept).for_each(|key| layer.annotate(key, "1"));
        layer.urls = Some(vec!["https://mirror.example/layer".to_owned()]);
        let config = world.config("linux/amd64", &[Digest::of(&raw)]);
        let soci = json!({ "annotations": { "com.amazon.soci.index-digest": "sha256:0", "org.example/own": "1" } });
        let image = world.manifest(&config, std::slice::from_ref(&layer), soci);
        let mut entry = Descriptor { platform: Some("linux/amd64".parse().unwrap()), ..image };
        entry.annotate("io.github.containers.compression.zstd", "true");
        let index = world.index(&[entry], json!({}));
        world.name("es", &index);
        let out = world.run(&["copy", "oci:DIR/l:es", "oci:DIR/n", "--compress", "none"]);
        assert!(out.status.success(), "{}", told(&out));
        let top = world.parsed("n", &world.root("n"));
        assert_eq!(top["manifests"][0].get("annotations"), None);
        let manifest = world.parsed("n", &top["manifests"][0]["digest"].as_str().unwrap().parse().unwrap());
        assert_eq!(manifest["annotations"], json!({ "org.example/own": "1" }));
        let layer = &manifest["layers"][0];
        let keys: Vec<&String> = layer["annotations"].as_object().unwrap().keys().collect();
        assert!(keys.len() == kept.len() && kept.iter().all(|key| keys.iter().any(|k| k == key)), "{keys:?}");
        assert!(layer.get("urls").is_none() && layer["digest"] == Digest::of(&raw).to_string());
        // Where nothing is converted, every one stays.
        let out = world.run(&["copy", "oci:DIR/l:es", "oci:DIR/same"]);
        assert_eq!(world.root("same"), index.digest, "{}", told(&out));
    }
}

/// BuildKit's cache as an index: each of its entries is a blob.
#[test]
fn what_an_index_lists_beside_manifests_are_blobs() {
    let mut world = World::new();
    let layer = world.blob(media_type::OCI_LAYER_GZIP, &packed(&tar(b"cached"), Coding::Gzip));
    let config = world.blob("application/vnd.buildkit.cacheconfig.v0", b"{\"layers\":[{\"blob\":\"sha256:0\"}]}");
    let image = world.image("linux/amd64", b"beside it");
    let cache = world.index(&[layer.clone(), config.clone()], json!({}));
    let mixed = world.index(&[image, config.clone()], json!({}));
    world.name("idx", &cache);
    world.name("mixed", &mixed);
    let (one, other) = (Double::start(), Double::start());
    for (name, root, blobs) in [("idx", &cache, &[&layer, &config][..]), ("mixed", &mixed, &[&config])] {
        let (first, second) = (format!("{}/cache:{name}", one.host()), format!("{}/x:{name}", other.host()));
        for way in [
            [&*format!("oci:DIR/l:{name}"), &first],
            [&first, &second],
            [&second, &format!("DIR/{name}.tar")],
            [&format!("DIR/{name}.tar"), &format!("oci:DIR/{name}")],
        ] {
            let out = world.run(&["copy", way[0], way[1], "--compress", "keep"]);
            assert!(out.status.success(), "{way:?} {}", told(&out));
        }
        assert_eq!((other.tag("x", name), world.root(name)), (Some(root.digest), root.digest));
        for blob in blobs {
            assert!(other.blob("x", &blob.digest).is_some() && world.read(name, &blob.digest).is_some(), "{name}");
        }
        for verb in ["verify", "inspect"] {
            let out = world.run(&[verb, &format!("oci:DIR/{name}")]);
            assert!(out.status.success(), "{}", told(&out));
            assert!(verb == "verify" || out.stdout.contains(&config.digest.to_string()), "{}", told(&out));
        }
        // A blob that is listed and is not there is missed.
        std::fs::remove_file(world.path(name).join(config.digest.blob_path())).unwrap();
        let out = world.run(&["copy", &format!("oci:DIR/{name}"), &format!("{}/y:1", other.host())]);
        assert_eq!(out.status.code(), Some(3), "{}", told(&out));
    }
}
