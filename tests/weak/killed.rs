//! `kill -9` at random moments: a moment is a number of bytes on the wire, so that it does not depend on a clock.

use super::support::program::command;
use super::*;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;

/// Of each direction.
const MOMENTS: u64 = 100;
const LAYERS: [usize; 4] = [1_700_000, 1_200_000, 600_000, 1000];

/// Any of `0..most`, the same in every run of the tests.
pub(super) fn moment(nth: u64, most: u64) -> u64 {
    u64::from_le_bytes(noise(nth + 1000, 8).try_into().unwrap()) % most
}

/// Runs the program until so many bytes have passed, and kills it before the next one does.
pub(super) fn killed(line: &Proxy, after: u64, args: &[&str]) {
    killed_with(line, after, args, TempDir::new().unwrap().path());
}

/// The same, with a cache of its own.
pub(super) fn killed_with(line: &Proxy, after: u64, args: &[&str], cache: &Path) {
    let (send, receive) = channel::<Child>();
    line.after(after, move || {
        let mut child = receive.recv().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
    let program = program.args(args).env("XDG_CACHE_HOME", cache);
    let program = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    send.send(program.spawn().unwrap()).unwrap();
    line.hooked();
    line.left_alone();
}

/// One run with a cache of its own: other tests have uploads in the common one.
fn with_cache(cache: &Path, args: &[&str]) -> std::process::Output {
    command(env!("CARGO_BIN_EXE_imgmv")).args(args).env("XDG_CACHE_HOME", cache).output().unwrap()
}

/// How many bytes of each blob lie in `layout` by the sums beside them.
fn verified(layout: &Path, digest: &Digest) -> u64 {
    let sums = std::fs::read(layout.join(format!(".imgmv-sha256-{}.sums", digest.hex()))).unwrap_or_default();
    sums.chunks_exact(12).last().map_or(0, |record| u64::from_le_bytes(record[..8].try_into().unwrap()))
}

fn layers() -> Vec<Vec<u8>> {
    LAYERS.iter().enumerate().map(|(nth, size)| noise(nth as u64 + 7, *size)).collect()
}

#[test]
fn a_killed_pull_is_gone_on_with_and_asks_for_nothing_twice() {
    let layers = layers();
    let (double, dir) = (Double::start(), TempDir::new().unwrap());
    let image = double.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let line = Proxy::start(&double.host());
    let src = format!("{}/app:1", line.host());
    let mut went_on = 0;
    for nth in 0..MOMENTS {
        let layout = dir.path().join(nth.to_string());
        let dst = format!("oci:{}", layout.display());
        line.forget();
        killed_with(&line, moment(nth, LAYERS.iter().sum::<usize>() as u64), &["copy", &src, &dst, "-q"], dir.path());
        let there = |digest: &Digest| layout.join("blobs/sha256").join(digest.hex()).exists();
        let before: Vec<(Digest, u64, bool)> = image
            .blobs()
            .iter()
            .map(|blob| (blob.digest, verified(&layout, &blob.digest), there(&blob.digest)))
            .collect();
        line.forget();
        good(imgmv(&["copy", &src, &dst, "-q"], None));
        whole(&layout, &image);
        assert_eq!(top(&layout), ["blobs", "index.json", "oci-layout"], "moment {nth}");
        for (digest, verified, there) in before {
            let asked = line.seen("GET", &digest.to_string());
            assert_eq!(asked.is_empty(), there, "moment {nth}: {digest}");
            assert!(asked.iter().all(|seen| seen.from() >= verified), "moment {nth}: {verified} of {asked:?}");
            went_on += u64::from(verified > 0);
        }
        std::fs::remove_dir_all(&layout).unwrap();
    }
    assert!(went_on > MOMENTS / 10, "only {went_on} partials were left: the moments are no test");
}

#[test]
fn a_killed_push_is_gone_on_with_and_sends_no_finished_blob_again() {
    let (from, dir) = (Double::start(), TempDir::new().unwrap());
    let image = from.image("app", "1", &layers().iter().map(Vec::as_slice).collect::<Vec<_>>());
    let src = format!("oci:{}", dir.path().join("layout").display());
    good(imgmv(&["copy", &format!("{}/app:1", from.host()), &src, "-q"], None));
    // Smaller blobs are sent at once, and again.
    let layers = layers();
    let large = |kept: &[u8]| kept.len() > 1 && layers[..2].iter().any(|layer| layer.starts_with(kept));
    let mut went_on = 0;
    for nth in 0..MOMENTS {
        let to = Double::start();
        let line = Proxy::start(&to.host());
        let dst = format!("{}/app:1", line.host());
        let args = ["copy", &src, &dst, "-q", "--compress", "keep"];
        killed_with(&line, moment(nth, LAYERS.iter().sum::<usize>() as u64), &args, dir.path());
        // Every request has come to its end there, too.
        while to.requests().len() < line.seen("", "").len() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let kept: usize = to.kept().iter().filter(|kept| large(kept)).map(Vec::len).sum();
        went_on += u64::from(kept > 0);
        let stored: Vec<Digest> = to.settled("app", image.blobs().iter().map(|blob| blob.digest));
        line.forget();
        assert!(with_cache(dir.path(), &args).status.success());
        assert_eq!(to.tag("app", "1"), Some(image.digest()), "moment {nth}");
        for blob in image.blobs() {
            assert_eq!(Digest::of(&to.blob("app", &blob.digest).unwrap()), blob.digest);
        }
        // Nothing is remembered of what has ended.
        let remembered = with_cache(dir.path(), &["cache"]).stdout;
        assert!(remembered.is_empty(), "moment {nth}: {}", String::from_utf8_lossy(&remembered));
        let missing =
            image.blobs().iter().filter(|blob| !stored.contains(&blob.digest)).map(|blob| blob.size).sum::<u64>();
        let sent: u64 = line.seen("PUT", "/uploads/").iter().map(|seen| seen.up).sum();
        assert!(sent <= missing - kept as u64, "moment {nth}: {sent} of {missing}, {kept} were kept");
        let closed = line.seen("PUT", "/uploads/").len();
        assert!(closed + stored.len() <= image.blobs().len(), "moment {nth}: {closed} sent, {} held", stored.len());
    }
    assert!(went_on > MOMENTS / 10, "only {went_on} uploads were left: the moments are no test");
}

#[test]
fn what_nobody_takes_up_is_removed_when_it_is_old_or_asked_for() {
    let scene = Scene::new(3 << 20);
    let left = |dir: &Path| top(dir).iter().filter(|name| name.starts_with(".imgmv-")).count();
    for nth in 0..2 {
        let dst = format!("oci:{}", scene.layout().display());
        let args = ["copy", &format!("{}/team/app:1", scene.line.host()), &dst, "-q"];
        killed_with(&scene.line, 2 << 20, &args, scene.dir.path());
        assert!(left(&scene.layout()) >= 2);
        match nth {
            0 => {
                let layout = scene.layout();
                assert!(with_cache(scene.dir.path(), &["cache", "prune", layout.to_str().unwrap()]).status.success());
            }
            _ => {
                let other = Double::start();
                other.image("other", "1", &[b"small"]);
                let src = format!("{}/other:1", other.host());
                good(imgmv(&["copy", &src, &dst, "-q"], None));
                assert!(left(&scene.layout()) >= 2);
                good(imgmv(&["copy", &src, &format!("{dst}:again"), "-q", "--keep-partials", "0"], None));
            }
        }
        assert_eq!(left(&scene.layout()), 0, "{nth}");
    }
}

#[test]
fn a_signal_ends_a_run_that_waits_and_the_next_one_goes_on() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let scene = Scene::new(3 << 20);
        let stall = super::support::fault_proxy::Ill::Stall { after: 2 << 20 };
        scene.line.does(super::support::fault_proxy::Fault::once("GET", "", stall).of(&scene.layer()));
        let dst = format!("oci:{}", scene.layout().display());
        let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
        let program = program.args(["copy", &format!("{}/team/app:1", scene.line.host()), &dst]);
        let (send, receive) = channel::<u32>();
        let partial = scene.layout().join(format!(".imgmv-sha256-{}.part", scene.layer().hex()));
        scene.line.after(2 << 20, move || {
            // It waits when it has written all that came but its last buffer.
            let written = || std::fs::metadata(&partial).map_or(0, |found| found.len());
            while written() < 1 << 20 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let pid = receive.recv().unwrap().to_string();
            std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        });
        let child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        send.send(child.id()).unwrap();
        // The time-out is 30 seconds and the stall has no end: only the signal ends this.
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(status));
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(told.contains("run the same command again"), "{told}");
        scene.line.forget();
        good(scene.pull(&[]));
        scene.is_there();
        assert!(scene.asked()[0].from() > 0);
    }
}
