//! The error about a damaged or missing blob names the image and the file, whatever the source and the destination are.

use super::*;
use support::program::{Output, imgmv};

/// An image in a tree beside another one, and the files of its layer, its config and its manifest.
fn stored() -> (Dir, Memory, [PathBuf; 3]) {
    let (dir, memory) = (Dir::new(), one(1, 300_000, "h.lan/t/app:1"));
    dir.put(&memory).unwrap();
    dir.put(&one(2, 100, "h.lan/t/other:1")).unwrap();
    let image = manifest(&memory, 0);
    let digests = [image.layers()[0].digest, image.config().unwrap().digest, image.digest()];
    let files = digests.map(|digest| dir.tree.data(&digest));
    (dir, memory, files)
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes[5] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Copies `source` to an archive, a layout, a layout under another name, and a tree.
fn copies(source: &str, is_one: bool) -> Vec<Output> {
    let out = TempDir::new().unwrap();
    let at = |name: &str| out.path().join(name).display().to_string();
    let mut to = vec![at("all.tar"), format!("oci:{}", at("layout")), format!("registry-dir:{}", at("tree"))];
    to.extend(is_one.then(|| format!("oci:{}:renamed", at("named"))));
    to.iter().map(|to| imgmv(&["copy", source, to], None)).collect()
}

fn names_both(done: &Output, image: &str, file: &Path) {
    assert!(!done.status.success());
    let told = &done.stderr;
    assert!(told.contains(image) && told.contains(&file.display().to_string()), "{image} {}: {told}", file.display());
}

#[test]
fn a_damaged_blob_of_a_tree_is_named_with_its_image() {
    let (dir, memory, files) = stored();
    for file in &files {
        flip(file);
        for (reference, is_one) in [("t/app:1", true), ("", false)] {
            copies(&dir.address(reference), is_one).iter().for_each(|done| names_both(done, "t/app:1", file));
        }
        let done = imgmv(&["verify", &dir.address("t/app:1")], None);
        assert_eq!(done.status.code(), Some(5));
        // A manifest that cannot be read is an error of its own, without a verdict about the image.
        let image = if done.stdout.is_empty() { "t/app" } else { "blob" };
        assert!(done.stdout.is_empty() || done.stdout.contains("t/app:1"), "{}", done.stdout);
        names_both(&done, image, file);
        flip(file);
    }
    for file in &files[..2] {
        fs::remove_file(file).unwrap();
        copies(&dir.address(""), false).iter().for_each(|done| names_both(done, "t/app:1", file));
        dir.put(&memory).unwrap();
        fs::write(file, b"short").unwrap();
        copies(&dir.address(""), false).iter().for_each(|done| names_both(done, "t/app:1", file));
        dir.put(&memory).unwrap();
    }
}

#[test]
fn a_damaged_child_of_an_index_is_named_with_its_image() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let file = dir.tree.data(&manifest(&memory, 0).children()[1].digest);
    flip(&file);
    copies(&dir.address(""), false).iter().for_each(|done| names_both(done, "localhost/t/multi:1", &file));
}

#[test]
fn so_is_one_of_a_layout_and_one_of_an_archive() {
    let (dir, memory, _) = stored();
    let (layout, archive) = (dir.at("layout"), dir.at("app.tar"));
    let layer = manifest(&memory, 0).layers()[0].digest;
    let to = format!("oci:{}:h.lan/t/app:1", layout.display());
    assert!(imgmv(&["copy", &dir.address("t/app:1"), &to], None).status.success());
    assert!(imgmv(&["copy", &to, archive.to_str().unwrap()], None).status.success());
    let file = layout.join("blobs/sha256").join(layer.hex());
    flip(&file);
    let source = format!("oci:{}", layout.display());
    copies(&source, true).iter().for_each(|done| names_both(done, "h.lan/t/app:1", &file));
    names_both(&imgmv(&["verify", &source], None), "blob", &file);
    // Behind the header of the layer's entry.
    let mut bytes = fs::read(&archive).unwrap();
    let data = &memory.blobs[&layer];
    let at = bytes.windows(64).position(|window| window == &data[..64]).unwrap();
    bytes[at + 5] ^= 1;
    fs::write(&archive, bytes).unwrap();
    for done in copies(archive.to_str().unwrap(), true) {
        names_both(&done, "h.lan/t/app:1", &archive);
    }
}
