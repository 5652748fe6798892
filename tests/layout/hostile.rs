//! What a layout made by strangers, or damaged, cannot do.

use super::*;

#[test]
fn a_blob_of_the_wrong_size_is_replaced() {
    let (dir, memory) = (Dir::new(), sample());
    let blob = large(&memory);
    dir.take(&memory).unwrap();
    for wrong in [&b""[..], b"short", &vec![1; blob.size as usize + 1]] {
        fs::write(dir.blob(&blob.digest), wrong).unwrap();
        assert_eq!(dir.take(&memory).unwrap().transferred.blobs, 1);
        assert!(fs::read(dir.blob(&blob.digest)).unwrap() == memory.blobs[&blob.digest]);
    }
}

#[test]
fn a_blob_with_wrong_bytes_is_replaced_when_digests_are_verified() {
    let (dir, memory) = (Dir::new(), sample());
    let blob = large(&memory);
    dir.take(&memory).unwrap();
    fs::write(dir.blob(&blob.digest), vec![1; blob.size as usize]).unwrap();
    assert_eq!(dir.take(&memory).unwrap().transferred.blobs, 0);
    let heard = Arc::new(Heard::default());
    let sink = LayoutSink::open(&dir.layout(), BlobCheck::Digest, heard.clone()).unwrap();
    assert_eq!(put(Arc::new(memory.clone()), &sink).unwrap().transferred.blobs, 1);
    assert!(fs::read(dir.blob(&blob.digest)).unwrap() == memory.blobs[&blob.digest]);
    assert!(heard.0.lock().unwrap()[0].contains("is damaged; replacing it"));
}

#[test]
fn a_damaged_manifest_is_replaced() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&memory).unwrap();
    let root = memory.roots[0].descriptor.clone();
    for wrong in [vec![b' '; root.size as usize], b"{}".to_vec()] {
        fs::write(dir.blob(&root.digest), wrong).unwrap();
        dir.take(&memory).unwrap();
        assert!(fs::read(dir.blob(&root.digest)).unwrap() == memory.blobs[&root.digest]);
    }
}

#[test]
fn what_is_no_regular_file_is_never_read_through() {
    let (dir, memory) = (Dir::new(), sample());
    let blob = large(&memory);
    type Placed = fn(&Path);
    let replace_by: [(&str, Placed); 4] = [
        ("symbolic link", |at| symlink("/dev/zero", at).unwrap()),
        ("FIFO", |at| {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mkfifoat(rustix::fs::CWD, at, mode).unwrap();
        }),
        ("directory", |at| fs::create_dir(at).unwrap()),
        ("symbolic link", |at| symlink("../../index.json", at).unwrap()),
    ];
    for (what, place) in replace_by {
        let _ = fs::remove_dir_all(dir.layout());
        dir.take(&memory).unwrap();
        fs::remove_file(dir.blob(&blob.digest)).unwrap();
        place(&dir.blob(&blob.digest));
        let error = put(Arc::new(dir.store()), &Kept::new(takes())).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(what), "{error}");
    }
    // As a destination the same directory gets a file in the link's place; what it led to stays as it is.
    let index = fs::read(dir.layout().join("index.json")).unwrap();
    dir.take(&memory).unwrap();
    assert!(fs::symlink_metadata(dir.blob(&blob.digest)).unwrap().is_file());
    assert_eq!(fs::read(dir.layout().join("index.json")).unwrap(), index);
}

#[test]
fn links_in_a_layout_lead_nowhere() {
    let memory = sample();
    for linked in ["blobs", "blobs/sha256", "index.json", "oci-layout"] {
        let (dir, outside) = (Dir::new(), Dir::new());
        dir.take(&memory).unwrap();
        let target = outside.at("target");
        fs::rename(dir.layout().join(linked), &target).unwrap();
        symlink(&target, dir.layout().join(linked)).unwrap();
        let count = || walkdir::WalkDir::new(outside.0.path()).into_iter().count();
        let before = count();
        let read = LayoutStore::open(&dir.layout()).and_then(|store| put(Arc::new(store), &Kept::new(takes())));
        assert!(read.unwrap_err().to_string().contains("symbolic link"), "{linked}");
        let other = Arc::new(one(9, "other:1"));
        let write =
            LayoutSink::open(&dir.layout(), BlobCheck::Size, Arc::new(Silent)).and_then(|sink| put(other, &sink));
        assert_eq!(write.unwrap_err().kind(), Kind::Invalid, "{linked}");
        assert_eq!(count(), before, "{linked}");
    }
}

#[test]
fn what_is_no_layout_is_said_to_be_none() {
    let dir = Dir::new();
    let opened = |wanted: Kind, says: &str| {
        let error = LayoutStore::open(&dir.layout()).err().unwrap();
        assert_eq!(error.kind(), wanted, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    opened(Kind::NotFound, "no OCI layout at");
    fs::write(dir.layout(), b"tar").unwrap();
    opened(Kind::Usage, "oci-archive:FILE");
    fs::remove_file(dir.layout()).unwrap();
    fs::create_dir(dir.layout()).unwrap();
    opened(Kind::Invalid, "no file oci-layout");
    let write = |name: &str, content: &str| fs::write(dir.layout().join(name), content).unwrap();
    write("oci-layout", "{}");
    opened(Kind::Invalid, "is not the version file of an OCI layout");
    write("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    opened(Kind::Invalid, "2.0.0");
    write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    opened(Kind::Invalid, "no file index.json");
    write("index.json", r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#);
    opened(Kind::Invalid, "CVE-2021-41190");
    write("index.json", &"[".repeat(100_000));
    opened(Kind::Invalid, "index.json");
    fs::File::create(dir.layout().join("index.json")).unwrap().set_len(1 << 40).unwrap();
    opened(Kind::Invalid, "more than the");
    write("index.json", r#"{"manifests":null}"#);
    assert!(dir.store().roots(&[]).unwrap().is_empty());
}

#[test]
fn somebody_elses_index_json_is_left_alone() {
    let dir = Dir::new();
    fs::create_dir(dir.layout()).unwrap();
    fs::write(dir.layout().join("index.json"), r#"{"name":"a web page"}"#).unwrap();
    let refused = LayoutSink::open(&dir.layout(), BlobCheck::Size, Arc::new(Silent));
    assert_eq!(refused.err().unwrap().kind(), Kind::Invalid);
    assert_eq!(dir.top(), ["index.json"]);
}

#[test]
fn a_name_that_means_two_images_is_listed_and_refused() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&memory).unwrap();
    let entry = |root: usize| {
        let mut entry = memory.roots[root].descriptor.clone();
        entry.annotate("org.opencontainers.image.ref.name", "v1");
        entry
    };
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry(0), entry(1)] });
    fs::write(dir.layout().join("index.json"), index.to_string()).unwrap();
    let store = dir.store();
    assert_eq!(store.roots(&[]).unwrap().len(), 2);
    for selectors in [vec![], vec![Selector::Name("v1".into())]] {
        let (options, sink) = (Options { selectors, ..Options::default() }, Kept::new(takes()));
        let source = Source::Store(Arc::new(dir.store()));
        let error = copy(source, &sink, &options, None, &Silent, &Cancel::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("v1 is the name of two images"), "{error}");
    }
    assert_eq!(store.roots(&[Selector::Digest(memory.roots[1].descriptor.digest)]).unwrap().len(), 1);
}

#[test]
fn wrong_bytes_leave_nothing() {
    for size in [1000, 5_000_000] {
        let (dir, mut memory) = (Dir::new(), Memory::default());
        let root = memory.image("linux/amd64", &[layer(1, size)]);
        memory.name("app:1", &root);
        let blob = large(&memory);
        memory.blobs.get_mut(&blob.digest).unwrap()[700] ^= 1;
        for _ in 0..2 {
            assert_eq!(dir.take(&memory).unwrap_err().kind(), Kind::Invalid);
            assert_eq!(dir.top().into_iter().filter(|name| name != "blobs").count(), 0);
            assert!(!dir.blob(&blob.digest).exists());
        }
    }
}

#[test]
fn a_blob_larger_than_the_disk_is_told_at_once() {
    let dir = Dir::new();
    let sink = dir.sink(BlobCheck::Size);
    let claim = Claim { digest: Some(Digest::of(b"x")), size: Some(1 << 60) };
    let Begin::Write(mut writer) = sink.begin(&claim, None).unwrap() else { panic!("it is not there") };
    let error = writer.start(Hasher::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::Unwritable, "{error}");
    drop(writer);
    assert!(dir.top().is_empty());
}

#[test]
fn a_read_only_place_is_said_to_be_one() {
    let dir = Dir::new();
    fs::write(dir.at("file"), b"").unwrap();
    let sink = LayoutSink::open(&dir.at("file/layout"), BlobCheck::Size, Arc::new(Silent));
    let error = sink.and_then(|sink| put(Arc::new(sample()), &sink)).unwrap_err();
    assert!(matches!(error.kind(), Kind::Unwritable | Kind::Usage), "{error}");
}

#[test]
fn an_index_of_which_no_image_is_whole_says_what_it_lacks() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&memory).unwrap();
    let root = &memory.roots[1].descriptor;
    let index = Manifest::parse(memory.blobs[&root.digest].clone(), root).unwrap();
    for child in index.children() {
        let child = Manifest::parse(memory.blobs[&child.digest].clone(), child).unwrap();
        child
            .blobs()
            .into_iter()
            .chain(child.children())
            .for_each(|blob| fs::remove_file(dir.blob(&blob.digest)).unwrap());
    }
    let options = Options { selectors: vec![Selector::Name("multi:1".into())], ..Options::default() };
    let source = Source::Store(Arc::new(dir.store()));
    let error = copy(source, &Kept::new(takes()), &options, None, &Silent, &Cancel::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("is not in") && error.to_string().contains("multi:1"), "{error}");
}

/// A file system of so many bytes, as long as it lives; none where this user may not make one.
struct Small(PathBuf);

impl Small {
    fn new(at: PathBuf, size: u32) -> Option<Small> {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Small(at)),
            _ => {
                println!("skipped: no file system can be mounted here");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_to_be_full_and_keeps_what_it_had() {
    let dir = Dir::new();
    let Some(_small) = Small::new(dir.layout(), 3 << 20) else { return };
    let before = one(1, "before:1");
    dir.take(&before).unwrap();
    let mut many = Memory::default();
    let layers: Vec<Vec<u8>> = (0..40).map(|seed| layer(seed, 100_000)).collect();
    let root = many.image("linux/amd64", &layers);
    many.name("many:1", &root);
    for memory in [&sample(), &many] {
        let error = dir.take(memory).unwrap_err();
        assert_eq!(error.kind(), Kind::Unwritable, "{error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert_eq!(dir.top(), WHOLE);
    }
    assert_eq!(dir.store().names().unwrap().len(), 1);
    put(Arc::new(dir.store()), &Kept::new(takes())).unwrap();
}
