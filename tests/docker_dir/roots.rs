//! Which directories are docker's, and what is said about those that are not.

use super::support::program::{command, peer};
use super::{app, imgmv, try_imgmv};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

fn told(root: &Path, status: i32, words: &[&str]) {
    let done = try_imgmv(root, &["copy", "docker-dir:t/app:1", "-"]);
    assert_eq!(done.status.code(), Some(status), "{}", done.stderr);
    for word in words {
        assert!(done.stderr.contains(word), "{word}: {}", done.stderr);
    }
}

fn listed(root: &Path) -> String {
    imgmv(root, &["list", "docker-dir:"]).stdout
}

#[test]
fn the_directory_of_a_remapped_user_is_found() {
    let docker = app("overlay2");
    let outer = TempDir::new().unwrap();
    fs::rename(docker.dir.path(), outer.path().join("200000.200000")).unwrap();
    assert_eq!(listed(outer.path()), "docker.io/t/app:1\n");
    imgmv(outer.path(), &["copy", "docker-dir:t/app:1", "-"]);
}

#[test]
fn the_directory_of_a_rootless_docker_is_found() {
    let docker = app("fuse-overlayfs");
    let home = TempDir::new().unwrap();
    fs::create_dir_all(home.path().join(".local/share")).unwrap();
    fs::rename(docker.dir.path(), home.path().join(".local/share/docker")).unwrap();
    for (variable, value) in [("HOME", home.path().to_owned()), ("XDG_DATA_HOME", home.path().join(".local/share"))] {
        let mut run = command(env!("CARGO_BIN_EXE_imgmv"));
        let done = run.args(["list", "docker-dir:"]).env(variable, value).output().unwrap();
        let (said, stdout) = (String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
        assert!(stdout.contains("docker.io/t/app:1\n"), "{variable}: {stdout}{said}");
    }
}

#[test]
fn every_drivers_store_is_read_and_others_are_named() {
    let docker = app("overlay2");
    let second = {
        let mut second = super::DockerDir::new("vfs");
        second.add(&["t/second:1"], &super::app_layers());
        second
    };
    fs::rename(second.dir.path().join("image/vfs"), docker.dir.path().join("image/vfs")).unwrap();
    fs::rename(second.dir.path().join("vfs"), docker.dir.path().join("vfs")).unwrap();
    fs::create_dir(docker.dir.path().join("image/btrfs")).unwrap();
    let done = imgmv(docker.dir.path(), &["list", "docker-dir:"]);
    assert_eq!(done.stdout, "docker.io/t/app:1\ndocker.io/t/second:1\n");
    assert!(done.stderr.contains("the graph driver btrfs are not read"), "{}", done.stderr);
    imgmv(docker.dir.path(), &["copy", "docker-dir:t/second:1", "-"]);
}

/// containerd's directory of a docker, with images in the namespaces `default` and `k8s.io`.
fn containerd_of_others(root: &Path) {
    let directory = root.join("containerd/daemon/io.containerd.metadata.v1.bolt");
    fs::create_dir_all(&directory).unwrap();
    let packed = fs::File::open("fixtures/bolt/ctr21.meta.db.gz").unwrap();
    let mut database = fs::File::create(directory.join("meta.db")).unwrap();
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut database).unwrap();
}

#[test]
fn images_in_namespaces_that_are_not_dockers_are_named() {
    let root = TempDir::new().unwrap();
    containerd_of_others(root.path());
    told(root.path(), 3, &["images in the namespace default, k8s.io", "--src-namespace default"]);
    let docker = app("overlay2");
    containerd_of_others(docker.dir.path());
    let done = imgmv(docker.dir.path(), &["list", "docker-dir:"]);
    assert_eq!(done.stdout, "docker.io/t/app:1\n");
    assert!(done.stderr.contains("images in the namespace default, k8s.io"), "{}", done.stderr);
}

#[test]
fn a_store_that_cannot_be_read_is_named_with_the_way_around() {
    for driver in ["btrfs", "zfs", "devicemapper", "aufs"] {
        let root = TempDir::new().unwrap();
        fs::create_dir_all(root.path().join("image").join(driver)).unwrap();
        told(root.path(), 3, &[driver, "start that docker", "docker-daemon:REF"]);
    }
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("containers")).unwrap();
    told(root.path(), 3, &["has no image store", "containerd:REF --src-namespace moby"]);
    let empty = TempDir::new().unwrap();
    told(empty.path(), 3, &["is not docker's directory", "--src-root"]);
    let disk = TempDir::new().unwrap();
    fs::create_dir_all(disk.path().join("var/lib/docker")).unwrap();
    told(disk.path(), 3, &[disk.path().join("var/lib/docker").to_str().unwrap()]);
    told(&disk.path().join("nowhere"), 3, &["no docker directory at"]);
    let none = super::DockerDir::new("overlay2");
    let done = try_imgmv(none.dir.path(), &["copy", "docker-dir:", "-"]);
    assert!(done.stderr.contains("has no image (graph driver overlay2)"), "{}", done.stderr);
}

#[test]
fn a_directory_of_root_needs_root() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can give a directory to root");
    }
    let docker = app("overlay2");
    let program = TempDir::new().unwrap();
    let copied = program.path().join("imgmv");
    fs::copy(env!("CARGO_BIN_EXE_imgmv"), &copied).unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(docker.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for private in ["", "image"] {
        let private = docker.dir.path().join(private);
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
        let root = docker.dir.path().display().to_string();
        let mut run = command(copied.to_str().unwrap());
        let done = run.args(["list", "docker-dir:", "--src-root", &root]).uid(65534).gid(65534).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(4), "{said}");
        assert!(said.contains("run imgmv as root"), "{said}");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// gVisor and old seccomp profiles: the call is missing, or forbidden.
#[test]
fn a_directory_is_read_where_the_kernel_does_not_resolve_paths() {
    if peer("strace").is_none() {
        return;
    }
    let docker = app("overlay2");
    let root = docker.dir.path().display().to_string();
    for errno in ["ENOSYS", "EPERM"] {
        let (out, log) = (docker.dir.path().join(errno), docker.dir.path().join("log"));
        let mut strace = command("strace");
        strace.args(["-f", "-qq", "-e", "trace=openat2", "-e", &format!("inject=openat2:error={errno}"), "-o"]);
        strace.arg(&log).arg(env!("CARGO_BIN_EXE_imgmv"));
        strace.args(["copy", "docker-dir:t/app:1", &format!("docker-archive:{}", out.display()), "--src-root", &root]);
        let done = strace.output().unwrap();
        if !log.exists() {
            assert_ne!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref(), Ok("1"), "strace may not trace");
            return println!("skipped: strace may not trace");
        }
        assert!(done.status.success(), "{errno}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(fs::read_to_string(&log).unwrap().contains("(INJECTED)"), "{errno}: openat2 was not called");
        assert!(out.metadata().unwrap().len() > 300_000, "{errno}");
    }
}

/// docker's driver was changed: both have an image of the same name.
#[test]
fn a_name_of_two_drivers_is_that_of_the_driver_that_was_used_last() {
    let (mut docker, mut second) = (super::DockerDir::new("overlay2"), super::DockerDir::new("vfs"));
    let overlay2 = docker.add(&["t/app:1"], &[super::tar_of(&[("f", b"overlay2")])]);
    docker.add(&["t/own:1"], &[super::tar_of(&[("f", b"own")])]);
    let vfs = second.add(&["t/app:1"], &[super::tar_of(&[("f", b"vfs")])]);
    let root = docker.dir.path();
    for directory in ["image/vfs", "vfs"] {
        fs::rename(second.dir.path().join(directory), root.join(directory)).unwrap();
    }
    for (last, used, other) in [("overlay2", overlay2, vfs), ("vfs", vfs, overlay2)] {
        for (nth, driver) in ["overlay2", "vfs"].into_iter().enumerate() {
            let names = fs::File::options().write(true).open(root.join("image").join(driver).join("repositories.json"));
            let time = UNIX_EPOCH + Duration::from_secs(if driver == last { 2000 } else { 1000 + nth as u64 });
            names.unwrap().set_modified(time).unwrap();
        }
        let mut expected = [used, other].map(|id| format!("docker.io/t/app:1@{id}"));
        expected.sort();
        assert_eq!(listed(root), format!("{}\n{}\ndocker.io/t/own:1\n", expected[0], expected[1]));
        let told = format!("docker.io/t/app:1 is also the name of image {other} of the storage driver");
        let out = root.join(format!("{last}.tar")).display().to_string();
        let copied = imgmv(root, &["copy", "docker-dir:", &out]);
        assert!(copied.stderr.contains(&told), "{told}: {}", copied.stderr);
        let archive = super::support::program::imgmv(&["list", &out], None).stdout;
        assert_eq!(archive.lines().filter(|line| line.starts_with('@')).count(), 1, "{archive}");
        let inspected =
            super::support::program::imgmv(&["inspect", &format!("docker-archive:{out}:t/app:1"), "--json"], None)
                .stdout;
        assert!(inspected.contains(&used.to_string()), "{last}: {inspected}");
        let plain = imgmv(root, &["inspect", "docker-dir:t/app:1", "--json"]);
        assert!(plain.stdout.contains(&used.to_string()) && plain.stderr.contains(&told), "{}", plain.stderr);
        for id in [used, other] {
            let inspected = imgmv(root, &["inspect", &format!("docker-dir:t/app:1@{id}"), "--json"]).stdout;
            assert!(inspected.contains(&id.to_string()) && inspected.contains("docker.io/t/app:1"), "{inspected}");
        }
        imgmv(root, &["verify", "docker-dir:"]);
    }
}
