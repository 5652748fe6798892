//! Real dockers, old and new: every layer that they take is rebuilt bit for bit, and loads again under the same ID.

use super::support::engines::{Kind, Peer};
use super::support::some_registry::Registry;
use super::{BOTH, by_name, imgmv, open, try_imgmv};
use imgmv::{Digest, Error, Store};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
use tar::{Builder, EntryType, Header};

/// A layer, entry by entry, with names as they are.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Layer {
        Layer(Builder::new(Vec::new()))
    }

    fn add(&mut self, name: &[u8], kind: EntryType, content: &[u8], link: &str) -> &mut Layer {
        self.add_owned(name, kind, content, link, 0, 0o644)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> &mut Layer {
        self.add(name.as_bytes(), Regular, content, "")
    }

    fn add_owned(
        &mut self,
        name: &[u8],
        kind: EntryType,
        content: &[u8],
        link: &str,
        owner: u64,
        mode: u32,
    ) -> &mut Layer {
        let mut header = Header::new_gnu();
        if name.len() > 100 {
            // GNU's extension for long names: the name as the content of an entry.
            let mut long = Header::new_gnu();
            long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
            long.set_entry_type(EntryType::GNULongName);
            long.set_size(name.len() as u64 + 1);
            long.set_cksum();
            self.0.append(&long, &[name, b"\0"].concat()[..]).unwrap();
        }
        let short = &name[..name.len().min(100)];
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_700_000_000);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn xattrs(&mut self, attributes: &[(&str, &[u8])]) -> &mut Layer {
        self.0.append_pax_extensions(attributes.iter().copied()).unwrap();
        self
    }

    /// The tar, with `more` behind its end.
    fn end(self, more: &[u8]) -> Vec<u8> {
        let mut tar = self.0.into_inner().unwrap();
        tar.extend_from_slice(more);
        tar
    }
}

/// Layers of everything that docker takes and that could be lost on the way to its disk and back.
fn odd_layers() -> Vec<Vec<u8>> {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let noise: Vec<u8> = (0..900_000).map(|i| (i * 31 + i / 251) as u8).collect();
    let mut base = Layer::new();
    for directory in ["w", "w/op", "w/gonedir", "real"] {
        base.add_owned(directory.as_bytes(), Directory, b"", "", 0, 0o755);
    }
    base.file("w/file", &b"hardlinked".repeat(1000)).add(b"w/hard", Link, b"", "w/file");
    base.xattrs(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.a", b"b")]);
    base.file("w/cap", b"capable").add(b"w/char", Char, b"", "").add(b"w/fifo", Fifo, b"", "");
    base.add_owned(b"w/setuid", Regular, b"su", "", 0, 0o4755).add_owned(b"w/mode0", Regular, b"secret", "", 0, 0);
    base.add_owned(b"w/owned", Regular, b"of another user", "", 1_000_000, 0o600);
    base.file("w/empty", b"").file("w/zeros", &[0; 700_000]).file("w/noise", &noise);
    base.file("./w/dot", b"dot").file("w//double", b"double").file("w/./middle", b"middle");
    base.file("w/op/old", b"old").file("w/gone", b"will be deleted").file("w/gonedir/x", b"x");
    base.file(&format!("w/{}", "n".repeat(200)), b"long name").file(&"d/".repeat(130), b"");
    base.add(b"w/sym", Symlink, b"", "/etc/passwd").file("w/\u{e9}\u{4e2d}<>&", b"UTF-8");
    let mut links = Layer::new();
    links.add(b"same", Symlink, b"", "real2").add(b"abs", Symlink, b"", "/real2");
    links.add_owned(b"real2", Directory, b"", "", 0, 0o755);
    links.file("same/in", b"through a link of this layer").file("abs/in2", b"through an absolute link");
    let mut names = Layer::new();
    names.add(b"caf\xe9", Regular, b"not UTF-8", "").add(b"\xff\xfe", Regular, b"neither", "");
    names.add(&[b"l\xe9".as_slice(), &[b'x'; 120]].concat(), Regular, b"long, not UTF-8", "");
    names.file("no/dir/entry", b"without its directory").file("/abs2", b"from the root").file("no/../up", b"up");
    let mut white = Layer::new();
    white.file("w/.wh.gone", b"").file("w/.wh.gonedir", b"").file("w/op/.wh..wh..opq", b"");
    white.file("w/op/new", b"new in an opaque directory").file("w/file", b"replaced");
    vec![base.end(b""), links.end(&[0; 30_000]), names.end(b""), white.end(b""), vec![0; 1024]]
}

/// An archive of docker-save's old form.
fn archive(at: &Path, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/x"] }, "created": "2024-01-01T00:00:00Z",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string();
    let mut tar = Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    let files: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    for (file, layer) in files.iter().zip(layers) {
        put(file, layer);
    }
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    put(&config_name, config.as_bytes());
    let list = json!([{ "Config": config_name, "RepoTags": [name], "Layers": files }]);
    put("manifest.json", list.to_string().as_bytes());
    let path = at.join(format!("{}.tar", name.replace(['/', ':'], "-")));
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    path
}

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
    assert_eq!(imgmv(&root, &["list", "docker-dir:"]).stdout, "docker.io/t/classic:1\ndocker.io/t/odd:1\n");
    let both = peer.folder.path().join("both.tar").display().to_string();
    imgmv(&root, &["copy", "docker-dir:", &both]);
    assert_eq!(imgmv(&root, &["list", &both]).stdout.lines().count(), 2);
    assert_eq!(imgmv(&root, &["digest", "docker-dir:t/odd:1"]).stdout.trim(), id);
    let missing = try_imgmv(&root, &["digest", "docker-dir:t/none:1"]);
    assert_eq!(missing.status.code(), Some(3), "{}", missing.stderr);
    assert!(missing.stderr.contains("t/classic:1") && missing.stderr.contains("t/odd:1"), "{}", missing.stderr);
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
