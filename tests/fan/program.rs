//! The program itself, to several destinations: what the registry is asked for, what each of them gets, what is told.

use super::support::fault_proxy::{Line, Proxy};
use super::support::program::{Output, command, fixture, imgmv};
use super::support::registry::Double;
use crate::support::noise::noise;
use imgmv::Digest;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A registry with an image, and hosts that keep what they are sent in a folder.
struct Scene {
    registry: Double,
    dir: TempDir,
    layers: Vec<Vec<u8>>,
}

impl Scene {
    fn new(layers: usize, size: usize) -> Scene {
        let registry = Double::start();
        let layers: Vec<Vec<u8>> = (0..layers).map(|nth| noise(nth as u64 + 1, size + nth)).collect();
        registry.image("team/app", "1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let dir = TempDir::new().unwrap();
        let scene = Scene { registry, dir, layers };
        // The host before the last word, which a shell over there would run: here, with its name.
        let ssh = "#!/bin/bash\nexport HOST=${@: -2:1}\nexec sh -c \"${@: -1}\"\n";
        fs::write(scene.at("remote"), ssh).unwrap();
        fs::set_permissions(scene.at("remote"), fs::Permissions::from_mode(0o755)).unwrap();
        scene
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn source(&self) -> String {
        format!("{}/team/app:1", self.registry.host())
    }

    /// A copy of the image to `targets`; hosts keep the archive as `HOST.tar`, after what `first` does.
    fn copy(&self, targets: &[&str], more: &[&str], first: &str) -> Output {
        let keep = format!("{first}\ncat >{}/$HOST.tar", self.dir.path().display());
        let source = self.source();
        let common = ["--ssh", &self.at("remote"), "--remote-command", &keep];
        imgmv(&[&["copy", &source], targets, &common, more].concat(), None)
    }

    /// How often each of the source's blobs was asked for, at most.
    fn most(&self) -> usize {
        let blobs: Vec<String> = self
            .registry
            .requests()
            .iter()
            .filter(|r| r.method == "GET" && r.path.contains("/blobs/"))
            .map(|r| r.path.clone())
            .collect();
        blobs.iter().map(|path| blobs.iter().filter(|other| *other == path).count()).max().unwrap_or(0)
    }

    /// Whether the archive has every layer, and under each digest the bytes that it is of.
    fn is_whole(&self, archive: &str) -> bool {
        let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
        let mut blobs = HashSet::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            if let Some(hex) = path.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                assert_eq!(Digest::of(&bytes).hex(), hex);
                blobs.insert(hex.to_owned());
            }
        }
        self.layers.iter().all(|bytes| blobs.contains(&Digest::of(bytes).hex()))
    }
}

fn json(out: &Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|_| panic!("{}\n{}", out.stdout, out.stderr))
}

#[test]
fn five_destinations_of_every_kind_and_one_request_for_each_blob() {
    let scene = Scene::new(5, 900_000);
    let other = Double::start();
    let (file, layout) = (scene.at("file.tar"), format!("oci:{}:1", scene.at("layout")));
    let mirror = format!("{}/mirror/app:1", other.host());
    let targets = [&file, &layout, &mirror, "ssh://root@node{1..2}"];
    let out = scene.copy(&targets, &["--as", "app:1", "--json"], "");
    assert!(out.status.success(), "{}", out.stderr);
    assert_eq!(scene.most(), 1);
    assert_eq!(scene.registry.count("GET", "/manifests/"), 1);
    assert_eq!(scene.registry.count("GET", "/blobs/"), 6);
    for archive in [&file, &scene.at("node1.tar"), &scene.at("node2.tar")] {
        assert!(scene.is_whole(archive), "{archive}");
    }
    assert!(scene.layers.iter().all(|bytes| other.blob("mirror/app", &Digest::of(bytes)).is_some()));
    let told = json(&out);
    let words: Vec<&str> =
        told["destinations"].as_array().unwrap().iter().map(|d| d["destination"].as_str().unwrap()).collect();
    assert_eq!(words, [&file, &layout, &mirror, "ssh://root@node1", "ssh://root@node2"]);
}

#[test]
fn a_rerun_moves_only_what_is_missing_and_only_to_where_it_is() {
    let scene = Scene::new(3, 400_000);
    let other = Double::start();
    let layouts = ["a", "b"].map(|name| format!("oci:{}:1", scene.at(name)));
    let mirror = format!("{}/mirror/app:1", other.host());
    let targets = [&layouts[0][..], &layouts[1], &mirror];
    assert!(scene.copy(&targets, &[], "").status.success());
    fs::remove_dir_all(scene.at("b")).unwrap();
    scene.registry.forget_requests();
    let out = scene.copy(&targets, &["--json"], "");
    assert!(out.status.success(), "{}", out.stderr);
    assert_eq!((scene.registry.count("GET", "/blobs/"), scene.most()), (4, 1));
    let transferred: Vec<u64> = json(&out)["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["transferred"]["blobs"].as_u64().unwrap())
        .collect();
    assert_eq!(transferred, [0, 4, 0]);
}

#[test]
fn those_that_fail_are_named_and_the_others_are_done() {
    let scene = Scene::new(4, 900_000);
    let first = "case $HOST in node2) echo no space left >&2; exit 1;; node3) head -c 500000 >/dev/null; exit 1;; esac";
    let out = scene.copy(&["ssh://node{1..4}", &scene.at("file.tar")], &["--as", "app:1"], first);
    assert_eq!(out.status.code(), Some(9), "{}", out.stderr);
    assert!(
        out.stderr.contains("2 of 5 destinations failed") && out.stderr.contains("no space left"),
        "{}",
        out.stderr
    );
    // What holds for each host is said once.
    assert_eq!(out.stderr.matches("signatures and other referrers are not copied").count(), 1, "{}", out.stderr);
    for host in ["ssh://node1", "ssh://node2", "ssh://node3", "ssh://node4"] {
        assert_eq!(
            out.stderr
                .lines()
                .filter(|line| line.trim().starts_with(&format!("{host}: ")) && !line.contains("known"))
                .count(),
            1,
            "{}",
            out.stderr
        );
    }
    for archive in ["node1.tar", "node4.tar", "file.tar"] {
        assert!(scene.is_whole(&scene.at(archive)), "{archive}");
    }
    assert!(out.stdout.lines().count() == 1, "{}", out.stdout);
    assert_eq!(scene.most(), 1);
}

#[test]
fn hosts_come_from_a_file_and_wait_for_their_turn() {
    let scene = Scene::new(2, 300_000);
    fs::write(scene.at("hosts"), "# the rack\nnode{1..3}\nroot@node4 # the last\n").unwrap();
    // One at a time: whoever finds another at work fails.
    let dir = scene.dir.path().display().to_string();
    let first = format!("mkdir {dir}/lock || exit 1; sleep 0.2; trap 'rmdir {dir}/lock' EXIT");
    let out = scene.copy(&[], &["--hosts", &scene.at("hosts"), "--parallel", "1", "--as", "app:1"], &first);
    assert!(out.status.success(), "{}", out.stderr);
    for host in 1..=4 {
        assert!(scene.is_whole(&scene.at(&format!("node{host}.tar"))));
    }
}

/// `imgmv`, and the most memory it ever had, in KiB.
fn peak(arguments: &[&str], stdin: Stdio) -> (bool, u64) {
    let mut child =
        command(env!("CARGO_BIN_EXE_imgmv")).args(arguments).stdin(stdin).stdout(Stdio::null()).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut most = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        most = most.max(now);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.success(), most);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn fifty_hosts_share_one_reading_in_little_memory() {
    let scene = Scene::new(4, 3_000_000);
    let keep = format!("cksum >{}/$HOST.sum", scene.dir.path().display());
    let source = scene.source();
    let remote = scene.at("remote");
    let copy = ["copy", &source, "node{01..50}:", "--as", "app:1", "--ssh", &remote, "--remote-command", &keep, "-q"];
    let (done, most) = peak(&copy, Stdio::null());
    assert!(done);
    assert!(most < 64 << 10, "{most} KiB");
    println!("fifty hosts: {most} KiB, each blob read {} times at most", scene.most());
    let sums: HashSet<String> =
        (1..=50).map(|n| fs::read_to_string(scene.at(&format!("node{n:02}.sum"))).unwrap()).collect();
    assert_eq!(sums.len(), 1);
}

#[test]
fn a_pipe_goes_to_fifty_hosts_in_little_memory() {
    let scene = Scene::new(2, 9_000_000);
    let archive = scene.at("image.tar");
    assert!(imgmv(&["copy", &scene.source(), &archive, "--as", "app:1"], None).status.success());
    let mut cat = Command::new("cat").arg(&archive).stdout(Stdio::piped()).spawn().unwrap();
    let keep = format!("cksum >{}/$HOST.sum", scene.dir.path().display());
    let remote = scene.at("remote");
    let copy = ["copy", "-", "node{01..50}:", "--ssh", &remote, "--remote-command", &keep, "-q"];
    let (done, most) = peak(&copy, cat.stdout.take().unwrap().into());
    assert!(done && cat.wait().unwrap().success());
    assert!(most < 64 << 10, "{most} KiB");
    println!("fifty hosts from a pipe: {most} KiB");
}

#[test]
fn a_pipe_goes_to_everybody_in_both_of_dockers_forms() {
    let scene = Scene::new(1, 10);
    for name in ["hello-docker20.tar", "hello-docker28c.tar"] {
        let keep = format!("cat >{}/$HOST.tar", scene.dir.path().display());
        let (layout, file) = (format!("oci:{}", scene.at(name)), scene.at("file.tar"));
        let copy =
            ["copy", "-", "ssh://node{1..3}", &layout, &file, "--ssh", &scene.at("remote"), "--remote-command", &keep];
        let out = imgmv(&copy, Some(Path::new(&fixture(name))));
        assert!(out.status.success(), "{name}: {}", out.stderr);
        let digests = |place: &str| imgmv(&["digest", place], None).stdout;
        for place in ["node1.tar", "node2.tar", "node3.tar"] {
            assert_eq!(digests(&scene.at(place)), digests(&scene.at("node1.tar")));
        }
        assert!(imgmv(&["verify", &layout], None).status.success() && imgmv(&["verify", &file], None).status.success());
        let out = imgmv(&[&copy[..], &["--parallel", "4"]].concat(), Some(Path::new(&fixture(name))));
        assert_eq!(out.status.code(), Some(2));
        assert!(out.stderr.contains("--parallel 5"), "{}", out.stderr);
    }
}

#[test]
fn one_host_that_takes_nothing_does_not_keep_the_others_from_being_done() {
    let scene = Scene::new(2, 9_000_000);
    let dir = scene.dir.path().display().to_string();
    // It takes nothing until the other two are done.
    let first = format!(
        "case $HOST in node2) until [ -s {dir}/node1.done -a -s {dir}/node3.done ]; do sleep 0.05; done;; esac"
    );
    let first = format!("{first}; trap 'echo done >{dir}/$HOST.done' EXIT");
    let out = scene.copy(&["ssh://node{1..3}"], &["--as", "app:1"], &first);
    assert!(out.status.success(), "{}", out.stderr);
    assert!((1..=3).all(|host| scene.is_whole(&scene.at(&format!("node{host}.tar")))));
    assert_eq!(scene.most(), 2, "it reads by itself what the others have read");
}

#[test]
fn an_interrupt_ends_them_all() {
    let scene = Scene::new(4, 900_000);
    let line = Proxy::start(&scene.registry.host());
    line.is(Line { rate: Some(100_000), ..Line::default() });
    let source = format!("{}/team/app:1", line.host());
    let mut child = command(env!("CARGO_BIN_EXE_imgmv"))
        .args(["copy", &source, "node{1..3}:", &scene.at("out.tar"), "--as", "app:1"])
        .args(["--ssh", &scene.at("remote"), "--remote-command", "cat >/dev/null"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while line.traffic_now().down < 200_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!Path::new(&scene.at("out.tar")).exists());
}
