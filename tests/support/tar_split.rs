//! Takes the tar of a layer apart as docker and containers-storage do: into the lines of a tar-split, and files.
#![allow(dead_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::{Read, Write};

/// A layer apart.
pub struct Parts {
    pub lines: Vec<Value>,
    /// The files with content: names as in the tar, and contents.
    pub files: Vec<(Vec<u8>, Vec<u8>)>,
}

/// tar-split's checksum, bit by bit (Go's hash/crc64, polynomial ISO).
pub fn checksum(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(u64::MAX, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xd8 << 56 } else { sum >> 1 })
    })
}

/// Takes `tar` apart.
pub fn split(tar: &[u8]) -> Parts {
    let mut parts = Parts { lines: Vec::new(), files: Vec::new() };
    let mut at = 0;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = entry.path_bytes().into_owned();
        let start = entry.raw_file_position() as usize;
        parts.segment(&tar[at..start]);
        at = start + content.len();
        parts.file(&name, &content);
    }
    parts.segment(&tar[at..]);
    parts
}

impl Parts {
    fn segment(&mut self, bytes: &[u8]) {
        let position = self.lines.len();
        self.lines.push(json!({ "type": 2, "payload": BASE64.encode(bytes), "position": position }));
    }

    fn file(&mut self, name: &[u8], content: &[u8]) {
        let position = self.lines.len();
        let mut line = json!({ "type": 1, "payload": null, "position": position });
        match std::str::from_utf8(name) {
            Ok(name) => line["name"] = name.into(),
            Err(_) => line["name_raw"] = BASE64.encode(name).into(),
        }
        if !content.is_empty() {
            line["size"] = content.len().into();
            line["payload"] = BASE64.encode(checksum(content).to_be_bytes()).into();
            self.files.push((name.to_vec(), content.to_vec()));
        }
        self.lines.push(line);
    }

    /// The text of the tar-split.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The tar-split as docker stores it.
    pub fn compressed(&self) -> Vec<u8> {
        gzip(self.text().as_bytes())
    }
}

/// Compresses `bytes`.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The text of a payload.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}
