//! imgmv and containerd are killed at chosen bytes; the next run goes on at the byte.

use crate::daemon::{Containerd, NAMESPACE};
use crate::line::Line;
use crate::serve::Server;
use crate::support::docker_dir::tar_of;
use crate::support::noise::noise;
use crate::support::odd_layers::archive;
use crate::support::program::command;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const NAME: &str = "docker.io/t/big:1";
const MB: u64 = 1 << 20;
const LAYER_BYTES: u64 = 24 * MB;
/// The largest part that may be sent twice after a kill.
const TWICE_BYTES: u64 = 8 * MB;
/// Frames, headers and small blobs.
const OVERHEAD_BYTES: u64 = MB;

/// An archive of an image with one large layer, whose bytes differ for each `seed`.
fn image(dir: &Path, seed: u64) -> PathBuf {
    let layer = tar_of(&[("noise", &noise(seed, LAYER_BYTES as usize))]);
    archive(dir, NAME, &[layer])
}

/// Starts the copy of `source` through `socket`.
fn start(source: impl AsRef<OsStr>, socket: &Path) -> Child {
    let mut copy = command(env!("CARGO_BIN_EXE_imgmv"));
    copy.arg("copy").arg(source).arg(format!("containerd:{NAME}"));
    copy.arg("--dst-address").arg(socket).args(["--namespace", NAMESPACE]);
    copy.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finished(copy: Child) -> Output {
    copy.wait_with_output().unwrap()
}

fn check(containerd: &Containerd) {
    let table = containerd.ctr(&["images", "check", &format!("name=={NAME}")]);
    let row = table.lines().nth(1).unwrap_or_default();
    assert!(row.contains(" complete (") && row.contains("true"), "{:?}: {table}", containerd.release);
}

/// Byte counts at which something is killed, the same in each run.
fn seeded(count: u64) -> Vec<u64> {
    let bytes = noise(count, 8 * count as usize);
    let number = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().unwrap());
    bytes.chunks(8).map(|chunk| number(chunk) % (LAYER_BYTES - MB) + MB / 2).collect()
}

/// Ten in CI; the long form has `IMGMV_KILLS=100`.
fn kills() -> u64 {
    std::env::var("IMGMV_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Starts the copy of `source` and kills it when `at` bytes went through `socket`; the bytes that did.
fn killed_at(at: u64, source: impl AsRef<OsStr>, socket: &Path, containerd: &Containerd) -> u64 {
    let copy: Arc<Mutex<Option<Child>>> = Arc::default();
    let killed = copy.clone();
    let line = Line::new(socket, containerd.socket().as_ref(), at, move || {
        // The copy's first bytes may pass before it is stored here.
        loop {
            if let Some(copy) = &mut *killed.lock().unwrap() {
                return copy.kill().unwrap();
            }
        }
    });
    *copy.lock().unwrap() = Some(start(source, socket));
    while line.killed_nothing_yet() {
        std::thread::yield_now();
    }
    let ended = finished(copy.lock().unwrap().take().unwrap());
    assert!(!ended.status.success());
    line.up()
}

#[test]
fn a_killed_copy_is_resumed_at_the_byte() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        for (seed, at) in seeded(kills()).into_iter().enumerate() {
            let (file, socket) = (image(dir.path(), seed as u64), dir.path().join("line"));
            let sent = killed_at(at, &file, &socket, &containerd);
            let line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
            let ended = finished(start(&file, &socket));
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            let (again, most) = (line.up(), LAYER_BYTES + TWICE_BYTES + OVERHEAD_BYTES);
            assert!(sent + again <= most, "{:?}: {sent} and {again} bytes", containerd.release);
            assert!(again + MB >= LAYER_BYTES - sent, "{sent} and {again} bytes");
            check(&containerd);
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// The hash's state was saved, so that the bytes that containerd has are not downloaded again.
#[test]
fn a_killed_copy_from_a_registry_downloads_only_the_rest() {
    let Some(containerd) = Containerd::each().next() else { return };
    let dir = TempDir::new().unwrap();
    let file = image(dir.path(), 2000);
    let mut serve = command(env!("CARGO_BIN_EXE_imgmv"));
    let server = Server::spawn(serve.arg("serve").arg(file).args(["--listen", "127.0.0.1:0"]));
    let source = format!("docker://{}/t/big:1", server.host);
    let socket = dir.path().join("line");
    let sent = killed_at(20 * MB, &source, &socket, &containerd);
    let line = Line::new(&socket, containerd.socket().as_ref(), u64::MAX, || {});
    let ended = finished(start(&source, &socket));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("resuming at byte"), "{said}");
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert!(format!("{said}{stdout}").contains(" resumed, "), "{said} {stdout}");
    assert!(sent + line.up() <= LAYER_BYTES + TWICE_BYTES + OVERHEAD_BYTES);
    check(&containerd);
}

#[test]
fn a_killed_containerd_is_waited_for_and_gets_the_rest() {
    for containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        let target = PathBuf::from(containerd.socket());
        let containerd = Arc::new(Mutex::new(containerd));
        for (seed, at) in seeded(kills()).into_iter().enumerate() {
            let (file, socket) = (image(dir.path(), 1000 + seed as u64), dir.path().join("line"));
            let killed = containerd.clone();
            let line = Line::new(&socket, &target, at, move || {
                let mut containerd = killed.lock().unwrap();
                containerd.kill();
                containerd.run();
            });
            let ended = finished(start(&file, &socket));
            let containerd = containerd.lock().unwrap();
            let release = containerd.release;
            assert!(ended.status.success(), "{release:?}: {}", String::from_utf8_lossy(&ended.stderr));
            let (sent, most) = (line.up(), LAYER_BYTES + TWICE_BYTES + OVERHEAD_BYTES);
            assert!(sent <= most, "{release:?}: {sent} bytes");
            check(&containerd);
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// Without a line between them, the socket refuses connections until containerd has started again.
#[test]
fn a_killed_containerd_may_refuse_connections_meanwhile() {
    for mut containerd in Containerd::each() {
        let dir = TempDir::new().unwrap();
        let file = image(dir.path(), 7);
        let ingests = PathBuf::from(containerd.at("data")).join("io.containerd.content.v1.content/ingest");
        let mut copy = start(&file, containerd.socket().as_ref());
        let is_written = || std::fs::read_dir(&ingests).is_ok_and(|ingests| ingests.count() > 0);
        while !is_written() && copy.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        assert!(copy.try_wait().unwrap().is_none(), "it ended before the kill");
        containerd.kill();
        std::thread::sleep(std::time::Duration::from_millis(500));
        containerd.run();
        let ended = finished(copy);
        assert!(ended.status.success(), "{:?}: {}", containerd.release, String::from_utf8_lossy(&ended.stderr));
        check(&containerd);
    }
}
