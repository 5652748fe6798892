//! Far registries: what is asked for at the same time. Latency makes requests overlap; nothing is timed.

use super::support::fault_proxy::{Fault, Ill, Line};
use super::*;
use std::process::Stdio;
use std::time::Duration;

const FAR: Line = Line { latency: Duration::from_millis(200), ..Line::GOOD };

fn sixty(seed: u64) -> Vec<Vec<u8>> {
    (0..60).map(|nth| noise(seed + nth, 20_000)).collect()
}

#[test]
fn many_layers_are_asked_for_at_once_and_each_once() {
    let (double, dir) = (Double::start(), TempDir::new().unwrap());
    let layers = sixty(100);
    let image = double.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let line = Proxy::start(&double.host());
    line.is(FAR);
    let layout = dir.path().join("out");
    good(imgmv(&["copy", &format!("{}/app:1", line.host()), &format!("oci:{}", layout.display())], None));
    whole(&layout, &image);
    // The manifest, the config, 60 layers; the referrers and cosign's three tags.
    assert_eq!(line.seen("", "").len(), 66);
    assert!(line.traffic().most_at_once >= 16, "{:?}", line.traffic());
    // Into an archive, whose blobs come one after the other, as well.
    line.forget();
    line.is(FAR);
    let file = dir.path().join("out.tar");
    good(imgmv(&["copy", &format!("{}/app:1", line.host()), file.to_str().unwrap()], None));
    assert_eq!(line.seen("", "").len(), 66);
    assert!(line.traffic().most_at_once >= 16, "{:?}", line.traffic());
}

#[test]
fn many_layers_are_pushed_at_once_with_three_requests_each() {
    let (double, dir) = (Double::start(), TempDir::new().unwrap());
    let layers = sixty(200);
    let image = double.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let src = format!("oci:{}", dir.path().join("out").display());
    good(imgmv(&["copy", &format!("{}/app:1", double.host()), &src], None));
    let to = Double::start();
    let line = Proxy::start(&to.host());
    line.is(FAR);
    good(imgmv(&["copy", &src, &format!("{}/app:1", line.host()), "--compress", "keep"], None));
    assert_eq!(to.tag("app", "1"), Some(image.digest()));
    assert!(line.seen("", "").len() <= 61 * 3 + 2, "{}", line.seen("", "").len());
    assert!(line.traffic().most_at_once >= 16, "{:?}", line.traffic());
}

#[test]
fn a_large_blob_is_read_in_several_ranges_at_once_and_no_byte_twice() {
    let scene = Scene::new(40 << 20);
    scene.line.is(Line { latency: Duration::from_millis(200), rate: Some(40 << 20), ..FAR });
    good(scene.pull(&[]));
    scene.is_there();
    let asked = scene.asked();
    assert_eq!(asked.iter().map(|seen| seen.down).sum::<u64>(), scene.size);
    assert!(asked.len() > 8 && scene.line.traffic().most_at_once >= 4, "{:?}", scene.line.traffic());
}

/// A range of 2 MiB takes as long to come as to be asked for, at 10 MB/s and 200 ms: eight under way at once are four
/// times what one connection moves.
#[test]
fn a_line_with_little_for_each_connection_gets_four_times_as_much_over_many() {
    let scene = Scene::new(48 << 20);
    scene.line.is(Line { rate: Some(10_000_000), ..FAR });
    good(scene.pull(&[]));
    scene.is_there();
    let traffic = scene.line.traffic();
    assert!(traffic.most_at_once >= 8, "{traffic:?}");
    assert_eq!(scene.asked().iter().map(|seen| seen.down).sum::<u64>(), scene.size);
}

#[test]
fn a_registry_near_by_is_asked_once_for_a_large_blob() {
    let scene = Scene::new(40 << 20);
    good(scene.pull(&["--jobs", "1"]));
    scene.is_there();
    assert_eq!(scene.asked().len(), 1);
}

#[test]
fn a_far_registry_that_asks_for_patience_gets_it() {
    let scene = Scene::new(40 << 20);
    scene.line.is(FAR);
    scene.line.does(Fault::times(4, "GET", "/blobs/", Ill::Status { status: 429, retry_after: Some("0".into()) }));
    good(scene.pull(&[]));
    scene.is_there();
}

#[test]
fn a_far_server_that_knows_no_ranges_sends_a_large_blob_once() {
    let scene = Scene::new(40 << 20);
    scene.line.is(FAR);
    scene.line.does(Fault::times(1000, "GET", "/blobs/", Ill::RangeIgnored));
    good(scene.pull(&[]));
    scene.is_there();
    assert_eq!(scene.asked().iter().map(|seen| seen.down).sum::<u64>(), scene.size);
}

#[test]
fn one_job_is_one_connection() {
    let scene = Scene::new(40 << 20);
    scene.line.is(FAR);
    good(scene.pull(&["--jobs", "1"]));
    scene.is_there();
    assert_eq!((scene.asked().len(), scene.line.traffic().most_at_once), (1, 1));
    // Two are at most two and a question beside them.
    let scene = Scene::new(40 << 20);
    scene.line.is(Line { rate: Some(20 << 20), ..FAR });
    good(scene.pull(&["--jobs", "2"]));
    scene.is_there();
    assert!(scene.line.traffic().most_at_once <= 3, "{:?}", scene.line.traffic());
}

/// Of the program while it runs with `args`, in KiB.
fn peak(args: &[&str]) -> u64 {
    let mut program = super::support::program::command(env!("CARGO_BIN_EXE_imgmv"));
    let mut child = program.args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let said = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        most = most.max(said.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            return most;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn several_ranges_of_several_blobs_take_little_memory() {
    let (double, dir) = (Double::start(), TempDir::new().unwrap());
    let layers: Vec<Vec<u8>> = (0..6).map(|nth| noise(nth + 300, (24 << 20) + nth as usize)).collect();
    let image = double.image("app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let line = Proxy::start(&double.host());
    line.is(Line { rate: Some(40 << 20), ..FAR });
    let layout = dir.path().join("out");
    let kib = peak(&["copy", &format!("{}/app:1", line.host()), &format!("oci:{}", layout.display()), "-q"]);
    whole(&layout, &image);
    assert!(line.traffic().most_at_once >= 8, "{:?}", line.traffic());
    println!("peak of {kib} KiB, {} connections at once", line.traffic().most_at_once);
    assert!(kib < 64 << 10, "{kib} KiB");
}
