//! Which directories are storages, where they are, and what is said about those that are not.

use super::support::docker_dir::tar_of;
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

/// Runs the program with `conf` as the `storage.conf`.
fn with_conf(home: &Path, conf: &str, arguments: &[&str]) -> (bool, String, String) {
    let file = home.join("storage.conf");
    fs::write(&file, conf).unwrap();
    let mut run = command(env!("CARGO_BIN_EXE_imgmv"));
    let done = run.args(arguments).env("CONTAINERS_STORAGE_CONF", &file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.success(), text(&done.stdout), text(&done.stderr))
}

/// podman's `--imagestore`: the tar-splits stay in the graphroot, all else of an image is in the other directory.
#[test]
fn images_in_an_imagestore_are_read_with_the_tar_splits_of_the_graphroot() {
    for driver in ["overlay", "vfs"] {
        let (storage, home, images) = (app(driver), TempDir::new().unwrap(), TempDir::new().unwrap());
        let root = storage.dir.path();
        let layers = format!("{driver}-layers");
        fs::create_dir(images.path().join(&layers)).unwrap();
        for part in [driver, &format!("{driver}-images"), &format!("{layers}/layers.json")] {
            fs::rename(root.join(part), images.path().join(part)).unwrap();
        }
        let conf = format!("[storage]\ngraphroot = {root:?}\nimagestore = {:?}\n", images.path());
        let out = home.path().join("out.tar").display().to_string();
        let (ok, _, said) = with_conf(home.path(), &conf, &["copy", "containers-storage:t/app:1", &out]);
        assert!(ok, "{driver}: {said}");
        // The graphroot given by hand is the same storage.
        let given = ["list", "containers-storage:", "--src-root", root.to_str().unwrap()];
        let (_, listed, said) = with_conf(home.path(), &conf, &given);
        assert_eq!(listed, "docker.io/t/app:1\n", "{said}");
        // Alone it is not called damaged.
        let done = try_imgmv(images.path(), &["copy", "containers-storage:t/app:1", "-"]);
        assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
        assert!(done.stderr.contains("CONTAINERS_STORAGE_CONF") && !done.stderr.contains("damaged"), "{}", done.stderr);
    }
}

#[test]
fn images_and_layers_in_additional_image_stores_are_read() {
    let layers = app_layers();
    let mut additional = StorageDir::new("overlay");
    let base = additional.add(&["docker.io/t/base:1", "docker.io/t/both:1"], &layers[..1]);
    let mut own = app("overlay");
    own.add(&["docker.io/t/both:1"], &layers);
    // An image that was built on one of the additional store has only its own layers.
    let lower = own.layers.remove(0);
    own.write();
    let lower = format!("sha256:{}", lower["id"].as_str().unwrap()).parse().unwrap();
    fs::remove_file(own.tar_split(&lower)).unwrap();
    fs::remove_dir_all(own.files(&lower)).unwrap();
    let home = TempDir::new().unwrap();
    let conf = format!(
        "[storage]\ngraphroot = {:?}\n[storage.options]\nadditionalimagestores = [\n  {:?}, # one\n  \"/nowhere\",\n]\n",
        own.dir.path(),
        additional.dir.path()
    );
    let (_, listed, said) = with_conf(home.path(), &conf, &["list", "containers-storage:"]);
    assert_eq!(listed, "docker.io/t/app:1\ndocker.io/t/base:1\ndocker.io/t/both:1\n", "{said}");
    assert!(said.contains("/nowhere (additionalimagestores of"), "{said}");
    for name in ["t/app:1", "t/base:1", "t/both:1", &base.hex()[..12]] {
        let (ok, _, said) = with_conf(home.path(), &conf, &["copy", &format!("containers-storage:{name}"), "-"]);
        assert!(ok, "{name}: {said}");
    }
    // The own image has the name, as for podman.
    let digest = |name: &str| {
        let (ok, stdout, said) = with_conf(home.path(), &conf, &["digest", &format!("containers-storage:{name}")]);
        assert!(ok, "{said}");
        stdout
    };
    assert!(digest("t/both:1") == digest("t/app:1") && digest("t/both:1") != digest("t/base:1"));
    let done = try_imgmv(own.dir.path(), &["copy", "containers-storage:t/app:1", "-"]);
    assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
    assert!(done.stderr.contains("additionalimagestores") && !done.stderr.contains("damaged"), "{}", done.stderr);
}

/// podman's driver was changed: both have an image of the same name.
#[test]
fn a_name_of_two_drivers_is_that_of_the_driver_of_storage_conf() {
    let (mut storage, mut second) = (StorageDir::new("overlay"), StorageDir::new("vfs"));
    let overlay = storage.add(&["docker.io/t/app:1"], &[tar_of(&[("f", b"overlay")])]);
    let vfs = second.add(&["docker.io/t/app:1"], &[tar_of(&[("f", b"vfs")])]);
    let (root, home) = (storage.dir.path(), TempDir::new().unwrap());
    for part in ["vfs", "vfs-images", "vfs-layers"] {
        fs::rename(second.dir.path().join(part), root.join(part)).unwrap();
    }
    for (driver, used, other) in [("overlay", overlay, vfs), ("vfs", vfs, overlay)] {
        let conf = format!("[storage]\ndriver = \"{driver}\"\ngraphroot = \"{}\"\n", root.display());
        let run = |arguments: &[&str]| {
            let (is_done, stdout, stderr) = with_conf(home.path(), &conf, arguments);
            assert!(is_done, "{arguments:?}: {stderr}");
            (stdout, stderr)
        };
        let (plain, said) = run(&["inspect", "containers-storage:t/app:1", "--json"]);
        assert!(plain.contains(&used.to_string()) && !plain.contains(&other.to_string()), "{driver}: {plain}");
        assert!(said.contains(&format!("is also the name of image {other} of the storage driver")), "{said}");
        let out = home.path().join(format!("{driver}.tar")).display().to_string();
        run(&["copy", "containers-storage:", &out]);
        let (archive, _) = run(&["inspect", &out, "--json"]);
        assert!([used, other].iter().all(|id| archive.contains(&id.to_string())), "{archive}");
        let (asked, _) = run(&["inspect", &format!("containers-storage:t/app:1@{other}"), "--json"]);
        assert!(asked.contains(&other.to_string()) && asked.contains("docker.io/t/app:1"), "{asked}");
        let mut expected = [used, other].map(|id| format!("docker.io/t/app:1@{id}\n"));
        expected.sort();
        assert_eq!(run(&["list", "containers-storage:"]).0, expected.concat());
    }
}
