//! An OCI layout built blob by blob, and the program run on it.

use crate::support::program::{Output, imgmv};
use imgmv::internals::image::{Algorithm, media_type};
use imgmv::{Coding, Descriptor, Digest, Hasher};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with the layout `l` in it, and room for what is made of it.
pub struct World {
    pub dir: TempDir,
    named: Vec<Value>,
}

impl World {
    pub fn new() -> World {
        let world = World { dir: TempDir::new().unwrap(), named: Vec::new() };
        fs::create_dir_all(world.path("l/blobs")).unwrap();
        fs::write(world.path("l/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `text` with `DIR` replaced by this folder.
    pub fn word(&self, text: &str) -> String {
        text.replace("DIR", self.dir.path().to_str().unwrap())
    }

    /// Runs the program; `DIR` in its arguments is this folder.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, None)
    }

    pub fn run_with(&self, args: &[&str], stdin: Option<&Path>) -> Output {
        let args: Vec<String> = args.iter().map(|arg| self.word(arg)).collect();
        imgmv(&args.iter().map(String::as_str).collect::<Vec<_>>(), stdin)
    }

    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        self.blob_by(Algorithm::Sha256, media_type, bytes)
    }

    pub fn blob_by(&mut self, algorithm: Algorithm, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Hasher::new(algorithm).with(bytes).finish();
        let file = self.path("l").join(digest.blob_path());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    pub fn document(&mut self, media_type: &str, document: &Value) -> Descriptor {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// An image manifest of `config` and `layers`, with whatever `more` has.
    pub fn manifest(&mut self, config: &Descriptor, layers: &[Descriptor], more: Value) -> Descriptor {
        let mut document = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
        });
        merge(&mut document, more);
        self.document(media_type::OCI_MANIFEST, &document)
    }

    /// A container image for `platform` with one raw layer that holds `content`.
    pub fn image(&mut self, platform: &str, content: &[u8]) -> Descriptor {
        let layer = tar(content);
        let at = self.blob(media_type::OCI_LAYER, &layer);
        let config = self.config(platform, &[Digest::of(&layer)]);
        let manifest = self.manifest(&config, &[at], json!({}));
        Descriptor { platform: Some(platform.parse().unwrap()), ..manifest }
    }

    pub fn config(&mut self, platform: &str, diff_ids: &[Digest]) -> Descriptor {
        let platform: imgmv::Platform = platform.parse().unwrap();
        let document = json!({
            "os": platform.os, "architecture": platform.architecture,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        self.document(media_type::OCI_CONFIG, &document)
    }

    pub fn index(&mut self, entries: &[Descriptor], more: Value) -> Descriptor {
        let mut document = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
        merge(&mut document, more);
        self.document(media_type::OCI_INDEX, &document)
    }

    /// Gives `root` a tag in the layout.
    pub fn name(&mut self, tag: &str, root: &Descriptor) {
        let mut entry = Descriptor { platform: None, ..root.clone() };
        entry.annotate("org.opencontainers.image.ref.name", tag);
        self.named.push(serde_json::to_value(entry).unwrap());
        let index = json!({ "schemaVersion": 2, "manifests": self.named });
        fs::write(self.path("l/index.json"), index.to_string()).unwrap();
    }

    /// Lists `root` without a name in the layout.
    #[allow(dead_code)]
    pub fn list(&mut self, root: &Descriptor) {
        self.named.push(serde_json::to_value(Descriptor { platform: None, ..root.clone() }).unwrap());
        let index = json!({ "schemaVersion": 2, "manifests": self.named });
        fs::write(self.path("l/index.json"), index.to_string()).unwrap();
    }

    /// Removes a blob from the layout.
    pub fn lose(&self, blob: &Descriptor) {
        fs::remove_file(self.path("l").join(blob.digest.blob_path())).unwrap();
    }

    /// The blob `digest` of the layout `layout`.
    pub fn read(&self, layout: &str, digest: &Digest) -> Option<Vec<u8>> {
        fs::read(self.path(layout).join(digest.blob_path())).ok()
    }

    /// What the only name in the layout `layout` points at.
    pub fn root(&self, layout: &str) -> Digest {
        let index: Value = serde_json::from_slice(&fs::read(self.path(layout).join("index.json")).unwrap()).unwrap();
        index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap()
    }

    /// The document `digest` of the layout `layout`.
    pub fn parsed(&self, layout: &str, digest: &Digest) -> Value {
        serde_json::from_slice(&self.read(layout, digest).unwrap()).unwrap()
    }
}

fn merge(document: &mut Value, more: Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        document[key] = value.clone();
    }
}

/// A tar with one file in it.
pub fn tar(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", content).unwrap();
    builder.into_inner().unwrap()
}

/// The names of the files in a tar.
pub fn names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

pub fn packed(raw: &[u8], coding: Coding) -> Vec<u8> {
    let mut out = Vec::new();
    imgmv::internals::compress::recompress(&mut &*raw, Coding::Raw, coding, None, 1, &mut |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })
    .unwrap();
    out
}

/// What the program said and how it ended, for a failed assertion.
pub fn told(out: &Output) -> String {
    format!("{:?}: {}{}", out.status.code(), out.stdout, out.stderr)
}
