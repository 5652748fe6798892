//! Layouts and archives by hand, and a run of the program in their folder.

use crate::support::shell::Shell;
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest, Manifest, Platform};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Files of a layout, or of an archive.
#[derive(Clone, Default)]
pub struct Files(pub Vec<(String, Vec<u8>)>);

impl Files {
    pub fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        self.0.push((name.to_owned(), bytes.as_ref().to_vec()));
    }

    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let blob = Descriptor::of(media_type, bytes);
        self.put(&blob.digest.blob_path(), bytes);
        blob
    }

    /// An image of one layer; its manifest.
    pub fn image(&mut self, platform: &str, layer: &str) -> Manifest {
        let manifest = image(platform, layer);
        self.put(&Digest::of(layer.as_bytes()).blob_path(), layer);
        self.put(&Digest::of(&config(platform, layer)).blob_path(), config(platform, layer));
        self.put(&manifest.digest().blob_path(), &manifest.bytes);
        manifest
    }

    /// With an `index.json` of `entries`, and the file `oci-layout`.
    pub fn listed(mut self, entries: Value) -> Files {
        self.put("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        self.put("index.json", json!({ "schemaVersion": 2, "manifests": entries }).to_string());
        self
    }

    pub fn write(&self, dir: &Path) {
        for (name, bytes) in &self.0 {
            let at = dir.join(name);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, bytes).unwrap();
        }
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (at, (name, bytes)) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|(before, _)| before == name) {
                continue;
            }
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }
}

pub fn config(platform: &str, layer: &str) -> Vec<u8> {
    let platform: Platform = platform.parse().unwrap();
    json!({
        "os": platform.os, "architecture": platform.architecture,
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer.as_bytes())] },
    })
    .to_string()
    .into_bytes()
}

pub fn image(platform: &str, layer: &str) -> Manifest {
    let layer_at = Descriptor::of(media_type::OCI_LAYER, layer.as_bytes());
    Manifest::synthesise(&Descriptor::of(media_type::OCI_CONFIG, &config(platform, layer)), &[layer_at])
}

/// An entry of an index.
pub fn entry(manifest: &Manifest, name: Option<&str>, platform: Option<&str>) -> Value {
    let platform = platform.map(|platform| platform.parse::<Platform>().unwrap());
    let mut entry = Descriptor { platform, ..manifest.descriptor.clone() };
    if let Some(name) = name {
        let key = if name.contains('/') { "io.containerd.image.name" } else { "org.opencontainers.image.ref.name" };
        entry.annotate(key, name);
    }
    serde_json::to_value(entry).unwrap()
}

/// What a command line gave.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub said: String,
}

pub fn run(shell: &Shell, line: &str) -> Ran {
    let output = shell.attempt(line);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    Ran { status: output.status.code().unwrap_or(-1), out: text(&output.stdout), said: text(&output.stderr) }
}

/// SRC as it stands, or `- FILE`: `-` and what comes before the program.
pub fn piped(src: &str) -> (&str, String) {
    src.split_once(' ').map_or_else(|| (src, String::new()), |(dash, file)| (dash, format!("cat {file} | ")))
}

/// A run that goes well; what it printed.
pub fn good(shell: &Shell, line: &str) -> String {
    let ran = run(shell, line);
    assert_eq!(ran.status, 0, "{line}: {}", ran.said);
    ran.out
}

/// The JSON document `name` in the archive at `file`.
pub fn document(file: &Path, name: &str) -> Value {
    let mut tar = tar::Archive::new(fs::File::open(file).unwrap());
    let mut entries = tar.entries().unwrap().map(Result::unwrap);
    let entry = entries.find(|entry| entry.path().unwrap().to_str() == Some(name)).expect(name);
    serde_json::from_reader(entry).unwrap()
}
