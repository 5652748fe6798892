use super::*;
use crate::disk::rooted::{Resolution, Rooted};
use crate::error::Kind;
use serde_json::json;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::{ffi::OsStr, fs};
use tempfile::TempDir;

mod hostile;
mod long_lines;
mod parked;
#[path = "../../../tests/support/tar_split.rs"]
mod tar_split;
use tar_split::{Parts, checksum, gzip, split};

/// The label of every layer here.
const LABEL: &str = "layer sha256:12 in /srv";

/// A layer on the disk: its tar, its tar-split, its files.
struct Layer {
    tar: Vec<u8>,
    parts: Parts,
    dir: TempDir,
}

impl Layer {
    /// A layer of files with these names and contents, of links, and of a whiteout.
    fn new() -> Layer {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &[u8], kind: tar::EntryType, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, content).unwrap();
        };
        use tar::EntryType::{Directory, Regular};
        add(b"etc", Directory, b"");
        add(b"etc/passwd", Regular, b"root:x:0:0:root");
        add(b"/abs", Regular, b"named from the root");
        add(b"no/../up", Regular, b"up");
        add(b"caf\xe9", Regular, b"not UTF-8");
        add(b"a<b>&c\x7f", Regular, b"escaped in JSON");
        add(b"etc/.wh.gone", Regular, b"");
        add(b"large", Regular, &noise(700_000));
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Link);
        tar.append_link(&mut header, "hard", "etc/passwd").unwrap();
        let mut tar = tar.into_inner().unwrap();
        tar.extend([0; 30_000]);
        let parts = split(&tar);
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in &parts.files {
            let name = if name == b"no/../up" { b"up" } else { &name[..] };
            let path = dir.path().join(OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name)));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Layer { tar, parts, dir }
    }

    /// Reads the layer with the tar-split `text`.
    fn read_split(&self, text: &[u8], from: u64) -> Result<Vec<u8>> {
        let measured = measure(file(text), Recorded::Tar(self.tar.len() as u64), LABEL)?;
        let rooted = Rooted::open(self.dir.path(), Resolution::Kernel).unwrap();
        let mut layer = LayerTar::new(file(text), &measured, Digest::of(&self.tar), LABEL, |name| rooted.file(name))?;
        layer.skip(from)?;
        let mut bytes = Vec::new();
        layer.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64 + from, measured.bytes);
        Ok(bytes)
    }

    fn read(&self) -> Result<Vec<u8>> {
        self.read_split(&self.parts.compressed(), 0)
    }
}

fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_layer_is_rebuilt_bit_for_bit() {
    let layer = Layer::new();
    assert!(layer.read().unwrap() == layer.tar);
    let text = layer.parts.text();
    assert!(layer.read_split(text.as_bytes(), 0).unwrap() == layer.tar, "not compressed");
    assert!(layer.read_split(&zstd::bulk::compress(text.as_bytes(), 1).unwrap(), 0).unwrap() == layer.tar, "zstd");
    // docker 20 and podman 4.3 end with an empty segment.
    let end = json!({ "type": 2, "payload": "", "position": layer.parts.lines.len() });
    assert!(layer.read_split(&gzip(format!("{text}{end}\n").as_bytes()), 0).unwrap() == layer.tar);
}

#[test]
fn a_layer_is_read_from_any_offset() {
    let layer = Layer::new();
    let split = layer.parts.compressed();
    for from in [0, 1, 511, 1025, 5_000, 600_000, layer.tar.len() - 1, layer.tar.len()] {
        assert!(layer.read_split(&split, from as u64).unwrap() == layer.tar[from..], "{from}");
    }
    let behind = layer.read_split(&split, layer.tar.len() as u64 + 1).unwrap_err();
    assert!(behind.to_string().contains("behind its end"), "{behind}");
}

#[test]
fn a_layer_is_read_in_reads_of_any_size() {
    let layer = Layer::new();
    let measured = measure(file(&layer.parts.compressed()), Recorded::Contents(700_100), LABEL).unwrap();
    for size in [1, 2, 3, 7, 4096] {
        let rooted = Rooted::open(layer.dir.path(), Resolution::ByHand).unwrap();
        let split = file(&layer.parts.compressed());
        let mut tar = LayerTar::new(split, &measured, Digest::of(b""), LABEL, |name| rooted.file(name)).unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; size]);
        loop {
            match tar.read(&mut buffer).unwrap() {
                0 => break,
                read => bytes.extend_from_slice(&buffer[..read]),
            }
        }
        assert!(bytes == layer.tar, "{size}");
    }
}

#[test]
fn the_damaged_file_is_named() {
    let passwd = |change: fn(&std::path::Path)| {
        let layer = Layer::new();
        change(&layer.dir.path().join("etc/passwd"));
        let error = layer.read().unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        error.to_string()
    };
    for (change, told) in [
        (
            (|path| fs::write(path, "Root:x:0:0:root").unwrap()) as fn(&std::path::Path),
            "its content changed: expected the checksum",
        ),
        (|path| fs::write(path, "root:x").unwrap(), "expected 15 bytes, found 6"),
        (|path| fs::write(path, "root:x:0:0:root\n").unwrap(), "expected 15 bytes, found 16"),
        (|path| fs::remove_file(path).unwrap(), "it is missing"),
        (
            |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/etc/shadow", path).unwrap();
            },
            "it is missing",
        ),
    ] {
        let error = passwd(change);
        assert!(error.starts_with(&format!("{LABEL}: the layer's file etc/passwd is damaged: ")), "{error}");
        assert!(error.contains(told), "{error}");
    }
    let fifo = passwd(|path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    });
    assert!(fifo.starts_with(LABEL) && fifo.contains("etc/passwd: expected a regular file"), "{fifo}");
}

#[test]
fn the_checksum_is_that_of_tar_split() {
    // The check value of CRC-64/GO-ISO.
    assert_eq!(content::CRC.checksum(b"123456789"), 0xb909_56c7_75a4_1001);
    for size in [0, 1, 15, 16, 17, 70_000] {
        assert_eq!(content::CRC.checksum(&noise(size)), checksum(&noise(size)), "{size}");
    }
}
