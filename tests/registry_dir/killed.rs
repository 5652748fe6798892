//! `kill -9` at the n-th call that changes the disk: no name ever leads to something that is missing.
//!
//! strace counts the calls, so no point depends on a clock. `IMGMV_KILLS` is the number of points: 10 without it, 100 in
//! the long form.

use super::*;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use support::noise::noise;
use support::program::{command, peer};

/// The calls that change the disk.
const CALLS: &str = "write,pwrite64,mkdirat,renameat,renameat2,unlinkat,fchown,fchmod,ftruncate,fsync,fallocate";

/// What a copy changes: a tag that moves, a new tag, and a new repository.
fn wanted() -> Memory {
    let mut memory = Memory::default();
    let amd = memory.image("linux/amd64", &[layer(1, 900_000), layer(2, 2_000)]);
    let arm = memory.image("linux/arm64", &[layer(3, 400_000), layer(2, 2_000)]);
    let index = memory.index(&[amd.clone(), arm]);
    memory.name("h.lan/t/app:1", &index);
    memory.name("h.lan/t/app:new", &amd);
    memory.name("h.lan/t/other:1", &index);
    memory
}

struct Scene {
    dir: Dir,
    source: String,
    wanted: Memory,
}

impl Scene {
    fn new() -> Scene {
        let (dir, wanted) = (Dir::new(), wanted());
        let layout = dir.at("layout");
        let sink = imgmv::internals::layout::LayoutSink::open(&layout, BlobCheck::Size, Arc::new(Silent)).unwrap();
        put(Arc::new(wanted.clone()), &sink).unwrap();
        drop(sink);
        Scene { source: format!("oci:{}", layout.display()), dir, wanted }
    }

    /// A tree with the image that has the tag before.
    fn start_again(&self) {
        let _ = fs::remove_dir_all(self.dir.tree.root());
        self.dir.put(&one(7, 5_000, "h.lan/t/app:1")).unwrap();
    }

    fn strace(&self, args: &[String]) -> std::process::Output {
        let mut strace = command("strace");
        strace.args(["-f", "-qq"]).args(args).arg(env!("CARGO_BIN_EXE_imgmv"));
        strace.args(["copy", "-q", "--compress", "keep", "--jobs", "2", &self.source, &self.dir.address("")]);
        strace.stdin(Stdio::null()).output().unwrap()
    }

    /// The most calls of each kind that one thread makes in an undisturbed copy.
    fn calls(&self) -> BTreeMap<String, u64> {
        self.start_again();
        let log = self.dir.at("log");
        let output = self.strace(&["-o".into(), log.display().to_string(), "-e".into(), format!("trace={CALLS}")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.is_complete();
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        for line in fs::read_to_string(log).unwrap().lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim().split_once('(') else { continue };
            *counts.entry((call.to_owned(), thread.to_owned())).or_default() += 1;
        }
        let mut most: BTreeMap<String, u64> = BTreeMap::new();
        for ((call, _), count) in counts {
            let known = most.entry(call).or_default();
            *known = count.max(*known);
        }
        most.retain(|call, _| CALLS.split(',').any(|known| known == call));
        most
    }

    fn is_complete(&self) {
        assert_eq!(self.dir.tree.resolves(), 3);
        let index = self.wanted.roots[0].descriptor.digest;
        assert_eq!(self.dir.tree.tags("t/app")["1"], index);
        assert_eq!(self.dir.tree.tags("t/other")["1"], index);
        assert!(self.dir.tree.unfinished().is_empty(), "{:?}", self.dir.tree.unfinished());
    }
}

#[test]
fn a_killed_copy_shows_no_name_that_does_not_resolve() {
    if peer("strace").is_none() {
        return;
    }
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        assert_ne!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref(), Ok("1"), "strace may not trace");
        return println!("skipped: strace may not trace");
    }
    let points = std::env::var("IMGMV_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let scene = Scene::new();
    let calls: Vec<(String, u64)> = scene.calls().into_iter().collect();
    let total: u64 = calls.iter().map(|(_, count)| count).sum();
    let (mut killed, mut cut, mut named) = (0, 0, 0);
    for nth in 0..points {
        // Each kind of call as often as any other: most calls write data, and few of them names.
        let draw = |of: u64, most: u64| u64::from_le_bytes(noise(nth * 2 + of, 8).try_into().unwrap()) % most;
        let (call, count) = &calls[draw(77, calls.len() as u64) as usize];
        let at = draw(78, *count);
        scene.start_again();
        let inject = format!("inject={call}:signal=SIGKILL:when={}", at + 1);
        let output =
            scene.strace(&["-o".into(), "/dev/null".into(), "-e".into(), format!("trace={call}"), "-e".into(), inject]);
        let point = format!("point {nth}: {call} {} of {count}", at + 1);
        killed += u64::from(!output.status.success());
        named += u64::from(scene.dir.tree.resolves() > 1);
        for path in scene.dir.tree.unfinished() {
            cut += 1;
            assert!(path.starts_with("blobs/sha256/.imgmv-"), "{point}: {path}");
        }
        let again = command(env!("CARGO_BIN_EXE_imgmv"))
            .args(["copy", "-q", "--compress", "keep", &scene.source, &scene.dir.address("")])
            .output()
            .unwrap();
        assert!(again.status.success(), "{point}: {}", String::from_utf8_lossy(&again.stderr));
        scene.is_complete();
    }
    println!("{points} points of {total} calls: {killed} killed, {named} after a name, {cut} unfinished files left");
    assert!(killed * 2 > points && cut > 0, "the points are no test");
}

/// A new tree is made in one step too.
#[test]
fn a_killed_copy_to_a_new_tree_can_be_run_again() {
    if peer("strace").is_none() {
        return;
    }
    let scene = Scene::new();
    for when in [1, 2, 4, 7, 12] {
        let _ = fs::remove_dir_all(scene.dir.tree.root());
        let inject = format!("inject=mkdirat:signal=SIGKILL:when={when}");
        scene.strace(&["-o".into(), "/dev/null".into(), "-e".into(), "trace=mkdirat".into(), "-e".into(), inject]);
        let again = command(env!("CARGO_BIN_EXE_imgmv"))
            .args(["copy", "-q", "--compress", "keep", &scene.source, &scene.dir.address("")])
            .output()
            .unwrap();
        assert!(again.status.success(), "{when}: {}", String::from_utf8_lossy(&again.stderr));
        scene.is_complete();
        let top: Vec<_> =
            fs::read_dir(scene.dir.tree.root()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(top, ["docker"], "{when}");
    }
}
