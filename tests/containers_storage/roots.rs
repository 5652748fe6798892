//! Which directories are storages, where they are, and what is said about those that are not.

use super::support::program::command;
use super::support::storage_dir::StorageDir;
use super::{app, app_layers, imgmv, try_imgmv};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use tempfile::TempDir;

fn told(root: &Path, status: i32, words: &[&str]) {
    let done = try_imgmv(root, &["copy", "containers-storage:t/app:1", "-"]);
    assert_eq!(done.status.code(), Some(status), "{}", done.stderr);
    for word in words {
        assert!(done.stderr.contains(word), "{word}: {}", done.stderr);
    }
}

#[test]
fn every_drivers_images_are_read_and_others_are_named() {
    let storage = app("overlay");
    let mut second = StorageDir::new("vfs");
    second.add(&["docker.io/t/second:1"], &app_layers());
    for part in ["vfs", "vfs-images", "vfs-layers"] {
        fs::rename(second.dir.path().join(part), storage.dir.path().join(part)).unwrap();
    }
    fs::create_dir(storage.dir.path().join("btrfs-images")).unwrap();
    let done = imgmv(storage.dir.path(), &["list", "containers-storage:"]);
    assert_eq!(done.stdout, "docker.io/t/app:1\ndocker.io/t/second:1\n");
    assert!(done.stderr.contains("the storage driver btrfs are not read"), "{}", done.stderr);
    imgmv(storage.dir.path(), &["copy", "containers-storage:t/second:1", "-"]);
}

#[test]
fn a_directory_that_is_not_a_storage_is_told_with_the_way_around() {
    let only = TempDir::new().unwrap();
    fs::create_dir(only.path().join("zfs-images")).unwrap();
    told(only.path(), 3, &["storage driver zfs", "podman save"]);
    let unused = TempDir::new().unwrap();
    fs::write(unused.path().join("storage.lock"), "").unwrap();
    told(unused.path(), 3, &["has no image"]);
    let empty = TempDir::new().unwrap();
    told(empty.path(), 3, &["is not a storage", "--src-root"]);
    let disk = TempDir::new().unwrap();
    fs::create_dir_all(disk.path().join("var/lib/containers/storage")).unwrap();
    told(disk.path(), 3, &[disk.path().join("var/lib/containers/storage").to_str().unwrap()]);
    told(&disk.path().join("nowhere"), 3, &["does not exist", "--src-root"]);
    let none = StorageDir::new("overlay");
    let done = try_imgmv(none.dir.path(), &["copy", "containers-storage:", "-"]);
    assert!(done.stderr.contains("has no image (storage driver overlay)"), "{}", done.stderr);
}

#[test]
fn the_storage_of_a_user_and_that_of_storage_conf_are_found() {
    let storage = app("overlay");
    let home = TempDir::new().unwrap();
    let own = home.path().join(".local/share/containers/storage");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::rename(storage.dir.path(), &own).unwrap();
    let list = |change: &dyn Fn(&mut std::process::Command)| {
        let mut run = command(env!("CARGO_BIN_EXE_imgmv"));
        run.args(["list", "containers-storage:"]).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME");
        run.env_remove("CONTAINERS_STORAGE_CONF").env_remove("_CONTAINERS_ROOTLESS_UID");
        change(&mut run);
        let done = run.output().unwrap();
        let (said, stdout) = (String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
        format!("{stdout}{said}")
    };
    // As inside podman unshare.
    let unshared = list(&|run| {
        run.env("_CONTAINERS_ROOTLESS_UID", "1000");
    });
    assert_eq!(unshared, "docker.io/t/app:1\n");
    let moved = home.path().join("moved");
    fs::rename(&own, &moved).unwrap();
    let conf = home.path().join(".config/containers/storage.conf");
    fs::create_dir_all(conf.parent().unwrap()).unwrap();
    fs::write(&conf, "[storage]\ngraphroot = \"$HOME/moved\"\n").unwrap();
    assert_eq!(
        list(&|run| {
            run.env("_CONTAINERS_ROOTLESS_UID", "1000");
        }),
        "docker.io/t/app:1\n"
    );
    assert_eq!(
        list(&|run| {
            run.env("CONTAINERS_STORAGE_CONF", &conf);
        }),
        "docker.io/t/app:1\n"
    );
    fs::rename(&moved, home.path().join("away")).unwrap();
    let gone = list(&|run| {
        run.env("CONTAINERS_STORAGE_CONF", &conf);
    });
    assert!(gone.contains(moved.to_str().unwrap()) && gone.contains("graphroot of"), "{gone}");
}

#[test]
fn a_storage_of_another_user_needs_that_user() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can give a directory to root");
    }
    let storage = app("overlay");
    let program = TempDir::new().unwrap();
    let copied = program.path().join("imgmv");
    fs::copy(env!("CARGO_BIN_EXE_imgmv"), &copied).unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(storage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let top = storage.layers[0]["id"].as_str().unwrap();
    let file = format!("overlay/{top}/diff/etc/passwd");
    for (private, open) in
        [("", 0o755), ("overlay-images", 0o755), ("overlay-layers/layers.json", 0o644), (&*file, 0o644)]
    {
        let private = storage.dir.path().join(private);
        fs::set_permissions(&private, fs::Permissions::from_mode(0o000)).unwrap();
        let root = storage.dir.path().display().to_string();
        let mut run = command(copied.to_str().unwrap());
        run.args(["copy", "containers-storage:t/app:1", "-", "--src-root", &root]).uid(65534).gid(65534);
        let done = run.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(4), "{private:?}: {said}");
        assert!(said.contains("run imgmv as root, or inside podman unshare"), "{said}");
        fs::set_permissions(&private, fs::Permissions::from_mode(open)).unwrap();
    }
}
