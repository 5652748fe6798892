//! The memory of a run, whatever its set has.

use super::scene::Scene;
use crate::support::noise::noise;
use crate::support::program::command;
use std::fmt::Write;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

/// The limit of 64 MiB, without the pages of the program, of which a debug build has more.
const MAX_PEAK_KIB: u64 = 50 << 10;
/// The lines of a long list, and the most memory for them: one of 20,000 lines must stay below the limit.
const LINES: usize = 12_000;
const MAX_LIST_KIB: u64 = 36 << 10;
const MIB: usize = 1 << 20;

/// Whether `imgmv sync` with `words` succeeds, and the most memory that it had besides its program's, in KiB.
fn peak(scene: &Scene, words: &[&str]) -> (bool, u64) {
    let words = words.iter().map(|word| word.replace("TO", &scene.to.host()));
    let mut child = command(env!("CARGO_BIN_EXE_imgmv"))
        .arg("sync")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        most = most.max(now);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.success(), most);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn many_images_at_the_same_time_need_little_memory() {
    let scene = Scene::new();
    let mut list = String::new();
    for at in 0..40 {
        let layers = [noise(at, 3 * MIB), noise(100 + at, MIB), noise(200 + at % 4, MIB)];
        scene.from.image(&format!("app{at}"), "1", &layers.each_ref().map(|layer| &layer[..]));
        let _ = writeln!(list, "FROM/app{at}:1");
    }
    let list = scene.write("images.txt", &list);
    for parallel in ["8", "64"] {
        let to = format!("TO/{parallel}/");
        let (done, most) = peak(&scene, &[&list, &to, "--parallel", parallel]);
        println!("{parallel} images at the same time: {most} KiB");
        assert!(done && most < MAX_PEAK_KIB, "{most} KiB");
    }
}

#[test]
fn a_long_list_needs_little_memory() {
    let scene = Scene::new();
    let digest = scene.image("team/application", "0", 1);
    let mut list = String::new();
    for tag in 0..LINES {
        scene.from.tag_as("team/application", &format!("1.{tag}-alpine"), digest);
        scene.to.tag_as("mirror/team/application", &format!("1.{tag}-alpine"), digest);
        let _ = writeln!(list, "FROM/team/application:1.{tag}-alpine");
    }
    let list = scene.write("images.txt", &list);
    let (done, most) = peak(&scene, &[&list, "TO/mirror/", "--no-referrers"]);
    println!("{LINES} lines: {most} KiB");
    assert!(done && most < MAX_LIST_KIB, "{most} KiB");
}
