//! Layers of everything that engines take and that could be lost on the way to their disks and back.
#![allow(dead_code)]

use imgmv::Digest;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
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
pub fn odd_layers() -> Vec<Vec<u8>> {
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
pub fn archive(at: &Path, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({ "created_by": "imgmv" })).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/x"] }, "created": "2024-01-01T00:00:00Z",
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
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
