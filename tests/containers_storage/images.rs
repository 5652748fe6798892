//! Images are selected as users of podman select them, and keep what can be kept.

use super::support::docker_dir::tar_of;
use super::support::storage_dir::{StorageDir, compressed_manifest, config, raw_manifest};
use super::{BOTH, app, app_layers, by_name, imgmv, open, take, try_imgmv};
use imgmv::internals::image::media_type;
use imgmv::{Digest, Kind, Manifest, Root, Selector, Store};
use serde_json::{Value, json};
use std::fs;

fn layer(text: &str) -> Vec<u8> {
    tar_of(&[("file", text.as_bytes())])
}

/// The name and the config of each selected root.
fn ids(storage: &StorageDir, selector: Selector) -> imgmv::Result<Vec<(Option<String>, Digest)>> {
    let store = open(storage.dir.path(), BOTH[0])?;
    let id = |root: Root| {
        let manifest = Manifest::parse(store.manifest(&root.descriptor).unwrap(), &root.descriptor).unwrap();
        (root.name.map(|name| name.to_string()), manifest.config().unwrap().digest)
    };
    Ok(store.roots(&[selector])?.into_iter().map(id).collect())
}

#[test]
fn every_driver_and_resolution_keeps_the_manifest_of_uncompressed_layers() {
    for driver in ["overlay", "vfs"] {
        for resolution in BOTH {
            let storage = app(driver);
            let (sink, report) = take(open(storage.dir.path(), resolution).unwrap(), &[]).unwrap();
            assert_eq!(report.transferred.blobs, 3, "config and two layers");
            let state = sink.state();
            for layer in app_layers() {
                assert!(state.blobs[&Digest::of(&layer)] == layer, "{driver}");
            }
            let kept = raw_manifest(&config(&app_layers(), ""), &app_layers()).digest();
            assert_eq!(state.names["docker.io/t/app:1"], kept);
            assert_eq!(report.images[0].source_digest, kept);
        }
    }
}

#[test]
fn a_manifest_of_compressed_layers_is_replaced_and_both_digests_are_printed() {
    let mut storage = StorageDir::new("overlay");
    let (id, pulled) = storage.add_pulled(&["docker.io/t/app:1"], &app_layers());
    let out = storage.dir.path().join("out.tar").display().to_string();
    let done = imgmv(storage.dir.path(), &["copy", "containers-storage:t/app:1", &out, "--json"]);
    let made = imgmv(storage.dir.path(), &["digest", "containers-storage:t/app:1"]).stdout.trim().to_owned();
    let told = format!(
        "docker.io/t/app:1: the source does not have the compressed layers of its manifest {pulled}; it gets a new one, \
         {made}; its config (the image ID), {id}, does not change"
    );
    assert!(done.stderr.contains(&told), "{told}\n{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(report.to_string().contains(&format!("\"source_digest\":\"{pulled}\"")), "{report}");
    assert_ne!(made, pulled.to_string());
}

/// `podman image inspect` shows the manifest that was pulled first.
#[test]
fn a_kept_manifest_with_another_digest_than_podmans_is_told_with_both() {
    let layers = app_layers();
    let config = config(&layers, "");
    let (shown, kept) = (compressed_manifest(&config, &layers), raw_manifest(&config, &layers));
    let mut storage = StorageDir::new("overlay");
    storage.add_image(&["docker.io/t/app:1"], &config, &layers, &[shown.bytes.clone(), kept.bytes.clone()]);
    let done = imgmv(storage.dir.path(), &["digest", "containers-storage:t/app:1"]);
    assert_eq!(done.stdout.trim(), kept.digest().to_string());
    let told = |text: &str| done.stderr.matches(text).count();
    assert_eq!((told(&shown.digest().to_string()), told(&kept.digest().to_string())), (1, 1), "{}", done.stderr);
    // Asked for by its digest, it is the answer.
    let done = imgmv(storage.dir.path(), &["digest", &format!("containers-storage:t/app@{}", kept.digest())]);
    assert!(done.stderr.is_empty(), "{}", done.stderr);
}

#[test]
fn layers_that_the_manifest_labels_as_compressed_are_recompressed_all_the_same() {
    let layers = app_layers();
    let config = config(&layers, "");
    // podman labels the layers of archives that it loads so.
    let manifest = String::from_utf8(raw_manifest(&config, &layers).bytes).unwrap();
    let manifest = manifest.replace(media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP);
    let mut storage = StorageDir::new("overlay");
    let id = storage.add_image(&["docker.io/t/app:1"], &config, &layers, &[manifest.clone().into_bytes()]);
    let digest = imgmv(storage.dir.path(), &["digest", "containers-storage:t/app:1"]).stdout;
    assert_eq!(digest.trim(), Digest::of(manifest.as_bytes()).to_string());
    let layout = storage.dir.path().join("layout").display().to_string();
    imgmv(
        storage.dir.path(),
        &["copy", "containers-storage:t/app:1", &format!("oci:{layout}:app"), "--compress", "zstd"],
    );
    let inspected = imgmv(storage.dir.path(), &["inspect", &format!("oci:{layout}:app"), "--json"]).stdout;
    assert!(inspected.contains("tar+zstd") && inspected.contains(&id.to_string()), "{inspected}");
    imgmv(storage.dir.path(), &["verify", &format!("oci:{layout}:app")]);
}

#[test]
fn of_several_manifests_the_one_of_uncompressed_layers_is_kept() {
    let layers = app_layers();
    let config = config(&layers, "");
    let (raw, compressed) = (raw_manifest(&config, &layers), compressed_manifest(&config, &layers));
    for manifests in [[&raw, &compressed], [&compressed, &raw]] {
        let mut storage = StorageDir::new("overlay");
        let bytes = manifests.map(|manifest| manifest.bytes.clone());
        storage.add_image(&["docker.io/t/app:1"], &config, &layers, &bytes);
        let store = open(storage.dir.path(), BOTH[0]).unwrap();
        let root = store.roots(&[by_name("t/app:1")]).unwrap().remove(0);
        assert_eq!((root.descriptor.digest, root.synthesised, root.lost_manifest), (raw.digest(), false, None));
        let root = store.roots(&[Selector::Digest(raw.digest())]).unwrap().remove(0);
        assert_eq!((root.descriptor.digest, root.synthesised), (raw.digest(), false));
        // By the digest of the other one, no manifest that was not asked for is taken without a word.
        let root = store.roots(&[Selector::Digest(compressed.digest())]).unwrap().remove(0);
        assert_eq!((root.synthesised, root.lost_manifest), (true, Some(compressed.digest())));
    }
}

#[test]
fn an_image_is_found_by_what_users_of_podman_type() {
    let mut storage = StorageDir::new("overlay");
    let (app, pulled) = storage.add_pulled(&["docker.io/t/app:1", "registry.lan:5000/team/app:2"], &[layer("app")]);
    let local = storage.add(&["localhost/nginx:latest"], &[layer("nginx")]);
    let by_digest = storage.add_pulled(&[&format!("docker.io/t/other@sha256:{}", "0".repeat(64))], &[layer("other")]);
    let hex = app.hex();
    for (asked, name) in [
        ("t/app:1", Some("docker.io/t/app:1")),
        ("docker.io/t/app:1", Some("docker.io/t/app:1")),
        ("registry.lan:5000/team/app:2", Some("registry.lan:5000/team/app:2")),
        ("2", Some("registry.lan:5000/team/app:2")),
        (&hex[..12], None),
        (&hex, None),
        (&format!("sha256:{hex}"), None),
        (&format!("t/app@{pulled}"), None),
        (&format!("registry.lan:5000/team/app@{pulled}"), None),
        (&format!("t/app:1@{pulled}"), Some("docker.io/t/app:1")),
    ] {
        assert_eq!(ids(&storage, by_name(asked)).unwrap(), [(name.map(str::to_owned), app)], "{asked}");
    }
    for asked in ["nginx", "nginx:latest", "localhost/nginx", "latest"] {
        let found = ids(&storage, by_name(asked)).unwrap();
        assert_eq!(found, [(Some("localhost/nginx:latest".to_owned()), local)], "{asked}");
    }
    assert_eq!(ids(&storage, Selector::Digest(by_digest.1)).unwrap()[0].1, by_digest.0);
    for asked in ["t/app:2", "app:1", "0123456789ab", &format!("t/none@{pulled}"), &format!("@{}", "0".repeat(64))] {
        let error = ids(&storage, by_name(asked)).unwrap_err();
        assert!(matches!(error.kind(), Kind::NotFound), "{asked}: {error}");
    }
    let listed = imgmv(storage.dir.path(), &["list", "containers-storage:"]).stdout;
    let expected = ["docker.io/t/app:1", "localhost/nginx:latest", "registry.lan:5000/team/app:2"];
    assert_eq!(listed.lines().collect::<Vec<_>>(), [&expected[..], &[&by_digest.0.to_string()]].concat());
}

#[test]
fn untagged_images_are_listed_by_their_ids_without_the_steps_of_builds() {
    let layers = [layer("one"), layer("two")];
    let mut storage = StorageDir::new("overlay");
    let add = |storage: &mut StorageDir, names: &[&str], layers: &[Vec<u8>], step: &str| {
        let config = config(layers, step);
        let manifest = raw_manifest(&config, layers).bytes;
        storage.add_image(names, &config, layers, &[manifest])
    };
    add(&mut storage, &["localhost/t/app:1"], &layers, "ENV a=b");
    let below = add(&mut storage, &[], &layers[..1], "");
    let before = add(&mut storage, &[], &layers, "");
    let beside = add(&mut storage, &[], &layers, "ENV c=d");
    let dangling = add(&mut storage, &[], &[layer("three")], "");
    let listed = imgmv(storage.dir.path(), &["list", "containers-storage:"]).stdout;
    let expected = ["localhost/t/app:1", &beside.to_string(), &dangling.to_string()];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    for id in [below, before, beside] {
        assert_eq!(ids(&storage, by_name(&id.to_string())).unwrap(), [(None, id)]);
    }
}

#[test]
fn an_image_without_layers_is_copied() {
    let mut storage = StorageDir::new("vfs");
    let id = storage.add(&["docker.io/t/empty:1"], &[]);
    assert_eq!(ids(&storage, by_name("t/empty:1")).unwrap(), [(Some("docker.io/t/empty:1".to_owned()), id)]);
    take(open(storage.dir.path(), BOTH[0]).unwrap(), &[]).unwrap();
}

#[test]
fn a_layer_that_was_pulled_in_part_is_read() {
    let mut storage = StorageDir::new("overlay");
    storage.add_pulled(&["docker.io/t/app:1"], &app_layers());
    storage.layers[0]["toc-digest"] = json!(Digest::of(b"toc"));
    // Of such a layer the storage may not know what the config says.
    storage.layers[1].as_object_mut().unwrap().retain(|key, _| !key.starts_with("diff-"));
    // Its image has another ID than its config.
    let config_id: Digest = format!("sha256:{}", storage.images[0]["id"].as_str().unwrap()).parse().unwrap();
    let other = Digest::of(b"@With TOC");
    fs::rename(
        storage.document(&config_id, "manifest").parent().unwrap(),
        storage.document(&other, "manifest").parent().unwrap(),
    )
    .unwrap();
    storage.images[0]["id"] = other.hex().into();
    storage.write();
    let found = ids(&storage, by_name(&other.hex()[..12])).unwrap();
    assert_eq!(found, [(None, config_id)]);
    let (sink, _) = take(open(storage.dir.path(), BOTH[0]).unwrap(), &[]).unwrap();
    assert!(app_layers().iter().all(|layer| sink.state().blobs.contains_key(&Digest::of(layer))));
}

#[test]
fn volatile_layers_are_read() {
    let storage = app("overlay");
    storage.write_as("layers.json", &storage.layers[..1]);
    storage.write_as("volatile-layers.json", &storage.layers[1..]);
    take(open(storage.dir.path(), BOTH[0]).unwrap(), &[]).unwrap();
}

#[test]
fn several_images_go_into_one_archive_without_manifest_lists() {
    let mut storage = app("overlay");
    storage.add(&["localhost/t/other:1"], &[layer("other")]);
    let list = json!({
        "id": "f".repeat(64), "digest": Digest::of(b"list"), "names": ["localhost/t/list:1"],
        "big-data-names": ["manifest", "instances.json"],
    });
    storage.images.push(list);
    storage.write();
    let out = storage.dir.path().join("all.tar").display().to_string();
    let done = imgmv(storage.dir.path(), &["copy", "containers-storage:", &out]);
    assert!(done.stderr.contains("localhost/t/list:1 is a manifest list"), "{}", done.stderr);
    let listed = imgmv(storage.dir.path(), &["list", &out]).stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["docker.io/t/app:1", "localhost/t/other:1"]);
    let refused = try_imgmv(storage.dir.path(), &["copy", "containers-storage:t/list:1", "-"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("copy these images by their own names"), "{}", refused.stderr);
}

/// One image of another form does not hide the others.
#[test]
fn an_image_of_composefs_is_skipped_by_name_and_refused_by_name() {
    let mut storage = app("overlay");
    let other = [layer("other")];
    storage.add(&["localhost/t/composefs:1"], &other);
    let files = storage.files(&Digest::of(&other[0]));
    fs::create_dir(files.parent().unwrap().join("composefs-data")).unwrap();
    let told = "localhost/t/composefs:1 cannot be read: its layer";
    let out = storage.dir.path().join("all.tar").display().to_string();
    let done = imgmv(storage.dir.path(), &["copy", "containers-storage:", &out]);
    assert!(done.stderr.contains(told) && done.stderr.contains("it is skipped"), "{}", done.stderr);
    assert_eq!(imgmv(storage.dir.path(), &["list", &out]).stdout, "docker.io/t/app:1\n");
    let listed = imgmv(storage.dir.path(), &["list", "containers-storage:"]);
    assert_eq!(listed.stdout, "docker.io/t/app:1\n");
    assert!(listed.stderr.contains(told), "{}", listed.stderr);
    let refused = try_imgmv(storage.dir.path(), &["copy", "containers-storage:t/composefs:1", "-"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains(told) && refused.stderr.contains("composefs"), "{}", refused.stderr);
}

/// Each image is one instruction longer than the one before. Comparing all with all would read each config hundreds of
/// times.
#[test]
fn of_many_builds_on_the_same_layers_only_the_last_is_listed() {
    let (mut storage, layers) = (StorageDir::new("overlay"), [layer("one")]);
    let template: Value = serde_json::from_slice(&config(&layers, "")).unwrap();
    let mut history = Vec::new();
    let mut ids = Vec::new();
    for nth in 0..300 {
        history.push(json!({ "created_by": format!("ENV n={nth}"), "empty_layer": true }));
        let mut config = template.clone();
        config["history"] = json!(history);
        let config = config.to_string().into_bytes();
        let manifest = raw_manifest(&config, &layers).bytes;
        ids.push(storage.add_image(&[], &config, &layers, &[manifest]));
    }
    let listed = imgmv(storage.dir.path(), &["list", "containers-storage:"]).stdout;
    assert_eq!(listed.trim(), ids[299].to_string());
}

#[test]
fn the_storage_is_never_written_and_is_not_part_of_the_address() {
    let storage = app("overlay");
    let done = try_imgmv(storage.dir.path(), &["copy", "containers-storage:t/app:1", "containers-storage:t/app:2"]);
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("is read only"), "{}", done.stderr);
    let done = try_imgmv(storage.dir.path(), &["copy", "containers-storage:[vfs@/x+/run]app", "-"]);
    assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("--src-root"), "{}", done.stderr);
}

#[test]
fn each_blob_is_written_by_its_digest() {
    let mut storage = StorageDir::new("vfs");
    storage.add_pulled(&["docker.io/t/app:1"], &app_layers());
    let store = open(storage.dir.path(), BOTH[0]).unwrap();
    let manifest = store.roots(&[by_name("t/app:1")]).unwrap().remove(0).read(&store).unwrap();
    let blobs = manifest.blobs().into_iter().map(|blob| blob.digest);
    for digest in blobs.chain([manifest.digest()]) {
        for src in ["containers-storage:t/app:1", "containers-storage:"] {
            let blob = imgmv(storage.dir.path(), &["blob", src, &digest.to_string()]).bytes;
            assert_eq!(Digest::of(&blob), digest, "{src}");
        }
    }
}

#[test]
fn a_damaged_record_hides_no_other_image() {
    let mut storage = app("overlay");
    let id = storage.add(&["docker.io/t/other:1"], &[layer("other")]);
    let root = storage.dir.path().to_owned();
    let damage = |field: &str, value: Value| {
        let mut wrong = json!({ "id": "a".repeat(64), "names": ["localhost/t/wrong:1"] });
        wrong[field] = value;
        [&[wrong], &storage.images[..]].concat()
    };
    let entries = [damage("id", "../../x".into()), damage("layer", "../../x".into()), damage("id", 5.into())];
    for (images, why) in entries.into_iter().zip([
        "of an image (localhost/t/wrong:1) is not 64",
        "of an image's layer (localhost/t/wrong:1) is not 64",
        "an entry is not the record of an image",
    ]) {
        storage.write_as("images.json", &images);
        let listed = imgmv(&root, &["list", "containers-storage:"]);
        assert_eq!(listed.stdout, "docker.io/t/app:1\ndocker.io/t/other:1\n");
        assert!(listed.stderr.contains(why) && listed.stderr.contains("images.json"), "{why}: {}", listed.stderr);
        for src in ["containers-storage:t/other:1", &format!("containers-storage:{id}"), "containers-storage:"] {
            imgmv(&root, &["verify", src]);
        }
        let missing = try_imgmv(&root, &["verify", "containers-storage:t/wrong:1"]);
        assert_eq!(missing.status.code(), Some(5), "{}", missing.stderr);
    }
    storage.write();
    let wrong = json!({ "id": "b".repeat(64), "parent": "x" });
    storage.write_as("layers.json", &[&[wrong, json!({ "id": 5 })], &storage.layers[..]].concat());
    imgmv(&root, &["verify", "containers-storage:"]);
}
