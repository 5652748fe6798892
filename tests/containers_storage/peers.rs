//! Real podmans, old and new, with both storage drivers: every layer that they store is rebuilt bit for bit.

use super::support::engines::{Kind, Peer};
use super::support::odd_layers::{archive, odd_layers};
use super::support::some_registry::Registry;
use super::{BOTH, by_name, imgmv, open, try_imgmv};
use imgmv::{Error, Store};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Both podmans with both storage drivers, as far as they run here.
fn podmans() -> impl Iterator<Item = (String, Peer)> {
    let kinds = [Kind::Podman4, Kind::Podman5].into_iter();
    let all = kinds.flat_map(|kind| ["overlay", "vfs"].map(|driver| (kind, driver)));
    all.filter_map(|(kind, driver)| Some((format!("{kind:?} {driver}"), podman(kind, driver, "")?)))
}

fn podman(kind: Kind, driver: &str, options: &str) -> Option<Peer> {
    let peer = Peer::start_told(kind, &json!({ "storage-driver": driver, "storage-options": options }).to_string())?;
    if driver == "overlay" && peer.try_client(&["images"]).is_none() {
        println!("skipped: no overlay storage on this filesystem");
        return None;
    }
    Some(peer)
}

fn data(peer: &Peer) -> PathBuf {
    peer.folder.path().join("data")
}

fn load(peer: &Peer, name: &str) {
    let file = archive(peer.folder.path(), name, &odd_layers());
    peer.client(&["load", "-q", "-i", file.to_str().unwrap()]);
}

fn out(peer: &Peer) -> String {
    peer.folder.path().join("out.tar").display().to_string()
}

/// Copies `name` to an archive, removes it from `peer`, loads it again, and compares its ID.
fn loads_again(label: &str, peer: &Peer, name: &str) -> String {
    let id = peer.id(name).unwrap();
    let file = out(peer);
    let done = imgmv(&data(peer), &["copy", &format!("containers-storage:{name}"), &file]);
    peer.client(&["rmi", "-f", name]);
    assert!(peer.id(name).is_none(), "{label}");
    peer.client(&["load", "-q", "-i", &file]);
    assert_eq!(peer.id(name), Some(id), "{label}");
    done.stderr
}

#[test]
fn an_image_that_was_loaded_uncompressed_keeps_its_digest() {
    for (label, peer) in podmans() {
        load(&peer, "docker.io/t/odd:1");
        let digest = peer.client(&["image", "inspect", "--format", "{{.Digest}}", "t/odd:1"]);
        for asked in ["t/odd:1", &peer.id("t/odd:1").unwrap()["sha256:".len()..][..12], &format!("@{digest}")] {
            let found = imgmv(&data(&peer), &["digest", &format!("containers-storage:{asked}")]).stdout;
            assert_eq!(found.trim(), digest, "{label}: {asked}");
        }
        let said = loads_again(&label, &peer, "docker.io/t/odd:1");
        assert!(!said.contains("a new one"), "{label}: {said}");
        let stored = imgmv(&data(&peer), &["digest", &out(&peer)]).stdout;
        assert_eq!(stored.trim(), digest, "{label}");
    }
}

#[test]
fn every_layer_of_both_resolutions_has_its_diff_id() {
    for (label, peer) in podmans() {
        load(&peer, "docker.io/t/odd:1");
        for resolution in BOTH {
            let store = open(&data(&peer), resolution).unwrap();
            let manifest = store.roots(&[by_name("t/odd:1")]).unwrap().remove(0).read(&store).unwrap();
            for (described, layer) in manifest.layers().iter().zip(&odd_layers()) {
                let mut bytes = Vec::new();
                store.open(described, 0).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes == *layer, "{label} {resolution:?}: {}", described.digest);
            }
        }
    }
}

/// Pushes the odd image to a registry with compressed layers. Returns its name and digest there.
fn pushed(peer: &Peer, registry: &Registry, more: &[&str]) -> (String, String) {
    let name = format!("{}/t/pulled:1", registry.address);
    let file = archive(peer.folder.path(), "t/pulled:1", &odd_layers());
    let dst = format!("docker://{name}");
    let copy = ["copy", "--dst-insecure", file.to_str().unwrap(), &dst];
    let pushed = imgmv(&data(peer), &[&copy, more].concat()).stdout;
    (name, pushed.trim().rsplit('@').next().unwrap().to_owned())
}

#[test]
fn an_image_that_was_pulled_compressed_gets_a_new_manifest_and_keeps_its_id() {
    for (label, peer) in podmans() {
        let registry = Registry::start(peer.folder.path());
        let (name, digest) = pushed(&peer, &registry, &["--compress", "gzip"]);
        peer.client(&["pull", "-q", "--tls-verify=false", &name]);
        let id = peer.id(&name).unwrap();
        let by_digest = format!("containers-storage:{}@{digest}", name.strip_suffix(":1").unwrap());
        let same =
            [&format!("containers-storage:{name}"), &by_digest].map(|src| imgmv(&data(&peer), &["digest", src]).stdout);
        assert_eq!(same[0], same[1], "{label}");
        let said = loads_again(&label, &peer, &name);
        for part in [&*digest, same[0].trim(), &id] {
            assert!(said.contains(part), "{label}: {part}: {said}");
        }
    }
}

#[test]
fn an_image_that_podman_built_is_read() {
    for (label, peer) in podmans() {
        load(&peer, "docker.io/t/odd:1");
        let context = peer.folder.path().join("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("Dockerfile"), "FROM docker.io/t/odd:1\nENV a=b\nCOPY Dockerfile /w/added\nENV c=d\n")
            .unwrap();
        let build = ["build", "-q", "--layers", "--isolation", "chroot", "-t", "localhost/t/built:1"];
        peer.client(&[&build[..], &[context.to_str().unwrap()]].concat());
        let listed = imgmv(&data(&peer), &["list", "containers-storage:"]).stdout;
        assert_eq!(listed, "docker.io/t/odd:1\nlocalhost/t/built:1\n", "{label}");
        loads_again(&label, &peer, "localhost/t/built:1");
        let all = peer.folder.path().join("all.tar").display().to_string();
        imgmv(&data(&peer), &["copy", "containers-storage:", &all]);
        assert_eq!(imgmv(&data(&peer), &["list", &all]).stdout, listed, "{label}");
    }
}

#[test]
fn an_image_that_was_pulled_in_part_is_read() {
    let options = "[storage.options]\npull_options = { enable_partial_images = \"true\" }\n";
    let Some(peer) = podman(Kind::Podman5, "overlay", options) else { return };
    let registry = Registry::start(peer.folder.path());
    let mut layers = odd_layers();
    // podman fails to push files whose paths lead through an absolute link of their layer, and to pull names in part that
    // are not UTF-8.
    layers.drain(1..3);
    let file = archive(peer.folder.path(), "docker.io/t/odd:1", &layers);
    peer.client(&["load", "-q", "-i", file.to_str().unwrap()]);
    let name = format!("{}/t/chunked:1", registry.address);
    peer.client(&["push", "-q", "--tls-verify=false", "--compression-format", "zstd:chunked", "t/odd:1", &name]);
    peer.client(&["rmi", "-af"]);
    peer.client(&["pull", "-q", "--tls-verify=false", &name]);
    let records = fs::read_to_string(data(&peer).join("overlay-layers/layers.json")).unwrap();
    assert!(records.contains("toc-digest"), "podman pulled no layer in part: {records}");
    loads_again("partial", &peer, &name);
}

#[test]
fn docker_loads_an_image_of_podmans_storage_under_the_same_id() {
    let Some(peer) = podman(Kind::Podman4, "vfs", "") else { return };
    load(&peer, "docker.io/t/odd:1");
    imgmv(&data(&peer), &["copy", "containers-storage:t/odd:1", &out(&peer)]);
    for kind in [Kind::Docker20, Kind::Docker28] {
        let Some(docker) = Peer::start(kind) else { continue };
        docker.client(&["load", "-i", &out(&peer)]);
        assert_eq!(docker.id("t/odd:1"), peer.id("t/odd:1"), "{kind:?}");
    }
}

#[test]
fn an_image_that_podman_removes_meanwhile_is_told_so() {
    for (label, peer) in podmans() {
        load(&peer, "docker.io/t/odd:1");
        let store = open(&data(&peer), BOTH[0]).unwrap();
        let manifest = store.roots(&[by_name("t/odd:1")]).unwrap().remove(0).read(&store).unwrap();
        let mut reader = store.open(&manifest.layers()[0], 0).unwrap();
        reader.read_exact(&mut [0; 512]).unwrap();
        peer.client(&["rmi", "t/odd:1"]);
        let error = Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
        assert_eq!(error.kind(), imgmv::Kind::NotFound, "{label}: {error}");
        assert!(
            error.to_string().contains("t/odd:1 was removed from the storage while it was read"),
            "{label}: {error}"
        );
    }
}

#[test]
fn a_file_that_was_changed_on_the_disk_is_named() {
    for (label, peer) in podmans() {
        load(&peer, "docker.io/t/odd:1");
        let noise = find_noise(&data(&peer));
        for file in &noise {
            let mut bytes = fs::read(file).unwrap();
            bytes[450_000] ^= 1;
            fs::write(file, bytes).unwrap();
        }
        assert!(!noise.is_empty(), "{label}");
        let done = try_imgmv(&data(&peer), &["copy", "containers-storage:t/odd:1", "-"]);
        assert_eq!(done.status.code(), Some(5), "{label}: {}", done.stderr);
        assert!(done.stderr.contains("w/noise is damaged: its content changed"), "{label}: {}", done.stderr);
    }
}

/// The file `w/noise` of every layer that has it.
fn find_noise(data: &Path) -> Vec<PathBuf> {
    let layers = [("overlay", "diff/w/noise"), ("vfs/dir", "w/noise")].into_iter();
    let files = layers.flat_map(|(directory, file)| {
        let entries = fs::read_dir(data.join(directory)).into_iter().flatten();
        entries.map(move |entry| entry.unwrap().path().join(file))
    });
    files.filter(|file| file.is_file()).collect()
}
