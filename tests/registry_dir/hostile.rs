//! What a tree made by strangers, or damaged, cannot do.

use super::*;
use imgmv::internals::registry_dir::{Repositories, TreeRepositories};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::os::unix::fs::symlink;

/// Copies the image `text` of `dir` away; the error's kind and sentence.
fn refused(dir: &Dir, text: &str) -> (Kind, String) {
    let to = TempDir::new().unwrap();
    let sink =
        imgmv::internals::layout::LayoutSink::open(&to.path().join("l"), BlobCheck::Size, Arc::new(Silent)).unwrap();
    let selectors = if text.is_empty() { Vec::new() } else { vec![by_name(text)] };
    let options = Options { selectors, compress: Compress::Keep, ..Options::default() };
    let source = Source::Store(Arc::new(dir.store()));
    let error = copy(source, &sink, &options, None, &Silent, &Cancel::default()).expect_err(text);
    assert!(!to.path().join("l/index.json").exists(), "{text} was named");
    (error.kind(), error.to_string())
}

fn stored() -> (Dir, Memory, Digest) {
    let (dir, memory) = (Dir::new(), one(1, 300_000, "h.lan/t/app:1"));
    dir.put(&memory).unwrap();
    let digest = memory.roots[0].descriptor.digest;
    (dir, memory, digest)
}

#[test]
fn each_broken_link_is_named() {
    type Broken = fn(&Dir, &Digest, &Digest) -> PathBuf;
    let breaks: [(&str, Kind, Broken); 6] = [
        ("line break", Kind::Invalid, |dir, digest, _| {
            let link = dir.tree.tag_link("t/app", "1");
            fs::write(&link, format!("{digest}\n")).unwrap();
            link
        }),
        ("expected sha256:HEX", Kind::Invalid, |dir, _, _| {
            let link = dir.tree.tag_link("t/app", "1");
            fs::write(&link, "sha256:../../../../../../etc/shadow").unwrap();
            link
        }),
        ("an empty file", Kind::Invalid, |dir, digest, _| {
            let link = dir.tree.revision_link("t/app", digest);
            fs::write(&link, "").unwrap();
            link
        }),
        ("is missing", Kind::NotFound, |dir, digest, _| {
            let link = dir.tree.revision_link("t/app", digest);
            fs::remove_file(&link).unwrap();
            link
        }),
        ("is missing", Kind::NotFound, |dir, digest, _| {
            let data = dir.tree.data(digest);
            fs::remove_file(&data).unwrap();
            data
        }),
        ("is missing", Kind::NotFound, |dir, _, layer| {
            let data = dir.tree.data(layer);
            fs::remove_file(&data).unwrap();
            data
        }),
    ];
    for (told, kind, break_it) in breaks {
        let (dir, memory, digest) = stored();
        let layer = manifest(&memory, 0).layers()[0].digest;
        let path = break_it(&dir, &digest, &layer).display().to_string();
        for text in ["t/app:1", ""] {
            let (found, message) = refused(&dir, text);
            // Of all images, the broken ones are listed.
            let expected = if text.is_empty() && !path.contains(&layer.hex()) { Kind::Invalid } else { kind };
            assert_eq!(found, expected, "{message}");
            assert!(message.contains(told) && message.contains(&path), "{path}: {message}");
        }
    }
}

#[test]
fn the_images_that_are_not_broken_are_still_read() {
    let (dir, memory, _) = stored();
    dir.put(&one(5, 50, "h.lan/t/good:1")).unwrap();
    fs::remove_file(dir.tree.data(&memory.roots[0].descriptor.digest)).unwrap();
    let (_, message) = refused(&dir, "");
    assert!(message.contains("1 of 2 images") && message.contains("t/app:1: "), "{message}");
    assert!(selected(&dir.store(), "t/good:1").is_ok());
    assert_eq!(dir.store().names().unwrap().len(), 2);
}

#[test]
fn wrong_bytes_are_found_although_a_registry_serves_them() {
    let (dir, memory, digest) = stored();
    let blobs = [manifest(&memory, 0).layers()[0].digest, manifest(&memory, 0).config().unwrap().digest, digest];
    for blob in blobs {
        let right = fs::read(dir.tree.data(&blob)).unwrap();
        let mut bytes = right.clone();
        bytes[5] ^= 1;
        fs::write(dir.tree.data(&blob), bytes).unwrap();
        let (kind, message) = refused(&dir, "t/app:1");
        assert!(kind == Kind::Invalid && message.contains(&blob.to_string()), "{message}");
        fs::write(dir.tree.data(&blob), right).unwrap();
    }
}

/// Nothing outside is read, a FIFO does not block, and a link file of a GiB costs no memory.
#[test]
fn what_is_not_a_regular_file_in_the_tree_is_refused_in_a_sentence() {
    type Place = fn(&Path);
    let places: [(&str, Place); 5] = [
        ("symbolic links are not followed", |at| symlink("/etc/passwd", at).unwrap()),
        ("symbolic links are not followed", |at| symlink("/dev/zero", at).unwrap()),
        ("found a FIFO", |at| mkfifoat(CWD, at, Mode::RWXU).unwrap()),
        ("found a directory", |at| fs::create_dir(at).unwrap()),
        ("", |at| fs::File::create(at).unwrap().set_len(1 << 30).unwrap()),
    ];
    for (told, place) in places {
        let (dir, memory, digest) = stored();
        let layer = manifest(&memory, 0).layers()[0].digest;
        for file in [
            dir.tree.data(&layer),
            dir.tree.data(&digest),
            dir.tree.revision_link("t/app", &digest),
            dir.tree.tag_link("t/app", "1"),
        ] {
            fs::remove_file(&file).unwrap();
            place(&file);
            let (kind, message) = refused(&dir, "t/app:1");
            assert_eq!(kind, Kind::Invalid, "{message}");
            assert!(message.contains(told), "{}: {message}", file.display());
            if file.is_dir() {
                fs::remove_dir(&file).unwrap()
            } else {
                fs::remove_file(&file).unwrap()
            }
            let (kind, _) = refused(&dir, "t/app:1");
            assert_eq!(kind, Kind::NotFound);
            dir.put(&memory).unwrap();
        }
    }
}

#[test]
fn folders_that_are_links_are_not_entered() {
    let (dir, memory, _) = stored();
    let outside = Dir::new();
    outside.put(&memory).unwrap();
    for folder in ["repositories/t", "repositories/t/app/_manifests", "repositories/t/app/_manifests/tags/1", "blobs"] {
        let (path, kept) = (dir.tree.base().join(folder), dir.at("kept"));
        fs::rename(&path, &kept).unwrap();
        symlink(outside.tree.base().join(folder), &path).unwrap();
        for text in ["t/app:1", ""] {
            let (kind, message) = refused(&dir, text);
            assert!(
                kind == Kind::Invalid && message.contains("symbolic links are not followed"),
                "{folder}: {message}"
            );
        }
        let error = dir.put(&one(3, 10, "h.lan/t/app:1")).unwrap_err();
        assert!(error.to_string().contains("symbolic links are not followed"), "{folder}: {error}");
        fs::remove_file(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
    }
    assert_eq!(outside.tree.tags("t/app"), dir.tree.tags("t/app"));
}

#[test]
fn folders_that_cannot_be_a_name_are_not_repositories() {
    let (dir, _, digest) = stored();
    for folder in ["_trash/x", "App", "lost+found", ".snapshot/t/app", "t/app/_uploads/x"] {
        write_file(
            &dir.tree.base().join("repositories").join(folder).join("_manifests/tags/1/current/link"),
            digest.to_string().as_bytes(),
        );
    }
    write_file(&dir.tree.base().join("repositories/stray"), b"a file");
    write_file(&dir.tree.repository("t/app").join("_manifests/tags/stray"), b"a file");
    fs::create_dir(dir.tree.repository("t/app").join("_manifests/tags/-not a tag")).unwrap();
    // Deeper than any name.
    let deep: PathBuf = std::iter::repeat_n("d", 300).collect();
    fs::create_dir_all(dir.tree.base().join("repositories").join(deep)).unwrap();
    assert_eq!(names(&dir.store()), ["localhost/t/app:1"]);
}

/// The others are listed, selected and served.
#[test]
fn an_entry_that_cannot_be_read_does_not_hide_the_others() {
    type Break = fn(&Dir) -> PathBuf;
    let breaks: [Break; 4] = [
        |dir| {
            let link = dir.tree.repository("linked");
            symlink(dir.tree.repository("t"), &link).unwrap();
            link
        },
        |dir| {
            let link = dir.tree.tag_link("t/app", "fifo");
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            mkfifoat(CWD, &link, Mode::RWXU).unwrap();
            link
        },
        |dir| {
            let link = dir.tree.repository("t/manifests/_manifests");
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(dir.tree.repository("t/app/_manifests"), &link).unwrap();
            link
        },
        |dir| {
            let tags = dir.tree.repository("t/tags/_manifests/tags");
            write_file(&tags, b"a file");
            tags
        },
    ];
    for break_it in breaks {
        let (dir, _, digest) = stored();
        let path = break_it(&dir).display().to_string();
        let told = Arc::new(Told::default());
        let store = dir.store().tell(told.clone());
        assert_eq!(names(&store), ["localhost/t/app:1"], "{path}");
        assert!(told.all().len() == 1 && told.all()[0].contains(&path), "{path}: {:?}", told.all());
        // By a tag alone, which every repository is searched for.
        assert_eq!(selected(&store, "1").unwrap(), digest, "{path}");
        let missing = selected(&store, "absent").unwrap_err();
        assert!(missing.kind() == Kind::NotFound && missing.to_string().contains(&path), "{missing}");
        let (kind, message) = refused(&dir, "");
        assert!(kind == Kind::Invalid && message.contains("1 of 2 images") && message.contains(&path), "{message}");
        let served = TreeRepositories::open(dir.tree.root()).unwrap();
        assert!(served.names().unwrap().contains(&"t/app".to_owned()), "{path}");
        let tags = served.open("t/app").unwrap().unwrap().names().unwrap();
        assert_eq!(tags.len(), 1, "{path}");
    }
}
