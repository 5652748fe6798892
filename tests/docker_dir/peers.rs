//! Real dockers, old and new: every layer that they take is rebuilt bit for bit, and loads again under the same ID.

use super::support::engines::{Kind, Peer};
use super::support::odd_layers::{archive, odd_layers};
use super::support::some_registry::Registry;
use super::{BOTH, by_name, imgmv, open, try_imgmv};
use imgmv::{Error, Store};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A docker with the image `name` of `layers`.
fn docker(kind: Kind, settings: &str, name: &str, layers: &[Vec<u8>]) -> Option<Peer> {
    let peer = Peer::start_told(kind, settings)?;
    let file = archive(peer.folder.path(), name, layers);
    peer.client(&["load", "-q", "-i", file.to_str().unwrap()]);
    Some(peer)
}

fn data(peer: &Peer) -> PathBuf {
    peer.folder.path().join("data")
}

#[test]
fn an_image_of_everything_odd_loads_again_under_its_id() {
    for (kind, driver) in
        [(Kind::Docker20, "overlay2"), (Kind::Docker20, "vfs"), (Kind::Docker28, "overlay2"), (Kind::Docker28, "vfs")]
    {
        let settings = json!({ "storage-driver": driver }).to_string();
        let Some(peer) = docker(kind, &settings, "t/odd:1", &odd_layers()) else { continue };
        let id = peer.id("t/odd:1").unwrap();
        let out = peer.folder.path().join("out.tar").display().to_string();
        let done = imgmv(&data(&peer), &["copy", "docker-dir:t/odd:1", &out]);
        assert!(
            done.stderr.contains(&format!("(the image ID), {id}, does not change")),
            "{kind:?} {driver}: {}",
            done.stderr
        );
        let short = &id["sha256:".len()..][..12];
        let by_id = imgmv(&data(&peer), &["digest", &format!("docker-dir:{short}")]).stdout;
        assert_eq!(by_id, imgmv(&data(&peer), &["digest", &out]).stdout, "{kind:?} {driver}");
        peer.client(&["rmi", "t/odd:1"]);
        assert!(peer.id("t/odd:1").is_none());
        peer.client(&["load", "-i", &out]);
        assert_eq!(peer.id("t/odd:1"), Some(id), "{kind:?} {driver}");
    }
}

#[test]
fn every_layer_of_both_resolutions_has_its_diff_id() {
    let layers = odd_layers();
    let Some(peer) = docker(Kind::Docker20, "{}", "t/odd:1", &layers) else { return };
    for resolution in BOTH {
        let store = open(&data(&peer), resolution).unwrap();
        let root = store.roots(&[by_name("t/odd:1")]).unwrap().remove(0);
        let manifest = root.read(&store).unwrap();
        for (described, layer) in manifest.layers().iter().zip(&layers) {
            let mut bytes = Vec::new();
            store.open(described, 0).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == *layer, "{resolution:?}: {}", described.digest);
        }
    }
}

#[test]
fn dockers_containerd_store_is_read_with_its_digests() {
    let Some(peer) = docker(Kind::Docker28c, "{}", "t/odd:1", &odd_layers()) else { return };
    let id = peer.id("t/odd:1").unwrap();
    let root = data(&peer);
    assert_eq!(imgmv(&root, &["list", "docker-dir:"]).stdout, "docker.io/t/odd:1\n");
    let short = &id["sha256:".len()..][..12];
    for asked in ["t/odd:1", short, &id] {
        assert_eq!(imgmv(&root, &["digest", &format!("docker-dir:{asked}")]).stdout.trim(), id, "{asked}");
    }
    let out = peer.folder.path().join("out.tar").display().to_string();
    let done = imgmv(&root, &["copy", "docker-dir:t/odd:1", &out]);
    assert!(!done.stderr.contains("a new one"), "{}", done.stderr);
    // The feature was switched: graph drivers' images are next to them.
    let Some(classic) = docker(Kind::Docker28, "{}", "t/classic:1", &odd_layers()) else { return };
    for directory in ["image", "overlay2"] {
        let copied = Command::new("cp").arg("-a").arg(data(&classic).join(directory)).arg(&root).status().unwrap();
        assert!(copied.success());
    }
    // The store that was used last is listed first, and the daemon of one may still write.
    let listed = imgmv(&root, &["list", "docker-dir:"]).stdout;
    let mut names: Vec<&str> = listed.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["docker.io/t/classic:1", "docker.io/t/odd:1"]);
    let both = peer.folder.path().join("both.tar").display().to_string();
    imgmv(&root, &["copy", "docker-dir:", &both]);
    assert_eq!(imgmv(&root, &["list", &both]).stdout.lines().count(), 2);
    assert_eq!(imgmv(&root, &["digest", "docker-dir:t/odd:1"]).stdout.trim(), id);
    let missing = try_imgmv(&root, &["digest", "docker-dir:t/none:1"]);
    assert_eq!(missing.status.code(), Some(3), "{}", missing.stderr);
    assert!(missing.stderr.contains("t/classic:1") && missing.stderr.contains("t/odd:1"), "{}", missing.stderr);
}

/// With userns-remap, dockerd keeps containerd's directory in its `UID.GID`, and uses a namespace with that name.
#[test]
fn dockers_containerd_store_of_a_remapped_user_is_read() {
    let Some(peer) = Peer::start(Kind::Containerd21) else { return };
    let archive = fs::canonicalize("fixtures/hello-docker28c.tar").unwrap();
    for namespace in ["moby-200000.200000", "other"] {
        peer.client(&["-n", namespace, "images", "import", "--no-unpack", archive.to_str().unwrap()]);
    }
    let root = peer.folder.path().join("docker");
    let remapped = root.join("200000.200000/containerd");
    fs::create_dir_all(&remapped).unwrap();
    let copied = Command::new("cp").arg("-a").arg(data(&peer)).arg(remapped.join("daemon")).status().unwrap();
    assert!(copied.success());
    let listed = imgmv(&root, &["list", "docker-dir:"]);
    assert_eq!(listed.stdout, imgmv_list(&archive), "{}", listed.stderr);
    assert!(listed.stderr.contains("in the namespace other, which is not docker's"), "{}", listed.stderr);
    let out = peer.folder.path().join("out.tar").display().to_string();
    imgmv(&root, &["copy", "docker-dir:", &out]);
    assert_eq!(imgmv_list(out.as_ref()), listed.stdout);
}

fn imgmv_list(archive: &Path) -> String {
    super::support::program::imgmv(&["list", archive.to_str().unwrap()], None).stdout
}

#[test]
fn an_image_that_docker_removes_meanwhile_is_told_so() {
    for kind in [Kind::Docker20, Kind::Docker28] {
        let Some(peer) = docker(kind, "{}", "t/odd:1", &odd_layers()) else { continue };
        let store = open(&data(&peer), BOTH[0]).unwrap();
        let manifest = store.roots(&[by_name("t/odd:1")]).unwrap().remove(0).read(&store).unwrap();
        let mut reader = store.open(&manifest.layers()[0], 0).unwrap();
        reader.read_exact(&mut [0; 512]).unwrap();
        peer.client(&["rmi", "t/odd:1"]);
        let error = Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
        assert_eq!(error.kind(), imgmv::Kind::NotFound, "{error}");
        assert!(error.to_string().contains("t/odd:1 was removed from docker while it was read"), "{error}");
        let gone = try_imgmv(&data(&peer), &["copy", "docker-dir:t/odd:1", "-"]);
        assert_eq!(gone.status.code(), Some(3), "{}", gone.stderr);
    }
}

#[test]
fn a_file_that_was_changed_on_dockers_disk_is_named() {
    let Some(peer) = docker(Kind::Docker28, "{}", "t/odd:1", &odd_layers()) else { return };
    let directories = fs::read_dir(data(&peer).join("overlay2")).unwrap().map(|entry| entry.unwrap().path());
    let noise = directories.map(|path| path.join("diff/w/noise")).find(|path| path.exists()).unwrap();
    let mut bytes = fs::read(&noise).unwrap();
    bytes[450_000] ^= 1;
    fs::write(&noise, bytes).unwrap();
    let done = try_imgmv(&data(&peer), &["copy", "docker-dir:t/odd:1", "-"]);
    assert_eq!(done.status.code(), Some(5));
    assert!(done.stderr.contains("w/noise is damaged: its content changed"), "{}", done.stderr);
}

#[test]
fn an_image_that_docker_pulled_is_found_by_the_manifest_that_is_not_stored() {
    let Some(peer) = Peer::start(Kind::Docker28) else { return };
    let registry = Registry::start(peer.folder.path());
    let name = format!("{}/t/pulled", registry.address);
    let file = archive(peer.folder.path(), "t/pulled:1", &odd_layers()[3..]);
    let dst = format!("docker://{name}:1");
    let pushed = imgmv(&data(&peer), &["copy", "--dst-insecure", file.to_str().unwrap(), &dst]).stdout;
    let digest = pushed.trim().rsplit('@').next().unwrap().to_owned();
    peer.client(&["pull", "-q", &format!("{name}:1")]);
    let done = imgmv(&data(&peer), &["copy", &format!("docker-dir:{name}@{digest}"), "-"]);
    assert!(done.stderr.contains("does not store that manifest"), "{}", done.stderr);
    assert!(done.stderr.contains(&peer.id(&format!("{name}:1")).unwrap()), "{}", done.stderr);
}
