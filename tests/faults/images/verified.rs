//! Comparisons that `verify` makes.

use super::world::{World, packed, tar, told};
use imgmv::internals::image::{Algorithm, media_type};
use imgmv::{Coding, Digest, Hasher};
use serde_json::json;

fn by(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    Hasher::new(algorithm).with(bytes).finish()
}

#[test]
fn each_diff_id_is_compared_by_its_own_algorithm() {
    let raw = tar(b"a layer");
    let (small, large) = (Algorithm::Sha256, Algorithm::Sha512);
    for coding in [Coding::Raw, Coding::Gzip, Coding::Zstd] {
        let kind = imgmv::internals::image::with_coding(media_type::OCI_LAYER, coding);
        for (layer, diff_id) in [(small, small), (small, large), (large, small), (large, large)] {
            for right in [true, false] {
                let mut world = World::new();
                let at = world.blob_by(layer, kind, &packed(&raw, coding));
                let listed = by(diff_id, if right { &raw } else { b"another" });
                let config = world.config("linux/amd64", &[listed]);
                let manifest = world.manifest(&config, &[at], json!({}));
                world.name("app", &manifest);
                let out = world.run(&["verify", "oci:DIR/l:app"]);
                let expected = if right { 0 } else { 5 };
                assert_eq!(out.status.code(), Some(expected), "{coding:?} {layer:?} {diff_id:?} {}", told(&out));
                assert!(right || out.stderr.contains(&listed.to_string()), "{}", told(&out));
                let out = world.run(&["copy", "oci:DIR/l:app", "oci:DIR/n", "--compress", "zstd"]);
                assert!(out.status.success(), "{coding:?} {layer:?} {}", told(&out));
            }
        }
    }
}

/// Only a container image's config has `diff_ids` that are its layers'.
#[test]
fn an_artifact_is_not_held_to_a_configs_diff_ids() {
    let mut world = World::new();
    let config = world.config("linux/amd64", &[]);
    let layer = world.blob(media_type::OCI_LAYER_GZIP, b"\x1f\x8bnot gzip at all");
    let artifact = world.manifest(&config, &[layer], json!({ "artifactType": "application/x-policy" }));
    world.name("art", &artifact);
    let out = world.run(&["verify", "oci:DIR/l:art"]);
    assert!(out.status.success(), "{}", told(&out));
}
