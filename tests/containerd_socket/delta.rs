//! Only missing blobs go through the socket, those that containerd has stay while the copy runs, and an image is named
//! only when it is complete: the promises of the way by commands (`tests/delta`), by the socket.

use crate::daemon::{Containerd, NAMESPACE};
use crate::line::Line;
use crate::memory::Memory;
use crate::support::docker_dir::tar_of;
use crate::support::noise::noise;
use imgmv::internals::containerd::{Connection, Limits, LocalSocket, SocketSink};
use imgmv::internals::source::Wrapper;
use imgmv::{Cancel, Descriptor, Digest, Event, Options, Platform, Report, Result, Source, Store, Watch, copy};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tempfile::TempDir;

const NAME: &str = "docker.io/t/app:1";
const LAYER_BYTES: usize = 3 << 20;
/// What a copy may cost beside the layers that it has to send.
const BESIDE_BYTES: u64 = 64 << 10;

/// The last layer is the smallest, so that it is sent last.
fn layer(seed: u64) -> Vec<u8> {
    tar_of(&[("noise", &noise(seed, LAYER_BYTES - (seed as usize) * 4096))])
}

fn version(seeds: &[u64]) -> Memory {
    let mut memory = Memory::default();
    let layers: Vec<Vec<u8>> = seeds.iter().map(|&seed| layer(seed)).collect();
    let root = memory.image(&Platform::host().to_string(), &layers);
    memory.name(NAME, &root);
    memory
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Watch for Told {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) | Event::Detail(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

type Between = Box<dyn Fn() + Send + Sync>;

/// A store that calls `between` when its first layer is opened.
struct Watched {
    memory: Memory,
    between: Between,
    once: Once,
}

impl Wrapper for Watched {
    fn wrapped(&self) -> &dyn Store {
        &self.memory
    }

    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if blob.size > 100_000 {
            self.once.call_once(|| (self.between)());
        }
        self.memory.open(blob, from)
    }
}

/// A containerd, and a line before its socket.
struct Far {
    containerd: Containerd,
    line: Line,
    socket: PathBuf,
    _dir: TempDir,
}

struct Cost {
    report: Report,
    up: u64,
    said: String,
}

impl Far {
    fn each() -> impl Iterator<Item = Far> {
        Containerd::each().map(|containerd| {
            let dir = TempDir::new().unwrap();
            let socket = dir.path().join("line");
            let line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
            Far { containerd, line, socket, _dir: dir }
        })
    }

    /// Copies one blob after the other, the largest first.
    fn copy(&self, memory: Memory, verify: bool, between: Between) -> Result<Cost> {
        let before = self.line.up();
        let told = Arc::new(Told::default());
        let limits = Limits { timeout: Duration::from_secs(30), rate: None, cancel: Cancel::default() };
        let connection = Connection::new(Box::new(LocalSocket::new(self.socket.to_str().unwrap())), limits)?;
        let sink = SocketSink::open(Arc::new(connection), Some(NAMESPACE), verify, told.clone())?;
        let source = Source::Store(Arc::new(Watched { memory, between, once: Once::new() }));
        let options = Options { jobs: Some(1), ..Options::default() };
        let report = copy(source, &sink, &options, None, told.as_ref(), &Cancel::default())?;
        let said = told.0.lock().unwrap().join("\n");
        Ok(Cost { report, up: self.line.up() - before, said })
    }

    fn copied(&self, seeds: &[u64]) -> Cost {
        self.copy(version(seeds), false, Box::new(|| {})).unwrap()
    }

    /// ctr, from another thread.
    fn caller(&self, arguments: &[&str]) -> Between {
        let ctr = self.containerd.client_of(arguments);
        Box::new(move || assert!(ctr().is_some()))
    }

    fn is_complete(&self, layers: usize) {
        let table = self.containerd.ctr(&["images", "check", &format!("name=={NAME}")]);
        let complete = format!(" complete ({0}/{0})", layers + 1);
        let row = table.lines().nth(1).unwrap_or_default();
        assert!(row.contains(&complete) && row.contains("true"), "{:?}: {table}", self.containerd.release);
        assert_eq!(self.containerd.ctr(&["leases", "ls", "-q"]), "");
    }

    fn file_of(&self, blob: &Digest) -> PathBuf {
        Path::new(&self.containerd.at("data")).join("io.containerd.content.v1.content/blobs/sha256").join(blob.hex())
    }
}

#[test]
fn the_next_version_costs_what_is_new_in_it() {
    for far in Far::each() {
        let release = far.containerd.release;
        for (seeds, sent) in [(&[1, 2, 3][..], 4), (&[1, 2, 3], 0), (&[1, 2, 3, 4], 2)] {
            let cost = far.copied(seeds);
            assert_eq!(cost.report.transferred.blobs, sent, "{release:?} {seeds:?}: {}", cost.said);
            let most = (sent.saturating_sub(1) * (LAYER_BYTES + LAYER_BYTES / 100)) as u64 + BESIDE_BYTES;
            assert!(cost.up <= most, "{release:?} {seeds:?}: {} up", cost.up);
            far.is_complete(seeds.len());
        }
    }
}

#[test]
fn blobs_of_an_image_that_is_removed_meanwhile_stay() {
    for far in Far::each() {
        far.copied(&[1, 2]);
        let removed = far.caller(&["images", "rm", "--sync", NAME]);
        let next = far.copy(version(&[1, 2, 3]), false, removed).unwrap();
        assert_eq!(next.report.transferred.blobs, 2, "{:?}: {}", far.containerd.release, next.said);
        far.is_complete(3);
    }
}

#[test]
fn a_blob_that_is_removed_meanwhile_is_missed_before_the_image_gets_its_name() {
    for far in Far::each() {
        far.copied(&[1, 2]);
        let removed = far.caller(&["content", "rm", &Digest::of(&layer(2)).to_string()]);
        let next = far.copy(version(&[1, 2, 3]), false, removed).unwrap();
        let release = far.containerd.release;
        assert!(next.said.contains("disappeared; sending everything"), "{release:?}: {}", next.said);
        // None is sent if containerd's collection has not removed the bytes yet.
        assert!(next.report.transferred.blobs <= 1, "{release:?}: {}", next.said);
        far.is_complete(3);
    }
}

#[test]
fn a_damaged_blob_is_found_by_its_hash_and_sent_again() {
    for far in Far::each() {
        far.copied(&[1, 2]);
        let file = far.file_of(&Digest::of(&layer(2)));
        let mut bytes = fs::read(&file).unwrap();
        bytes[1000] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(far.copied(&[1, 2]).report.transferred.blobs, 0);
        let hashed = far.copy(version(&[1, 2]), true, Box::new(|| {})).unwrap();
        let release = far.containerd.release;
        assert_eq!(hashed.report.transferred.blobs, 1, "{release:?}: {}", hashed.said);
        assert!(hashed.said.contains("is damaged there"), "{release:?}: {}", hashed.said);
        assert!(fs::read(&file).unwrap() == layer(2), "{release:?}");
        far.is_complete(2);
    }
}
