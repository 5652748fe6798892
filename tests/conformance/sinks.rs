//! The sinks under test. A sink is one line in `every_sink`.

use crate::contents::Contents;
use crate::harness::{self, Except};
use crate::registry_tree::RegistryTree;
use crate::stores::access;
use crate::support::containerd_stand_in::StandIn;
use crate::support::containerd_storage::Storage;
use crate::support::registry::Double;
use imgmv::internals::archive::ArchiveSink;
use imgmv::internals::containerd::{Connection, Limits, LocalSocket, SocketSink};
use imgmv::internals::engine::{Engine, EngineSink, detect};
use imgmv::internals::layout::{BlobCheck, LayoutSink, LayoutStore};
use imgmv::internals::registry::{Access, Registry};
use imgmv::internals::registry_dir::RegistryDirSink;
use imgmv::internals::remote::Local;
use imgmv::{Cancel, Coding, Digest, Silent, Sink};
use std::any::Any;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// A destination, which is empty at first.
pub struct Place {
    /// Opens the sink; once for each run.
    pub open: Box<dyn Fn() -> Box<dyn Sink>>,
    /// The blobs and names that are visible now.
    pub contents: Box<dyn Fn() -> Contents>,
    /// Stores bytes under a digest, past the sink.
    pub plant: Option<Plant>,
    /// Lets the next upload of a large blob fail once.
    pub fail_once: Option<Box<dyn Fn()>>,
    _guard: Box<dyn Any>,
}

type Build = fn() -> Place;
type Plant = Box<dyn Fn(Digest, &[u8])>;

const FILE: Except = &[WRITTEN_AS_A_WHOLE, NO_RETRY];
const COMPRESSED: Except = &[WRITTEN_AS_A_WHOLE, NO_RETRY, STREAMED];
/// The reader sees bytes at once.
const PIPE: Except = &[
    WRITTEN_AS_A_WHOLE,
    NO_RETRY,
    STREAMED,
    &[
        ("an_aborted_copy_leaves_the_old_image", "streamed"),
        ("wrong_bytes_are_never_committed", "the reader sees them before their digest"),
        ("a_commit_of_other_bytes_fails", "the reader sees them before their digest"),
    ],
];
const LAYOUT: Except = &[&[("a_damaged_blob_is_sent_again", "checks sizes only")], NO_RETRY];
const LAYOUT_HASHED: Except = &[NO_RETRY];
const REGISTRY: Except = &[&[
    ("a_damaged_blob_is_sent_again", "the registry verifies"),
    ("a_cut_blob_resumes_in_the_next_run", "marks are 4 MiB apart"),
]];

const CONTAINERD: Except = &[&[("a_damaged_blob_is_sent_again", "checks sizes only")], READ_AGAIN];
const CONTAINERD_HASHED: Except = &[READ_AGAIN];

type Reasons = &'static [(&'static str, &'static str)];

const WRITTEN_AS_A_WHOLE: Reasons = &[
    ("a_stored_blob_is_held_by_the_next_run", "written as a whole"),
    ("a_damaged_blob_is_sent_again", "written as a whole"),
    ("a_blob_of_another_size_is_sent_again", "written as a whole"),
    ("a_second_image_joins_the_first", "written as a whole"),
    ("two_copies_at_once_both_arrive", "written as a whole"),
];
const READ_AGAIN: Reasons =
    &[("a_cut_blob_resumes_in_the_next_run", "bytes that containerd has are read and hashed again, and not sent")];
const NO_RETRY: Reasons = &[("a_failed_writer_recovers", "no retry")];
const STREAMED: Reasons =
    &[("a_cut_blob_resumes_in_the_next_run", "streamed"), ("a_sink_is_usable_after_a_dropped_writer", "streamed")];

/// One line for each sink: its name, the promises that do not apply, its constructor.
fn every_sink() -> Vec<(&'static str, Except, Build)> {
    vec![
        ("layout", LAYOUT, || layout(BlobCheck::Size)),
        ("layout, hashed", LAYOUT_HASHED, || layout(BlobCheck::Digest)),
        ("registry's tree", LAYOUT, || registry_dir(BlobCheck::Size)),
        ("registry's tree, hashed", LAYOUT_HASHED, || registry_dir(BlobCheck::Digest)),
        ("archive in a file", FILE, archive),
        ("archive, compressed", COMPRESSED, compressed),
        ("archive to a writer", PIPE, writer),
        ("registry", REGISTRY, registry),
        ("containerd by its socket", CONTAINERD, || containerd(false)),
        ("containerd by its socket, hashed", CONTAINERD_HASHED, || containerd(true)),
        ("engine, custom command", PIPE, custom_engine),
        ("engine, docker load", PIPE, docker),
    ]
}

pub fn check(promise: &str, check: impl Fn(&Place)) {
    harness::check(promise, every_sink(), |build: &Build| check(&build()));
}

#[test]
fn exceptions_of_sinks_name_promises() {
    let rows = every_sink().into_iter().map(|(name, except, _)| (name, except));
    harness::names_promises(rows, &[include_str!("sink_promises.rs"), include_str!("writer_promises.rs")]);
}

fn place(
    guard: impl Any,
    open: impl Fn() -> Box<dyn Sink> + 'static,
    contents: impl Fn() -> Contents + 'static,
) -> Place {
    Place { open: Box::new(open), contents: Box::new(contents), plant: None, fail_once: None, _guard: Box::new(guard) }
}

fn files(dir: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let files: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(dir).unwrap().display().to_string();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.into_iter()
}

fn layout(verify: BlobCheck) -> Place {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("layout");
    let [opened, seen, planted] = [(); 3].map(|()| path.clone());
    let place = place(
        dir,
        move || Box::new(LayoutSink::open(&opened, verify, Arc::new(Silent)).unwrap()),
        move || {
            if seen.join("index.json").exists() {
                LayoutStore::open(&seen).expect("a layout at any time");
            }
            Contents::of_layout(files(&seen))
        },
    );
    let plant = move |digest: Digest, bytes: &[u8]| fs::write(planted.join(digest.blob_path()), bytes).unwrap();
    Place { plant: Some(Box::new(plant)), ..place }
}

fn containerd(verify: bool) -> Place {
    let storage: Arc<Mutex<Storage>> = Arc::default();
    let stand_in = StandIn::storing(storage.clone());
    let socket = stand_in.socket().display().to_string();
    let [seen, planted, failing] = [(); 3].map(|()| storage.clone());
    let open = move || -> Box<dyn Sink> {
        let limits = Limits { timeout: Duration::from_secs(30), rate: None, cancel: Cancel::default() };
        let connection = Connection::new(Box::new(LocalSocket::new(&socket)), limits).unwrap();
        Box::new(SocketSink::open(Arc::new(connection), None, verify, Arc::new(Silent)).unwrap())
    };
    let contents = move || {
        let storage = seen.lock().unwrap();
        let tag = |name: &String| name.rsplit(':').next().unwrap().to_owned();
        Contents {
            blobs: storage.blobs.iter().map(|(digest, blob)| (digest.parse().unwrap(), blob.clone())).collect(),
            tags: storage.images.iter().map(|(name, digest)| (tag(name), digest.parse().unwrap())).collect(),
        }
    };
    let plant = move |digest: Digest, bytes: &[u8]| {
        planted.lock().unwrap().blobs.insert(digest.to_string(), bytes.to_vec());
    };
    let place = place(stand_in, open, contents);
    let fail_once = Box::new(move || failing.lock().unwrap().fails_once = true);
    Place { plant: Some(Box::new(plant)), fail_once: Some(fail_once), ..place }
}

fn registry_dir(verify: BlobCheck) -> Place {
    let dir = TempDir::new().unwrap();
    let tree = RegistryTree::at(&dir.path().join("registry"));
    let [opened, seen, planted] = [(); 3].map(|()| tree.clone());
    let place = place(
        dir,
        move || Box::new(RegistryDirSink::open(opened.root(), verify, Arc::new(Silent)).unwrap()),
        move || Contents { blobs: seen.blobs(), tags: seen.tags(REPOSITORY) },
    );
    let plant = move |digest: Digest, bytes: &[u8]| planted.put_data(&digest, bytes);
    Place { plant: Some(Box::new(plant)), ..place }
}

/// A place in a file, whose bytes `read` makes plain.
fn in_file(open: impl Fn(&Path) -> ArchiveSink + 'static, read: fn(&Path) -> Vec<u8>) -> Place {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.tar");
    let seen = path.clone();
    place(
        dir,
        move || Box::new(open(&path)),
        move || if seen.exists() { Contents::of_tar(&read(&seen)) } else { Contents::default() },
    )
}

fn archive() -> Place {
    in_file(|path| ArchiveSink::to_file(path).unwrap(), |path| fs::read(path).unwrap())
}

fn compressed() -> Place {
    let read = |path: &Path| {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut plain).unwrap();
        plain
    };
    in_file(|path| ArchiveSink::to_compressed(path, Coding::Gzip, None).unwrap(), read)
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn writer() -> Place {
    let buffer = Buffer::default();
    let seen = buffer.clone();
    let open = move || -> Box<dyn Sink> {
        buffer.0.lock().unwrap().clear();
        Box::new(ArchiveSink::to_writer(Box::new(buffer.clone()), "a pipe"))
    };
    place((), open, move || Contents::of_tar(&seen.0.lock().unwrap()))
}

const REPOSITORY: &str = "t/app";

fn registry() -> Place {
    let (double, cache) = (Arc::new(Double::start()), TempDir::new().unwrap());
    let [opened, seen, planted, failing] = [(); 4].map(|()| double.clone());
    let access = Access { cache_dir: Some(cache.path().to_owned()), ..access() };
    let open = move || -> Box<dyn Sink> {
        let registry = Registry::new(&opened.host(), access.clone(), Arc::new(Silent), Cancel::default());
        Box::new(registry.unwrap().sink(REPOSITORY))
    };
    let contents = move || {
        let (blobs, tags) = seen.contents(REPOSITORY);
        Contents { blobs: blobs.into_iter().collect(), tags }
    };
    let place = place(cache, open, contents);
    Place {
        plant: Some(Box::new(move |digest, bytes| planted.put_blob_at(REPOSITORY, digest, bytes))),
        fail_once: Some(Box::new(move || failing.faults().fail_to_store = 1)),
        ..place
    }
}

/// A command in place of an engine, which stores the archive.
fn custom_engine() -> Place {
    let dir = TempDir::new().unwrap();
    let path: PathBuf = dir.path().join("loaded.tar");
    let command = format!("cat >'{}'", path.display());
    let open = move || -> Box<dyn Sink> {
        let host = Arc::new(Local::new(&Cancel::default()));
        let found = detect(&*host, &[], None, Some(&command)).unwrap();
        Box::new(EngineSink::new(host, found, Arc::new(Silent), &Cancel::default()))
    };
    place(dir, open, move || fs::read(&path).map_or_else(|_| Contents::default(), |bytes| Contents::of_tar(&bytes)))
}

/// Answers as docker 20 does. `load` stores the archive, `image inspect` finds a name in its docker-save list.
const DOCKER: &str = r#"#!/bin/sh
case $1 in
    version) echo 20.10.24 ;;
    info) echo "linux/amd64 overlay2 [[Backing Filesystem extfs]]" ;;
    load) cat >"${0%/*}/loaded.tar" ;;
    image)
        shift 4
        for name; do
            tar -xOf "${0%/*}/loaded.tar" manifest.json 2>/dev/null | sed 's/},{/},\n{/g' | grep -F "$name\"" |
                sed 's,.*"Config":"blobs/sha256/\([0-9a-f]*\)".*,sha256:\1 {},' | grep sha256 || exit 1
        done ;;
esac
"#;

/// A script in place of docker, which the sink detects and whose images it verifies after the load.
fn docker() -> Place {
    let dir = TempDir::new().unwrap();
    let (script, path) = (dir.path().join("docker"), dir.path().join("loaded.tar"));
    fs::write(&script, DOCKER).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let programs = format!("{}:/usr/bin:/bin", dir.path().display());
    let open = move || -> Box<dyn Sink> {
        let host = Arc::new(Local::new(&Cancel::default()).with_env("PATH", &programs));
        let found = detect(&*host, &[Engine::Docker], None, None).unwrap();
        Box::new(EngineSink::new(host, found, Arc::new(Silent), &Cancel::default()))
    };
    place(dir, open, move || fs::read(&path).map_or_else(|_| Contents::default(), |bytes| Contents::of_tar(&bytes)))
}
