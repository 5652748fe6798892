//! A copy reports the files that a garbage collection removes meanwhile.

use super::*;
use imgmv::Watch;

/// Writes the image, removes `what` between naming and the end, and returns the error.
fn without(what: impl Fn(&Dir, &Memory)) -> Error {
    let (_dir, sink) = named(what, Arc::new(Silent));
    sink.finish().unwrap_err()
}

/// Writes and names the images, then does `what`.
fn named(what: impl Fn(&Dir, &Memory), watch: Arc<dyn Watch>) -> (Dir, RegistryDirSink) {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let sink = RegistryDirSink::open(dir.tree.root(), BlobCheck::Size, watch).unwrap();
    for nth in 0..2 {
        let root = manifest(&memory, nth);
        for child in root.children() {
            let child = Manifest::parse(memory.blobs[&child.digest].clone(), child).unwrap();
            sink.put_manifest(&child).unwrap();
        }
        sink.put_manifest(&root).unwrap();
        sink.publish(memory.roots[nth].name.as_ref(), &root).unwrap();
    }
    what(&dir, &memory);
    (dir, sink)
}

/// The names that were published before it stay.
#[test]
fn a_copy_that_fails_later_tells_what_is_gone_too() {
    let told = Arc::new(Told::default());
    let (_dir, sink) =
        named(|dir, memory| fs::remove_file(dir.tree.data(&memory.roots[1].descriptor.digest)).unwrap(), told.clone());
    sink.aborted(&Error::network("cut"));
    let told = told.all();
    assert!(told.len() == 1 && told[0].contains("docker.io/library/app:2"), "{told:?}");
}

#[test]
fn every_file_that_is_gone_after_naming_is_a_failure_of_its_image() {
    type Remove = fn(&Dir, &Memory) -> PathBuf;
    let removed: [Remove; 9] = [
        |dir, memory| dir.tree.data(&manifest(memory, 1).layers()[0].digest),
        |dir, memory| dir.tree.data(&manifest(memory, 1).config().unwrap().digest),
        |dir, memory| dir.tree.data(&memory.roots[1].descriptor.digest),
        |dir, memory| dir.tree.data(&manifest(memory, 0).children()[1].digest),
        |dir, memory| dir.tree.layer_link("library/app", &manifest(memory, 1).layers()[0].digest),
        |dir, memory| dir.tree.revision_link("library/app", &memory.roots[1].descriptor.digest),
        |dir, memory| dir.tree.revision_link("t/multi", &manifest(memory, 0).children()[0].digest),
        |dir, _| dir.tree.tag_link("library/app", "2"),
        |dir, memory| dir.tree.index_link("library/app", "2", &memory.roots[1].descriptor.digest),
    ];
    for (nth, file) in removed.into_iter().enumerate() {
        let error = without(|dir, memory| fs::remove_file(file(dir, memory)).unwrap());
        assert_eq!(error.kind(), Kind::Partial, "{nth}: {error}");
        let name = if [3, 6].contains(&nth) { "quay.io/t/multi:1" } else { "docker.io/library/app:2" };
        let told = error.to_string();
        assert!(told.contains(name) && told.contains("garbage collection"), "{nth}: {told}");
        assert!(told.contains("1 of 2 images"), "{nth}: {told}");
    }
}

#[test]
fn a_changed_file_is_one_that_is_gone() {
    for (nth, content) in [&b"short"[..], b""].into_iter().enumerate() {
        let error = without(|dir, memory| {
            let layer = manifest(memory, 1).layers()[0].digest;
            fs::write(dir.tree.data(&layer), content).unwrap();
        });
        assert!(error.to_string().contains("docker.io/library/app:2"), "{nth}: {error}");
    }
    let error = without(|dir, memory| {
        let link = dir.tree.layer_link("library/app", &manifest(memory, 1).layers()[0].digest);
        fs::write(link, memory.roots[0].descriptor.digest.to_string()).unwrap();
    });
    assert!(error.to_string().contains("the layer link"), "{error}");
}

/// Another process may give the tag to its own image meanwhile.
#[test]
fn a_tag_that_was_moved_is_not_a_failure() {
    let (dir, memory) = (Dir::new(), one(1, 100, "h.lan/t/app:1"));
    let sink = dir.sink();
    put(Arc::new(memory), &sink).unwrap();
    let other = one(2, 100, "h.lan/t/app:1");
    dir.put(&other).unwrap();
    sink.finish().unwrap();
}

#[test]
fn a_blob_that_vanishes_before_its_link_is_not_named() {
    let (dir, memory) = (Dir::new(), one(1, 100, "h.lan/t/app:1"));
    dir.put(&one(1, 100, "h.lan/t/other:1")).unwrap();
    let (sink, root) = (dir.sink(), manifest(&memory, 0));
    sink.put_manifest(&root).unwrap();
    fs::remove_file(dir.tree.data(&root.layers()[0].digest)).unwrap();
    let error = sink.publish(memory.roots[0].name.as_ref(), &root).unwrap_err();
    assert!(error.kind() == Kind::Failed && error.to_string().contains("was removed during the copy"), "{error}");
    assert!(dir.tree.tags("t/app").is_empty());
}
