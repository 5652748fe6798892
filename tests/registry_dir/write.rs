//! Writing a tree.

use super::*;
use std::os::unix::fs::MetadataExt;

#[test]
fn each_image_is_stored_under_its_own_path_with_every_link() {
    let (dir, memory) = (Dir::new(), sample());
    let report = dir.put(&memory).unwrap();
    assert_eq!(report.images.len(), 2);
    assert_eq!(dir.tree.resolves(), 2);
    assert_eq!(dir.tree.repositories().into_iter().collect::<Vec<_>>(), ["library/app", "t/multi"]);
    assert_eq!(dir.tree.blobs().len(), memory.blobs.len());
    assert!(dir.tree.unfinished().is_empty());
    // A second copy moves nothing, and changes no file.
    let changed = |dir: &Dir| -> Vec<(PathBuf, i64, u64)> {
        let files = walkdir::WalkDir::new(dir.tree.root()).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        files.map(|e| (e.path().to_owned(), e.metadata().unwrap().mtime_nsec(), e.metadata().unwrap().ino())).collect()
    };
    let before = changed(&dir);
    assert_eq!(dir.put(&memory).unwrap().transferred.blobs, 0);
    assert_eq!(changed(&dir), before);
}

#[test]
fn a_tree_copied_to_a_tree_keeps_every_path() {
    let (dir, other, memory) = (Dir::new(), Dir::new(), sample());
    let app = memory.roots[1].descriptor.clone();
    let mut memory = memory;
    // A path whose first part looks like a host, and one without `library/`.
    memory.name("localhost/quay.io/org/app:1", &app);
    memory.name("localhost/app:1", &app);
    dir.put(&memory).unwrap();
    put(Arc::new(dir.store()), &other.sink()).unwrap();
    assert_eq!(other.tree.resolves(), 4);
    assert_eq!(other.tree.repositories(), dir.tree.repositories());
    assert!(other.tree.blobs() == dir.tree.blobs());
}

#[test]
fn a_tag_moves_at_once_and_the_old_image_stays_by_digest() {
    let dir = Dir::new();
    let [old, new] = [1, 2].map(|seed| one(seed, 1_000, "h.lan/t/app:1"));
    let digests = [&old, &new].map(|memory| memory.roots[0].descriptor.digest);
    dir.put(&old).unwrap();
    dir.put(&new).unwrap();
    assert_eq!(dir.tree.tags("t/app")["1"], digests[1]);
    // A registry finds the tags of a digest that is deleted by these.
    for digest in digests {
        assert!(dir.tree.index_link("t/app", "1", &digest).exists());
        assert_eq!(selected(&dir.store(), &format!("t/app@{digest}")).unwrap(), digest);
    }
}

#[test]
fn damaged_links_and_blobs_of_another_size_are_replaced() {
    let (dir, memory) = (Dir::new(), one(1, 300_000, "h.lan/t/app:1"));
    dir.put(&memory).unwrap();
    let (root, image) = (memory.roots[0].descriptor.digest, manifest(&memory, 0));
    let layer = image.layers()[0].digest;
    for link in [
        dir.tree.layer_link("t/app", &layer),
        dir.tree.revision_link("t/app", &root),
        dir.tree.index_link("t/app", "1", &root),
        dir.tree.tag_link("t/app", "1"),
    ] {
        for wrong in [&b""[..], b"sha256:12\n"] {
            fs::write(&link, wrong).unwrap();
            dir.put(&memory).unwrap();
            assert_eq!(dir.tree.resolves(), 1, "{}", link.display());
        }
    }
    fs::write(dir.tree.data(&layer), b"short").unwrap();
    fs::write(dir.tree.data(&root), vec![b' '; image.bytes.len()]).unwrap();
    assert_eq!(dir.put(&memory).unwrap().transferred.blobs, 1);
    assert_eq!(dir.tree.resolves(), 1);
    // With `--verify`, wrong bytes of the right size too.
    fs::write(dir.tree.data(&layer), vec![0; image.layers()[0].size as usize]).unwrap();
    let sink = RegistryDirSink::open(dir.tree.root(), BlobCheck::Digest, Arc::new(Silent)).unwrap();
    assert_eq!(put(Arc::new(memory.clone()), &sink).unwrap().transferred.blobs, 1);
    assert_eq!(dir.tree.resolves(), 1);
}

#[test]
fn an_index_of_which_parts_are_missing_keeps_its_digest() {
    let (dir, mut memory) = (Dir::new(), sample());
    let index = manifest(&memory, 0);
    let gone = index.children()[1].digest;
    memory.blobs.remove(&gone);
    memory.lacks = true;
    dir.put(&memory).unwrap();
    assert_eq!(dir.tree.tags("t/multi")["1"], index.digest());
    assert!(!dir.tree.data(&gone).exists() && !dir.tree.revision_link("t/multi", &gone).exists());
}

#[test]
fn a_name_without_a_repository_is_refused_before_anything_is_written() {
    let (dir, mut memory) = (Dir::new(), Memory::default());
    let root = memory.image("linux/amd64", &[layer(1, 10)]);
    memory.name("v1", &root);
    let error = dir.put(&memory).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("registry-dir:DIR:REPO:TAG"), "{error}");
    memory.roots[0].name = None;
    assert_eq!(dir.put(&memory).unwrap_err().kind(), Kind::Usage);
    assert!(!dir.tree.root().exists());
}

#[test]
fn a_directory_with_other_content_does_not_become_a_tree() {
    let dir = Dir::new();
    write_file(&dir.tree.root().join("index.json"), b"{}");
    let refused = || RegistryDirSink::open(dir.tree.root(), BlobCheck::Size, Arc::new(Silent)).err().expect("refused");
    assert!(refused().to_string().contains("\"index.json\""), "{}", refused());
    assert_eq!(refused().kind(), Kind::Usage);
    fs::remove_file(dir.tree.root().join("index.json")).unwrap();
    // The root of a new file system.
    fs::create_dir(dir.tree.root().join("lost+found")).unwrap();
    dir.put(&sample()).unwrap();
    assert_eq!(dir.tree.resolves(), 2);
}

#[test]
fn a_harbors_tree_is_only_read() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let open = || RegistryDirSink::open(dir.tree.root(), BlobCheck::Size, Arc::new(Silent));
    // Other programs have such a folder too.
    fs::create_dir(dir.at("database")).unwrap();
    assert!(open().is_ok());
    fs::remove_dir(dir.at("database")).unwrap();
    for mark in ["job_logs", "secret/registry", "trivy-adapter", "harbor.yml"] {
        fs::create_dir_all(dir.at(mark)).unwrap();
        let error = open().err().unwrap_or_else(|| panic!("{mark}: not refused"));
        assert!(error.kind() == Kind::Usage && error.to_string().contains("Harbor"), "{error}");
        let image = dir.address("library/app:2");
        for args in [&["copy", &image, &dir.address("library/new:1")][..], &["tag", &image, "new"]] {
            let done = support::program::imgmv(args, None);
            assert!(done.status.code() == Some(2) && done.stderr.contains(mark), "{mark}: {}", done.stderr);
        }
        fs::remove_dir(dir.at(mark)).unwrap();
    }
    assert!(open().is_ok());
    ["database", "redis"].iter().for_each(|mark| fs::create_dir(dir.at(mark)).unwrap());
    assert!(open().is_err());
    assert_eq!(names(&dir.store()).len(), 2);
}

#[test]
fn two_processes_write_the_same_tree() {
    let dir = Dir::new();
    let common = layer(9, 700_000);
    let memories: Vec<Memory> = (0..4)
        .map(|nth: u8| {
            let mut memory = Memory::default();
            let root = memory.image("linux/amd64", &[common.clone(), layer(nth, 50_000)]);
            memory.name(&format!("h.lan/t/app:{nth}"), &root);
            memory.name("h.lan/t/app:same", &root);
            memory
        })
        .collect();
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for memory in &memories {
                scope.spawn(|| dir.put(memory).unwrap());
            }
        });
        assert_eq!(dir.tree.resolves(), 5);
        assert!(dir.tree.unfinished().is_empty(), "{:?}", dir.tree.unfinished());
        fs::remove_dir_all(dir.tree.root()).unwrap();
    }
}

#[test]
fn a_dry_run_writes_nothing_and_tells_what_exists() {
    let (dir, memory) = (Dir::new(), sample());
    let dry = || {
        let options = Options { compress: Compress::Keep, dry_run: true, ..Options::default() };
        let source = Source::Store(Arc::new(memory.clone()));
        copy(source, &dir.sink(), &options, None, &Silent, &Cancel::default()).unwrap()
    };
    assert_eq!(dry().existing.blobs, 0);
    assert!(!dir.tree.root().exists());
    dir.put(&memory).unwrap();
    assert_eq!(dry().transferred.blobs, 0);
}

#[test]
fn a_tag_is_added_in_place() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let root = manifest(&memory, 1);
    let sink = dir.sink();
    sink.put_manifest(&root).unwrap();
    sink.publish(Some(&Name::new("localhost/library/app:stable").unwrap()), &root).unwrap();
    sink.finish().unwrap();
    assert_eq!(dir.tree.tags("library/app")["stable"], root.digest());
    assert_eq!(dir.tree.resolves(), 3);
}

/// With `localhost/` before it, the name of such an image is longer than a reference may be.
#[test]
fn a_repository_with_the_longest_name_is_read_and_written() {
    let (dir, other, memory) = (Dir::new(), Dir::new(), one(1, 100, "h.lan/t/app:1"));
    dir.put(&memory).unwrap();
    let longest = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    let image = manifest(&memory, 0);
    for blob in image.blobs() {
        dir.tree.put_layer(&longest, &blob.digest, &memory.blobs[&blob.digest]);
    }
    dir.tree.put_manifest(&longest, &image.digest(), &image.bytes);
    dir.tree.put_tag(&longest, "1", &image.digest());
    let store = dir.store();
    assert_eq!(selected(&store, &format!("{longest}:1")).unwrap(), image.digest());
    assert_eq!(store.roots(&[]).unwrap().len(), 2);
    put(Arc::new(store), &other.sink()).unwrap();
    assert_eq!(other.tree.resolves(), 2);
    assert_eq!(other.tree.repositories(), dir.tree.repositories());
}

/// `blobs`, or a folder below `repositories`, may be on another disk.
#[test]
fn a_tree_of_several_mounts_is_written() {
    use std::process::Command;
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        return println!("skipped: only root can mount");
    }
    let archive = fs::canonicalize("fixtures/hello-docker28c.tar").unwrap();
    // Each is a bind mount, out of which no rename leads, although the disk is the same.
    for (mounted, is_written) in [
        ("blobs", true),
        ("blobs/sha256", true),
        ("repositories", true),
        ("repositories/t", true),
        ("repositories/t/app", true),
        ("repositories/t/app/_manifests", true),
        ("repositories/t/app/_manifests/tags", false),
        ("repositories/t/app/_manifests/revisions", false),
        ("repositories/t/app/_layers", false),
    ] {
        let (dir, disk) = (Dir::new(), TempDir::new().unwrap());
        dir.put(&one(1, 100, "h.lan/t/app:1")).unwrap();
        let at = dir.tree.base().join(mounted);
        let moved = Command::new("cp").arg("-a").arg(at.join(".")).arg(disk.path()).status().unwrap();
        assert!(moved.success());
        // A tag that is new, one that moves, and a new repository beside.
        let script = r#"mount --bind "$1" "$2" && for to in "$5:1" "$5:new" "$6:1"; do "$3" copy -q "$4" "$to" || exit; done
            cp -a "$2/." "$7""#;
        let result = dir.at("result");
        fs::create_dir(&result).unwrap();
        let mut run = Command::new("unshare");
        run.args(["-m", "sh", "-c", script, "sh"]).arg(disk.path()).arg(&at).arg(env!("CARGO_BIN_EXE_imgmv"));
        run.arg(&archive).args([dir.address("t/app"), dir.address("t/other")]).arg(&result);
        let done = run.output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.success(), is_written, "{mounted}: {told}");
        if !is_written {
            assert!(told.contains(mounted) && told.contains("is a mount point"), "{mounted}: {told}");
            // Refused before the first byte.
            assert_eq!(dir.tree.blobs().len(), 3, "{mounted}");
            continue;
        }
        fs::remove_dir_all(&at).unwrap();
        fs::rename(&result, &at).unwrap();
        assert_eq!(dir.tree.resolves(), 3, "{mounted}");
        assert!(dir.tree.unfinished().is_empty(), "{mounted}: {:?}", dir.tree.unfinished());
    }
}
