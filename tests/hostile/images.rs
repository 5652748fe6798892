//! Images that lie about themselves, on every way in.

use super::support::web::Web;
use super::target::Target;
use super::ways::WAYS;
use super::world::{World, layer};
use imgmv::internals::image::media_type;
use imgmv::{Digest, Kind, Options, Platform};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a case is called, the image, and words of which the sentence that it ends in has one (empty: ways differ).
type Case = (&'static str, World, &'static str);

fn two() -> [Vec<u8>; 2] {
    [layer(1), layer(2)]
}

/// An image whose manifest `change` has been at.
fn altered(change: impl FnOnce(&mut World, &mut Value)) -> World {
    let mut world = World::default();
    let mut manifest = world.manifest(&two());
    change(&mut world, &mut manifest);
    let root = world.document(media_type::OCI_MANIFEST, &manifest);
    world.name(root)
}

/// An image one of whose blobs is not what its digest says.
fn spoiled(which: &str, spoil: impl FnOnce(&mut Vec<u8>)) -> World {
    let mut world = World::default();
    let manifest = world.manifest(&two());
    let root = world.document(media_type::OCI_MANIFEST, &manifest);
    let descriptor = match which {
        "manifest" => root.clone(),
        "config" => manifest["config"].clone(),
        _ => manifest["layers"][1].clone(),
    };
    spoil(world.blob(&descriptor));
    world.name(root)
}

fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

/// The right image under an entry that `change` has been at.
fn listed(change: impl FnOnce(&mut Value)) -> World {
    let mut world = World::default();
    let root = world.image(&two());
    let mut world = world.name(root);
    change(&mut world.entries[0]);
    world
}

/// An index over an image, under `depth` more indexes.
fn nested(depth: usize) -> World {
    let mut world = World::default();
    let mut root = world.image(&two());
    for _ in 0..=depth {
        root = world.index(&[root]);
    }
    world.name(root)
}

fn two_sizes() -> World {
    let mut world = World::default();
    let honest = world.image(&two());
    let mut manifest = world.manifest(&two());
    manifest["layers"][1]["size"] = json!(7);
    let lying = world.document(media_type::OCI_MANIFEST, &manifest);
    let root = world.index(&[honest, lying]);
    world.name(root)
}

fn both_at_once() -> World {
    altered(|world, manifest| {
        let other = world.image(&[layer(3)]);
        manifest["manifests"] = json!([other]);
    })
}

fn index_called_manifest() -> World {
    let mut world = World::default();
    let child = world.image(&two());
    let index = json!({ "schemaVersion": 2, "manifests": [child] });
    let root = world.document(media_type::OCI_MANIFEST, &index);
    world.name(root)
}

fn layer_called_manifest() -> World {
    let mut world = World::default();
    let layer = world.keep(media_type::OCI_MANIFEST, layer(1));
    let root = world.index(&[layer]);
    world.name(root)
}

fn schema1() -> World {
    let mut world = World::default();
    let manifest = json!({ "schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": [], "history": [] });
    let root = world.document(media_type::DOCKER_SCHEMA1[1], &manifest);
    world.name(root)
}

fn deep_json() -> World {
    let mut world = World::default();
    let text = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let root = world.keep(media_type::OCI_MANIFEST, text);
    world.name(root)
}

fn cases() -> Vec<Case> {
    let digest = |text: &'static str| altered(move |_, manifest| manifest["layers"][0]["digest"] = json!(text));
    let size = |size: Value| altered(move |_, manifest| manifest["layers"][0]["size"] = size);
    let embedded = |text: &'static str| {
        altered(|_, manifest| {
            manifest["config"]["data"] = json!(text);
            manifest["config"]["size"] = json!(3);
        })
    };
    vec![
        ("a layer with a flipped bit", spoiled("layer", flip), "does not match"),
        ("a config with a flipped bit", spoiled("config", flip), "does not match"),
        ("a manifest with a flipped bit", spoiled("manifest", flip), ""),
        ("a layer cut short", spoiled("layer", |bytes| bytes.truncate(600)), "bytes|does not match"),
        ("a layer with more behind it", spoiled("layer", |bytes| bytes.push(0)), "bytes|does not match"),
        ("an empty layer", spoiled("layer", Vec::clear), "bytes|does not match"),
        ("a manifest cut short", spoiled("manifest", |bytes| bytes.truncate(100)), ""),
        ("a layer that announces more", size(json!(1 << 20)), "bytes|does not match"),
        ("a layer that announces less", size(json!(1)), "bytes|does not match"),
        ("a layer of all the bytes there are", size(json!(u64::MAX)), ""),
        ("a layer of less than nothing", size(json!(-1)), "invalid value"),
        ("a layer of a half", size(json!(0.5)), "invalid type"),
        (
            "two layers whose sizes do not add up",
            altered(|_, manifest| {
                manifest["layers"][0]["size"] = json!(u64::MAX / 2 + 1);
                manifest["layers"][1]["size"] = json!(u64::MAX / 2 + 1);
            }),
            "",
        ),
        ("one layer with two sizes", two_sizes(), "bytes"),
        ("an entry with another size", listed(|entry| entry["size"] = json!(7)), ""),
        ("a digest that is a path", digest("sha256:../../../../../../etc/passwd"), "not a digest"),
        (
            "a digest that is a path of the right length",
            digest("sha256:../../../../../../../../../../../../../../../../../../etc/passwd-"),
            "not a digest",
        ),
        (
            "a digest in capitals",
            digest("SHA256:0000000000000000000000000000000000000000000000000000000000000000"),
            "only sha256",
        ),
        ("a weak digest", digest("md5:d41d8cd98f00b204e9800998ecf8427e"), "only sha256"),
        ("a digest of nothing", digest(""), "not a digest"),
        ("a digest with an escape", digest("sha256:\u{1b}]0;owned\u{7}"), "not a digest"),
        ("a document that is both", both_at_once(), "both a manifest and an index"),
        ("an index that is called a manifest", index_called_manifest(), "its content does not match"),
        (
            "a manifest that is called an index",
            listed(|entry| entry["mediaType"] = json!(media_type::OCI_INDEX)),
            "claimed type is",
        ),
        (
            "an entry with a type that nobody knows",
            listed(|entry| entry["mediaType"] = json!("application/vnd.oCi.image.manifest.v1+json")),
            "claimed type is",
        ),
        (
            "a layer that is called a manifest",
            layer_called_manifest(),
            "not the expected JSON|not JSON|is missing in the archive",
        ),
        ("docker's schema 1", schema1(), "schema 1"),
        ("JSON that is too deep", deep_json(), ""),
        ("indexes that are too deep", nested(12), "deep"),
        ("a manifest without anything", altered(|_, manifest| *manifest = json!({})), "neither|without a manifest's"),
        ("layers that are no list", altered(|_, manifest| manifest["layers"] = json!("all")), "expected JSON"),
        ("embedded data that is something else", embedded("QUJD"), "does not match|bytes"),
        ("an absent config", altered(|_, manifest| manifest["config"]["digest"] = json!(Digest::of(b"absent"))), ""),
        ("an absent layer", altered(|_, manifest| manifest["layers"][0]["digest"] = json!(Digest::of(b"absent"))), ""),
    ]
}

#[test]
fn an_image_that_lies_is_refused_on_every_way() {
    for (what, world, word) in cases() {
        // A registry has no index.json that could say another size.
        let ways = if what.starts_with("an entry") { &WAYS[..3] } else { &WAYS };
        for way in ways {
            let target = Target::new();
            let error = target.refuse(way.open(&world).source);
            let text = error.to_string();
            println!("{what}, {way:?}: {text}");
            let absent = what.starts_with("an absent");
            assert!(
                error.kind() == Kind::Invalid || absent && error.kind() == Kind::NotFound,
                "{what}, {way:?}: {error}"
            );
            assert!(word.split('|').any(|word| text.contains(word)), "{what}, {way:?}: {text}");
            assert!(plain(&text), "{what}, {way:?}: {text:?}");
        }
    }
}

/// Fit for a terminal: one line, no controls.
pub fn plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c))
}

#[test]
fn an_honest_image_arrives_on_every_way() {
    for world in [nested(2), altered(|_, _| {})] {
        for way in WAYS {
            let target = Target::new();
            let opened = way.open(&world);
            target.take(opened.source.unwrap()).unwrap();
            assert_eq!(target.sound(), 1, "{way:?}");
        }
    }
}

#[test]
fn names_that_are_not_fit_to_be_shown_are_refused() {
    for name in
        ["a\u{1b}]0;owned\u{7}:1", "a\nb:1", "a b:1", "a\u{202e}b:1", "a\u{2066}b:1", "a\u{200b}b:1", &"a".repeat(600)]
    {
        let mut world = World::default();
        let root = world.image(&two());
        let world = world.name_as(name, root);
        for way in WAYS.into_iter().take(3) {
            let error = Target::new().refuse(way.open(&world).source);
            assert_eq!(error.kind(), Kind::Invalid, "{name:?}, {way:?}: {error}");
            assert!(plain(&error.to_string()), "{name:?}, {way:?}: {:?}", error.to_string());
        }
    }
}

#[test]
fn a_name_that_is_a_path_is_a_name_and_no_path() {
    for name in ["../../../outside", "/etc/passwd", "../beside:1", "a/../../b:1", "-rf", "--help"] {
        let mut world = World::default();
        let root = world.image(&two());
        let world = world.name_as(name, root);
        for way in WAYS.into_iter().take(3) {
            let target = Target::new();
            if let Ok(source) = way.open(&world).source {
                let _ = target.take(source);
            }
            assert!(target.sound() <= 1);
        }
    }
}

#[test]
fn what_a_strangers_platform_says_stays_on_its_line() {
    let mut world = World::default();
    let mut child = world.image(&two());
    child["platform"] = json!({ "os": "li\nimgmv: done", "architecture": "\u{1b}[2J\u{202e}amd64" });
    let root = world.index(&[child]);
    let world = world.name(root);
    let wanted = vec![Platform::new("linux", "s390x", None)];
    let options = Options { platforms: imgmv::Platforms::Only(wanted), ..Options::default() };
    for way in WAYS {
        let target = Target::new();
        let error = target.take_with(way.open(&world).source.unwrap(), &options).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(plain(&error.to_string()), "{way:?}: {:?}", error.to_string());
        assert_eq!(target.sound(), 0);
    }
}

#[test]
fn foreign_layers_are_never_fetched() {
    const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let elsewhere = Web::start(
        None,
        Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            None
        }),
    );
    let world = altered(|_, manifest| {
        let absent = Digest::of(b"elsewhere");
        let urls = [format!("http://{}/layer", elsewhere.address), "file:///etc/passwd".to_owned()];
        manifest["layers"][1] = json!({ "mediaType": FOREIGN, "digest": absent, "size": 9, "urls": urls });
    });
    for way in WAYS {
        let target = Target::new();
        target.take(way.open(&world).source.unwrap()).unwrap();
        assert!(!target.blob(&Digest::of(b"elsewhere")).exists());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn embedded_data_that_lies_is_passed_over() {
    let world = altered(|_, manifest| {
        let size = manifest["config"]["size"].as_u64().unwrap() as usize;
        let other = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![b' '; size]);
        manifest["config"]["data"] = json!(other);
    });
    for way in WAYS {
        let target = Target::new();
        target.take(way.open(&world).source.unwrap()).unwrap();
        assert_eq!(target.sound(), 1, "{way:?}");
    }
}
