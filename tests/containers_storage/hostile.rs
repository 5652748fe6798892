//! Storages with wrong records and files: each ends in a sentence, and nothing outside of them is read.

use super::support::docker_dir::tar_of;
use super::support::storage_dir::StorageDir;
use super::support::tar_split::split;
use super::{BOTH, app, app_layers, by_name, open, take};
use imgmv::{Digest, Error, Kind, Store};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The ID of the lower layer of `t/app:1`: its diff ID.
fn lower() -> Digest {
    Digest::of(&app_layers()[0])
}

/// Copies `t/app:1` after `change`; both ways of opening files refuse it with `told`.
fn refused_as(kind: Kind, told: &str, change: impl Fn(&mut StorageDir)) {
    for resolution in BOTH {
        let mut storage = app("overlay");
        change(&mut storage);
        let taken = open(storage.dir.path(), resolution).and_then(|store| take(store, &[by_name("t/app:1")]));
        let error = taken.err().unwrap_or_else(|| panic!("{told}: it was accepted"));
        assert_eq!(error.kind(), kind, "{told}: {error}");
        assert!(error.to_string().contains(told), "{told}: {error}");
        assert!(!error.to_string().contains('\n'), "{error:?}");
    }
}

fn refused(told: &str, change: impl Fn(&mut StorageDir)) {
    refused_as(Kind::Invalid, told, change);
}

fn passwd(storage: &StorageDir) -> PathBuf {
    storage.files(&lower()).join("etc/passwd")
}

fn huge(path: &Path) {
    File::create(path).unwrap().set_len(1 << 30).unwrap();
}

/// The ID of the only image.
fn id(storage: &StorageDir) -> Digest {
    format!("sha256:{}", storage.images[0]["id"].as_str().unwrap()).parse().unwrap()
}

#[test]
fn ids_that_are_paths_are_refused() {
    for wrong in ["../../../etc", "", "x", "/etc/passwd", &"A".repeat(64), &"a".repeat(63), &"é".repeat(32)] {
        for field in ["id", "layer"] {
            refused("is not 64 hexadecimal characters", |storage| {
                storage.images[0][field] = wrong.into();
                if wrong.is_empty() {
                    // An image without layers has an empty one.
                    storage.images[0]["id"] = wrong.into();
                }
                storage.write();
            });
        }
        for field in ["id", "parent"].into_iter().filter(|field| *field == "id" || !wrong.is_empty()) {
            let told = if field == "id" { "the record of layer" } else { "is not 64 hexadecimal characters" };
            refused(told, |storage| {
                storage.layers[1][field] = wrong.into();
                storage.write();
            });
        }
    }
    refused("is not a digest", |storage| {
        storage.layers[0]["diff-digest"] = "sha256:../..".into();
        storage.write();
    });
}

#[test]
fn a_chain_of_layers_ends() {
    refused("their parents form a cycle", |storage| {
        storage.layers[0]["parent"] = storage.layers[1]["id"].clone();
        storage.write();
    });
    refused("their parents form a cycle", |storage| {
        storage.layers[1]["parent"] = storage.layers[1]["id"].clone();
        storage.write();
    });
    refused("the record of layer", |storage| {
        storage.layers[1]["parent"] = "0".repeat(64).into();
        storage.write();
    });
    refused("it has 1 layers, its config lists 2", |storage| {
        storage.layers[1].as_object_mut().unwrap().remove("parent");
        storage.write();
    });
    refused("expected the diff digest", |storage| {
        storage.layers[0]["diff-digest"] = storage.layers[1]["diff-digest"].clone();
        storage.write();
    });
    refused("is incomplete", |storage| {
        storage.layers[1]["flags"] = json!({ "incomplete": true });
        storage.write();
    });
    // Untagged images are searched for steps of builds, with the same bounds.
    let mut storage = app("overlay");
    storage.layers[0]["parent"] = storage.layers[1]["id"].clone();
    storage.images[0]["names"] = json!([]);
    storage.write();
    assert_eq!(open(storage.dir.path(), BOTH[0]).unwrap().names().unwrap(), []);
}

#[test]
fn layers_of_composefs_are_refused_by_name() {
    refused_as(Kind::Failed, "is stored by composefs", |storage| {
        fs::create_dir(storage.files(&lower()).parent().unwrap().join("composefs-data")).unwrap();
    });
    refused_as(Kind::Failed, "is stored by composefs", |storage| {
        storage.layers[0]["flags"] = json!({ "use-composefs": true });
        storage.write();
    });
}

#[test]
fn large_and_damaged_records_are_refused() {
    for name in ["images.json", "layers.json", "volatile-layers.json"] {
        refused("at most 16777216 are allowed", |storage| huge(&storage.records(name)));
        refused(name, |storage| fs::write(storage.records(name), "[{").unwrap());
        refused(name, |storage| fs::write(storage.records(name), "{\"id\":1}").unwrap());
        refused("are allowed", |storage| {
            fs::write(storage.records(name), format!("[{}0]", "0,".repeat(600_000))).unwrap();
        });
        refused("expected a regular file", |storage| {
            let _ = fs::remove_file(storage.records(name));
            mkfifoat(CWD, storage.records(name), Mode::RWXU).unwrap();
        });
    }
}

#[test]
fn large_and_damaged_documents_are_refused_or_replaced() {
    let config = |storage: &StorageDir| storage.document(&id(storage), &id(storage).to_string());
    refused("at most 4194304 are allowed", |storage| huge(&config(storage)));
    refused("is damaged: its digest is", |storage| fs::write(config(storage), "{}").unwrap());
    refused("is damaged: the config", |storage| fs::remove_file(config(storage)).unwrap());
    // Without its manifests, an image is still what its config says.
    let rescued = |change: &dyn Fn(&Path)| {
        let storage = app("overlay");
        let documents = fs::read_dir(config(&storage).parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        documents.filter(|path| *path != config(&storage)).for_each(|path| change(&path));
        let (_, report) = take(open(storage.dir.path(), BOTH[0]).unwrap(), &[]).unwrap();
        assert_eq!(report.transferred.blobs, 3);
    };
    rescued(&|path| fs::write(path, "{").unwrap());
    rescued(&|path| fs::remove_file(path).unwrap());
    rescued(&huge);
}

#[test]
fn a_manifest_that_lies_about_a_size_is_refused() {
    refused("with 300001 bytes", |storage| {
        let path = storage.document(&id(storage), "manifest");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        manifest["layers"][1]["size"] = 300_001.into();
        let bytes = manifest.to_string().into_bytes();
        let key = format!("manifest-{}", Digest::of(&bytes));
        fs::write(storage.document(&id(storage), &key), &bytes).unwrap();
        fs::write(&path, &bytes).unwrap();
        storage.images[0]["digest"] = json!(Digest::of(&bytes));
        storage.write();
    });
}

#[test]
fn names_and_links_that_leave_the_layer_open_nothing() {
    refused("is damaged: it is missing", |storage| {
        let mut parts = split(&app_layers()[0]);
        let line = parts.lines.iter_mut().find(|line| line["name"] == "etc/passwd").unwrap();
        line["name"] = "../../../../../../../../etc/passwd".into();
        fs::write(storage.tar_split(&lower()), parts.compressed()).unwrap();
        fs::remove_file(passwd(storage)).unwrap();
    });
    let outside = tempfile::tempdir().unwrap();
    fs::copy("/etc/passwd", outside.path().join("passwd")).unwrap();
    refused("is damaged: it is missing", |storage| {
        fs::remove_file(passwd(storage)).unwrap();
        symlink(outside.path().join("passwd"), passwd(storage)).unwrap();
    });
    refused("a part of layer", |storage| {
        let files = storage.files(&lower());
        fs::remove_dir_all(&files).unwrap();
        symlink(outside.path(), &files).unwrap();
    });
    refused("expected a regular file", |storage| {
        fs::remove_file(passwd(storage)).unwrap();
        mkfifoat(CWD, passwd(storage), Mode::RWXU).unwrap();
    });
}

#[test]
fn the_damaged_file_is_named() {
    refused("the layer's file etc/conf is damaged: its content changed", |storage| {
        fs::write(storage.files(&lower()).join("etc/conf"), "conf = 2\n").unwrap();
    });
    refused("recorded size of 5 bytes", |storage| {
        storage.layers[0]["diff-size"] = 5.into();
        storage.write();
        let line = json!({ "type": 1, "name": "etc/passwd", "size": 1_u64 << 40, "position": 0 });
        fs::write(storage.tar_split(&lower()), line.to_string()).unwrap();
    });
    refused("a part of layer", |storage| fs::remove_file(storage.tar_split(&lower())).unwrap());
}

#[test]
fn an_image_that_changes_meanwhile_is_told_so() {
    type Changing = fn(&mut StorageDir);
    let cases: [(&str, Changing); 4] = [
        ("was removed from the storage", |storage| storage.images.clear()),
        ("was removed from the storage", |storage| storage.images[0]["names"] = json!([])),
        ("was replaced by another image", |storage| {
            storage.images[0]["names"] = json!([]);
            storage.add(&["docker.io/t/app:1"], &[tar_of(&[("other", b"other")])]);
        }),
        ("was removed from the storage and stored again", |storage| {
            storage.layers[0]["created"] = "2025-01-01T00:00:00Z".into();
        }),
    ];
    for (told, change) in cases {
        let mut storage = app("overlay");
        let store = open(storage.dir.path(), BOTH[0]).unwrap();
        let manifest = store.roots(&[by_name("t/app:1")]).unwrap().remove(0).read(&store).unwrap();
        let mut reader = store.open(&manifest.layers()[0], 0).unwrap();
        reader.read_exact(&mut [0; 100]).unwrap();
        fs::remove_dir_all(storage.files(&lower())).unwrap();
        change(&mut storage);
        storage.write();
        let error = Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(error.to_string().contains(told), "{told}: {error}");
    }
}
