//! An OCI layout directory's promises, as a source and as a destination.

mod hostile;
#[path = "../support/memory.rs"]
mod memory;
mod peers;
mod resume;

use imgmv::internals::image::{Algorithm, LayoutIndex, media_type};
use imgmv::internals::layout::{BlobCheck, Durable, LayoutSink, LayoutStore};
use imgmv::internals::source::Wrapper;
use imgmv::{
    Begin, Cancel, Claim, Coding, Compress, Descriptor, Digest, Error, Event, Hasher, Kind, Manifest, Name, Options,
    Report, Result, Root, Selector, Silent, Sink, Source, Store, Watch, copy,
};
use memory::{Kept, Memory, layer, takes};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

/// A directory that goes with the test, and what tests do with it.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn layout(&self) -> PathBuf {
        self.at("layout")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.layout().join(digest.blob_path())
    }

    fn sink(&self, verify: BlobCheck) -> LayoutSink {
        LayoutSink::open(&self.layout(), verify, Arc::new(Silent)).unwrap()
    }

    fn store(&self) -> LayoutStore {
        LayoutStore::open(&self.layout()).unwrap()
    }

    fn take(&self, memory: &Memory) -> Result<Report> {
        put(Arc::new(memory.clone()), &self.sink(BlobCheck::Size))
    }

    /// Names of what lies at the top.
    fn top(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.layout()) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.layout().join("blobs/sha256")).map_or(0, |entries| entries.count())
    }

    fn index(&self) -> LayoutIndex {
        LayoutIndex::parse(&fs::read(self.layout().join("index.json")).unwrap()).unwrap()
    }
}

fn put(store: Arc<dyn Store>, sink: &dyn Sink) -> Result<Report> {
    copy(Source::Store(store), sink, &Options::default(), None, &Silent, &Cancel::default())
}

const WHOLE: [&str; 3] = ["blobs", "index.json", "oci-layout"];

/// `app:2` with a layer of 3 MB, and `multi:1` over three platforms, one of them nested.
fn sample() -> Memory {
    let mut memory = Memory::default();
    let single = memory.image("linux/amd64", &[layer(1, 100_000), layer(2, 3_000_000)]);
    memory.name("docker.io/library/app:2", &single);
    let arm = memory.image("linux/arm64", &[layer(3, 1000)]);
    let inner = memory.image("linux/s390x", &[layer(4, 1000)]);
    let nested = memory.index(&[inner]);
    let multi = memory.index(&[single, arm, nested]);
    memory.name("docker.io/library/multi:1", &multi);
    memory
}

fn one(seed: u8, name: &str) -> Memory {
    let mut memory = Memory::default();
    let root = memory.image("linux/amd64", &[layer(200, 2_000_000), layer(seed, 70_000)]);
    memory.name(name, &root);
    memory
}

/// The largest layer of the first image.
fn large(memory: &Memory) -> Descriptor {
    let root = &memory.roots[0].descriptor;
    let manifest = Manifest::parse(memory.blobs[&root.digest].clone(), root).unwrap();
    manifest.layers().iter().max_by_key(|layer| layer.size).unwrap().clone()
}

/// Hears what is said.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

#[test]
fn what_goes_in_comes_out() {
    let (dir, mut memory) = (Dir::new(), sample());
    // An artifact with a subject, a type that nobody knows, a sha512 layer, and an image without a name.
    let subject = memory.roots[0].descriptor.clone();
    let long = vec![7; 300_000];
    let sha512 = Hasher::new(Algorithm::Sha512).with(&long).finish();
    memory.blobs.insert(sha512, long.clone());
    let empty = memory.keep("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let artifact = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x.sbom",
        "config": empty, "subject": subject, "annotations": { "a": "b" },
        "layers": [Descriptor::new("application/x.never-heard-of", sha512, long.len() as u64)],
    });
    let artifact = memory.keep(media_type::OCI_MANIFEST, artifact.to_string().into_bytes());
    memory.roots.push(Root::new(None, artifact.clone()));
    dir.take(&memory).unwrap();
    assert_eq!(dir.top(), WHOLE);

    let back = Dir::new();
    put(Arc::new(dir.store()), &back.sink(BlobCheck::Size)).unwrap();
    assert!(memory.blobs.iter().all(|(digest, bytes)| fs::read(back.blob(digest)).unwrap() == *bytes));
    assert_eq!(fs::read(back.layout().join("index.json")).unwrap(), fs::read(dir.layout().join("index.json")).unwrap());
    let [app, multi] = ["docker.io/library/app:2", "docker.io/library/multi:1"].map(|name| Name::new(name).unwrap());
    assert_eq!(back.index().target(&app), Some(memory.roots[0].descriptor.digest));
    assert_eq!(back.index().target(&multi), Some(memory.roots[1].descriptor.digest));
    assert_eq!(back.store().roots(&[Selector::Digest(artifact.digest)]).unwrap()[0].name, None);
    let referrers = back.store().referrers(&subject.digest).unwrap().entries;
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].digest, artifact.digest);
    assert_eq!(referrers[0].artifact_type.as_deref(), Some("application/x.sbom"));
    assert_eq!(referrers[0].annotation("a"), Some("b"));
    assert!(dir.store().referrers(&artifact.digest).unwrap().entries.is_empty());
}

#[test]
fn a_second_copy_moves_no_blob_and_rewrites_nothing() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&memory).unwrap();
    let inode = || fs::metadata(dir.layout().join("index.json")).unwrap().ino();
    let before = inode();
    for verify in [BlobCheck::Size, BlobCheck::Digest] {
        let report = put(Arc::new(memory.clone()), &dir.sink(verify)).unwrap();
        assert_eq!((report.transferred.blobs, report.existing.blobs), (0, 7));
        assert_eq!(inode(), before);
    }
    let options = Options { dry_run: true, ..Options::default() };
    let source = Source::Store(Arc::new(memory));
    let report = copy(source, &dir.sink(BlobCheck::Digest), &options, None, &Silent, &Cancel::default()).unwrap();
    assert_eq!((report.transferred.blobs, report.existing.blobs), (0, 7));
}

#[test]
fn a_dry_run_makes_no_directory() {
    let dir = Dir::new();
    let options = Options { dry_run: true, ..Options::default() };
    let source = Source::Store(Arc::new(sample()));
    copy(source, &dir.sink(BlobCheck::Size), &options, None, &Silent, &Cancel::default()).unwrap();
    assert!(!dir.layout().exists());
}

#[test]
fn images_are_picked_by_name_tag_and_digest() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&memory).unwrap();
    let store = dir.store();
    let [app, multi] = [0, 1].map(|at| memory.roots[at].descriptor.digest);
    for (asked, digest) in [("docker.io/library/app:2", app), ("app:2", app), ("2", app), ("multi:1", multi)] {
        let roots = store.roots(&[Selector::Name(asked.to_owned())]).unwrap();
        assert_eq!(roots.iter().map(|root| root.descriptor.digest).collect::<Vec<_>>(), [digest], "{asked}");
    }
    // An image below an index is found although no entry names it.
    let index = Manifest::parse(memory.blobs[&multi].clone(), &memory.roots[1].descriptor).unwrap();
    let roots = store.roots(&[Selector::Digest(index.children()[1].digest), Selector::Digest(app)]).unwrap();
    assert_eq!(roots[0].descriptor.size, index.children()[1].size);
    assert_eq!(roots[0].descriptor.media_type, media_type::OCI_MANIFEST);
    assert_eq!(roots[1].name.as_ref().unwrap().as_str(), "docker.io/library/app:2");
    for selector in [Selector::Name("nothing".into()), Selector::Digest(Digest::of(b"nothing"))] {
        let error = store.roots(&[selector]).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("docker.io/library/app:2"), "{error}");
    }
}

#[test]
fn six_threads_leave_six_tags() {
    let dir = Dir::new();
    thread::scope(|scope| {
        for i in 0..6 {
            let dir = &dir;
            scope.spawn(move || dir.take(&one(i, &format!("registry.lan/app:t{i}"))).unwrap());
        }
    });
    assert_eq!(dir.store().names().unwrap().len(), 6);
    assert_eq!(dir.top(), WHOLE);
    put(Arc::new(dir.store()), &Kept::new(takes())).unwrap();
}

/// One of the processes of `six_processes_leave_six_tags`: copies what its environment says.
#[test]
#[ignore = "run by six_processes_leave_six_tags"]
fn child() {
    let (Ok(layout), Ok(number)) = (std::env::var("TEST_LAYOUT"), std::env::var("TEST_NUMBER")) else { return };
    let number: u8 = number.parse().unwrap();
    for round in 0..5 {
        let sink = LayoutSink::open(Path::new(&layout), BlobCheck::Size, Arc::new(Silent)).unwrap();
        put(Arc::new(one(number + round, &format!("registry.lan/app:t{number}-{round}"))), &sink).unwrap();
    }
}

#[test]
fn six_processes_leave_six_tags() {
    let dir = Dir::new();
    let start = |number: i32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "child"]).stdout(std::process::Stdio::null());
        command.env("TEST_LAYOUT", dir.layout()).env("TEST_NUMBER", number.to_string()).spawn().unwrap()
    };
    let children: Vec<_> = (0..6).map(|i| start(10 * i)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(dir.store().names().unwrap().len(), 30);
    assert_eq!(dir.top(), WHOLE);
    put(Arc::new(dir.store()), &Kept::new(takes())).unwrap();
}

#[test]
fn strangers_entries_stay() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&one(1, "theirs:1")).unwrap();
    let path = dir.layout().join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["annotations"] = serde_json::json!({ "their": "note" });
    index["manifests"][0]["x-unknown"] = serde_json::json!([1, 2]);
    fs::write(&path, index.to_string()).unwrap();
    dir.take(&memory).unwrap();
    let after: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(after["annotations"]["their"], "note");
    assert_eq!(after["manifests"][0]["x-unknown"], serde_json::json!([1, 2]));
    assert_eq!(after["manifests"].as_array().unwrap().len(), 3);
}

#[test]
fn an_image_is_tagged_in_place_and_untagged() {
    let (dir, memory) = (Dir::new(), sample());
    dir.take(&memory).unwrap();
    let (store, sink) = (dir.store(), dir.sink(BlobCheck::Size));
    let root = store.roots(&[Selector::Name("app:2".into())]).unwrap().remove(0);
    let manifest = Manifest::parse(store.manifest(&root.descriptor).unwrap(), &root.descriptor).unwrap();
    let stable = Name::new("stable").unwrap();
    sink.publish(Some(&stable), &manifest).unwrap();
    sink.finish().unwrap();
    assert_eq!(dir.index().target(&stable), Some(manifest.digest()));
    assert_eq!(dir.index().entries().unwrap().len(), 3);
    assert!(sink.remove(&stable).unwrap() && !sink.remove(&stable).unwrap());
    assert_eq!(dir.index().entries().unwrap().len(), 2);
    assert_eq!(dir.top(), WHOLE);
}

#[test]
fn what_was_whole_before_a_copy_was_cut_has_its_name() {
    let (dir, memory) = (Dir::new(), sample());
    let mut broken = one(7, "broken:1");
    let blob = large(&broken).digest;
    broken.blobs.get_mut(&blob).unwrap()[9] ^= 1;
    let sink = dir.sink(BlobCheck::Size);
    let jobs = [memory, broken].map(|memory| (Source::Store(Arc::new(memory)), Options::default()));
    imgmv::copy_all(jobs.into(), &sink, None, &Silent, &Cancel::default()).unwrap_err();
    drop(sink);
    assert_eq!(dir.store().names().unwrap().len(), 2);
    put(Arc::new(dir.store()), &Kept::new(takes())).unwrap();
}

#[test]
fn a_thousand_names_are_given_at_once() {
    let (dir, mut memory) = (Dir::new(), one(1, "app:0"));
    let root = memory.roots[0].descriptor.clone();
    (1..1000).for_each(|i| memory.name(&format!("registry.lan/app:{i}"), &root));
    dir.take(&memory).unwrap();
    dir.take(&memory).unwrap();
    assert_eq!(dir.store().names().unwrap().len(), 1000);
}

#[test]
fn a_layer_packed_on_the_way_lands_under_its_new_digest() {
    let (dir, memory) = (Dir::new(), one(1, "app:1"));
    let options = Options { compress: Compress::To(Coding::Zstd), ..Options::default() };
    let source = Source::Store(Arc::new(memory.clone()));
    copy(source, &dir.sink(BlobCheck::Size), &options, None, &Silent, &Cancel::default()).unwrap();
    assert!(!dir.blob(&large(&memory).digest).exists());
    assert_eq!(dir.top(), WHOLE);
    assert_eq!(dir.blobs(), 4);
    put(Arc::new(dir.store()), &Kept::new(takes())).unwrap();
}

#[test]
fn durable_blobs_are_the_same_blobs() {
    let (dir, memory) = (Dir::new(), sample());
    put(Arc::new(memory.clone()), &dir.sink(BlobCheck::Size).durable(Durable::Blobs)).unwrap();
    assert!(memory.blobs.iter().all(|(digest, bytes)| fs::read(dir.blob(digest)).unwrap() == *bytes));
}
