//! What lies on the disk: damaged, wanted by two, old, or not to be written at all.

use super::support::fault_proxy::{End, Fault, Ill, Line};
use super::support::program::command;
use super::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A pull of 9 MiB that gave up after 5, and the file that it left.
fn cut() -> (Scene, PathBuf) {
    let scene = Scene::new(9 << 20);
    scene.line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 5 * MIB, end: End::Fin }).of(&scene.layer()));
    assert_eq!(scene.pull(&["--retry", "0"]).status.code(), Some(6));
    scene.line.forget();
    let partial = scene.layout().join(format!(".imgmv-sha256-{}.part", scene.layer().hex()));
    assert_eq!(fs::metadata(&partial).unwrap().len(), 5 * MIB);
    (scene, partial)
}

#[test]
fn a_damaged_partial_is_said_and_cut_back_to_what_is_right() {
    for (damaged, from) in [(3 * MIB + 17, 3 * MIB), (0, 0), (5 * MIB - 1, 5 * MIB - (256 << 10))] {
        let (scene, partial) = cut();
        let file = File::options().read(true).write(true).open(&partial).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, damaged).unwrap();
        file.write_all_at(&[byte[0] ^ 1], damaged).unwrap();
        let out = good(scene.pull(&[]));
        scene.is_there();
        assert!(
            out.stderr.contains(&format!("is damaged; resuming at {from} of {} bytes", scene.size)),
            "{}",
            out.stderr
        );
        assert_eq!(scene.asked()[0].from(), from);
    }
}

#[test]
fn a_partial_that_is_shorter_longer_or_without_its_sums_does_no_harm() {
    for (length, sums, from) in [(4 * MIB + 5, true, 4 * MIB), (7 * MIB, true, 5 * MIB), (5 * MIB, false, 0)] {
        let (scene, partial) = cut();
        File::options().write(true).open(&partial).unwrap().set_len(length).unwrap();
        if !sums {
            fs::remove_file(partial.with_extension("sums")).unwrap();
        }
        good(scene.pull(&[]));
        scene.is_there();
        assert_eq!(scene.asked()[0].from(), from, "{length}");
    }
}

#[test]
fn a_partial_is_gone_on_with_from_another_repository_of_another_registry() {
    let (scene, _) = cut();
    let other = Double::start();
    let image = other.image("elsewhere/base", "2", &[&noise(scene.size, scene.size as usize), b"one more"]);
    let line = Proxy::start(&other.host());
    let dst = format!("oci:{}", scene.layout().display());
    let out = good(imgmv(&["copy", &format!("{}/elsewhere/base:2", line.host()), &dst], None));
    whole(&scene.layout(), &image);
    assert!(out.stderr.contains("5.00 MiB resumed"), "{}", out.stderr);
    let asked = line.seen("GET", &scene.layer().to_string());
    assert_eq!(asked.iter().map(Seen::from).collect::<Vec<_>>(), [5 * MIB]);
}

#[test]
fn two_processes_that_want_one_blob_in_one_layout_both_end_well() {
    let scene = Scene::new(6 << 20);
    scene.line.is(Line { rate: Some(12 << 20), ..Line::default() });
    let src = format!("{}/team/app:1", scene.line.host());
    let dst = format!("oci:{}", scene.layout().display());
    let both = || {
        let mut program = command(env!("CARGO_BIN_EXE_imgmv"));
        program.args(["copy", &src, &dst]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        program.spawn().unwrap()
    };
    for child in [both(), both(), both()] {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    scene.is_there();
}

#[test]
fn a_partial_goes_when_it_is_older_than_it_may_be() {
    for (age, options, stays) in [
        (8, &[][..], false),
        (6, &[], true),
        (6, &["--keep-partials", "5"], false),
        (30, &["--keep-partials", "31"], true),
    ] {
        let (scene, partial) = cut();
        let file = File::options().write(true).open(&partial).unwrap();
        file.set_modified(SystemTime::now() - age * DAY).unwrap();
        scene.double.image("other", "1", &[b"small"]);
        let dst = format!("oci:{}", scene.layout().display());
        good(imgmv(&[&["copy", &format!("{}/other:1", scene.double.host()), &dst], options].concat(), None));
        assert_eq!((partial.exists(), partial.with_extension("sums").exists()), (stays, stays), "{age} {options:?}");
    }
}

#[test]
fn cache_prune_removes_what_cut_copies_left_but_not_what_is_newer_than_asked() {
    let (scene, partial) = cut();
    let layout = scene.layout();
    let prune = |older: &str| {
        let mut prune = command(env!("CARGO_BIN_EXE_imgmv"));
        prune.env("XDG_CACHE_HOME", scene.dir.path());
        prune.args(["cache", "prune", "--older-than", older]).arg(&layout).output().unwrap()
    };
    assert!(prune("1").status.success() && partial.exists());
    assert!(prune("0").status.success() && !partial.exists() && !partial.with_extension("sums").exists());
}

/// Runs `script` with the program as `$IMGMV` and a fresh tmpfs of `size` at `$AT`, which is gone with the script.
/// `None` where that may not be.
fn on_a_small_disk(dir: &Path, size: &str, script: &str) -> Option<std::process::Output> {
    let mount = format!("mount -t tmpfs -o size={size} imgmv-test \"$AT\" 2>/dev/null || exit 77\n{script}");
    let mut shell = Command::new("unshare");
    let from = command(env!("CARGO_BIN_EXE_imgmv"));
    shell.envs(from.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["--mount", "sh", "-c", &mount]).env("IMGMV", env!("CARGO_BIN_EXE_imgmv")).env("AT", dir);
    let out = shell.output().ok().filter(|out| out.status.code() != Some(77) && out.status.code() != Some(1));
    if out.is_none() {
        println!("skipped: no small disk can be mounted here");
    }
    out
}

#[test]
fn a_full_disk_is_told_and_what_was_there_stays() {
    let scene = Scene::new(9 << 20);
    scene.double.image("other", "1", &[b"small"]);
    let host = scene.double.host();
    let at = scene.dir.path().join("disk");
    fs::create_dir(&at).unwrap();
    let whole =
        "for blob in $AT/out/blobs/sha256/*; do [ $(sha256sum < $blob | cut -c1-64) = ${blob##*/} ] || exit 3; done";
    let script = format!(
        "$IMGMV copy -q {host}/other:1 oci:$AT/out:small || exit 2\n$IMGMV copy {host}/team/app:1 oci:$AT/out:1\n\
         echo status $?\n{whole}\n$IMGMV list oci:$AT/out\nmount -o remount,size=64m $AT || exit 4\n\
         $IMGMV copy -q {host}/team/app:1 oci:$AT/out:1 || exit 5\n{whole}\nls -A $AT/out"
    );
    let Some(out) = on_a_small_disk(&at, "4m", &script) else { return };
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{} {stdout} {stderr}", out.status);
    assert!(stdout.contains("status 8") && stdout.contains("small"), "{stdout} {stderr}");
    assert!(stdout.ends_with("blobs\nindex.json\noci-layout\n"), "{stdout}");
    assert!(stderr.contains("no space left") && stderr.contains("cannot write"), "{stderr}");
}

#[test]
fn a_destination_that_cannot_be_written_is_told_before_anything_is_fetched() {
    let scene = Scene::new(3 << 20);
    let host = scene.line.host();
    let at = scene.dir.path().join("disk");
    fs::create_dir(&at).unwrap();
    let script = format!(
        "mount -o remount,ro $AT || exit 4\n$IMGMV copy {host}/team/app:1 oci:$AT/out:1\necho status $?\n\
         $IMGMV copy {host}/team/app:1 $AT/out.tar\necho status $?"
    );
    let Some(out) = on_a_small_disk(&at, "4m", &script) else { return };
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(stdout.matches("status 8").count(), 2, "{stdout} {stderr}");
    assert!(stderr.contains("read-only"), "{stderr}");
    assert!(scene.line.traffic().down < 100_000, "{:?}", scene.line.traffic());
}

#[test]
fn a_cache_that_cannot_be_written_costs_a_sentence() {
    let scene = Scene::new(3 << 20);
    good(scene.pull(&[]));
    let cache = scene.dir.path().join("cache");
    fs::write(&cache, "a file in its place").unwrap();
    let to = Double::start();
    let push = |line: &str| {
        let src = format!("oci:{}", scene.layout().display());
        let args = ["copy", &src, &format!("{line}/app:1"), "--retry", "0", "--compress", "keep"];
        command(env!("CARGO_BIN_EXE_imgmv")).args(args).env("XDG_CACHE_HOME", &cache).output().unwrap()
    };
    let line = Proxy::start(&to.host());
    line.does(Fault::once("PUT", "/uploads/", Ill::CutUpload { after: MIB, end: End::Fin }));
    assert_eq!(push(&line.host()).status.code(), Some(6));
    let out = push(&line.host());
    assert!(out.status.success());
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(told.matches("cannot resume in the next run").count(), 1, "{told}");
    assert!(to.tag("app", "1").is_some());
}
