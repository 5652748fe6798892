//! New names in place: the image is what it was, the names are right in every list, and the file is replaced whole.

use crate::make::*;
use crate::relay::files;
use imgmv::internals::archive::retag;
use imgmv::{Kind, Name, Selector, Store};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, sync::Arc};
use tempfile::TempDir;

fn placed(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.tar");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn a_new_name_points_at_the_same_image_in_every_form() {
    for file in [
        "hello-docker20.tar",
        "hello-docker28.tar",
        "hello-skopeo-oci.tar",
        "hello-crane.tar",
        "hello-podman-docker.tar",
    ] {
        let (folder, path) = placed(&fixture(file));
        let before = store(fixture(file)).unwrap().roots(&[]).unwrap();
        let root = retag(&path, None, &[name("registry.lan/app:9")], Arc::new(imgmv::Silent)).unwrap();
        let after = fs::read(&path).unwrap();
        let store = store(after.clone()).unwrap();
        assert_eq!(root.descriptor.digest, before[0].descriptor.digest, "{file}");
        for tag in [&name("registry.lan/app:9"), before[0].name.as_ref().unwrap()] {
            let found = store.roots(&[Selector::Name(tag.to_string())]).unwrap();
            assert_eq!(found[0].descriptor.digest, root.descriptor.digest, "{file} {tag}");
        }
        for (name, content) in files(&fixture(file)) {
            if !["index.json", "manifest.json", "repositories"].contains(&name.as_str()) {
                assert!(files(&after).contains(&(name.clone(), content)), "{file}: {name}");
            }
        }
        for kept in arrive(&after) {
            assert_eq!(kept.unwrap().state().names["registry.lan/app:9"], root.descriptor.digest);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_name_that_another_image_had_moves() {
    for file in ["two-images-docker20.tar", "two-images-docker28.tar", "two-images-ctr21.tar"] {
        let (_folder, path) = placed(&fixture(file));
        let picked = Selector::Name("bye-imgmv:1".into());
        let root = retag(&path, Some(&picked), &[name("hello-imgmv:1")], Arc::new(imgmv::Silent)).unwrap();
        let after = fs::read(&path).unwrap();
        let store = store(after.clone()).unwrap();
        let found = store.roots(&[Selector::Name("hello-imgmv:1".into())]).unwrap();
        assert_eq!(found[0].descriptor.digest, root.descriptor.digest, "{file}");
        let entries = files(&after);
        let list: Value =
            serde_json::from_slice(&entries.iter().find(|(name, _)| name == "manifest.json").unwrap().1).unwrap();
        let with = |entry: &&Value| entry["RepoTags"].to_string().contains("hello-imgmv:1");
        assert_eq!(list.as_array().unwrap().iter().filter(with).count(), 1, "{file}: {list}");
    }
}

#[test]
fn what_could_be_meant_in_two_ways_changes_nothing() {
    let watch = || Arc::new(imgmv::Silent);
    let (folder, path) = placed(&fixture("two-images-docker20.tar"));
    assert_eq!(retag(&path, None, &[name("app:9")], watch()).unwrap_err().kind(), Kind::Usage);
    let picked = Selector::Name("bye-imgmv:1".into());
    assert_eq!(retag(&path, Some(&picked), &[name("bare")], watch()).unwrap_err().kind(), Kind::Usage);
    assert!(fs::read(&path).unwrap() == fixture("two-images-docker20.tar"));
    fs::write(&path, gzip(&fixture("hello-docker20.tar"))).unwrap();
    assert_eq!(retag(&path, None, &[name("app:9")], watch()).unwrap_err().kind(), Kind::Usage);
    fs::write(&path, &fixture("hello-docker20.tar")[..20_000]).unwrap();
    assert_eq!(retag(&path, None, &[name("app:9")], watch()).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_image_without_a_name_gets_one_and_what_is_not_known_stays() {
    let image = Image::new(2);
    let mut entry = image.saved(&[]);
    entry["RepoTags"] = Value::Null;
    entry["Parent"] = json!("sha256:ab");
    let mut archive = image.old_files();
    archive.push(saved(json!([entry])));
    let (_folder, path) = placed(&tar(&archive));
    retag(&path, None, &[name("app:2")], Arc::new(imgmv::Silent)).unwrap();
    let entries = files(&fs::read(&path).unwrap());
    let (last, bytes) = entries.last().unwrap();
    let list: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(
        (last.as_str(), &list[0]["RepoTags"], &list[0]["Parent"]),
        ("manifest.json", &json!([NAME]), &json!("sha256:ab"))
    );
}
