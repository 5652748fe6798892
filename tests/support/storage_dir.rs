//! The storage of podman, CRI-O and buildah as they leave it, written by hand: the images of one storage driver.
#![allow(dead_code)]

use super::tar_split::{base64, split};
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest, Manifest};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A storage.
pub struct StorageDir {
    pub dir: TempDir,
    driver: &'static str,
    pub images: Vec<Value>,
    pub layers: Vec<Value>,
}

impl StorageDir {
    /// Without an image.
    pub fn new(driver: &'static str) -> StorageDir {
        let storage = StorageDir { dir: TempDir::new().unwrap(), driver, images: Vec::new(), layers: Vec::new() };
        storage.write();
        storage
    }

    /// Adds the image of `layers`, tars, under `names`, with the manifest of its layers as they are. Returns its ID.
    pub fn add(&mut self, names: &[&str], layers: &[Vec<u8>]) -> Digest {
        let config = config(layers, "");
        let manifest = raw_manifest(&config, layers);
        self.add_image(names, &config, layers, &[manifest.bytes])
    }

    /// Adds the image of `layers` as if it was pulled with compressed layers. Returns its ID and the manifest's digest.
    pub fn add_pulled(&mut self, names: &[&str], layers: &[Vec<u8>]) -> (Digest, Digest) {
        let config = config(layers, "");
        let manifest = compressed_manifest(&config, layers);
        (self.add_image(names, &config, layers, std::slice::from_ref(&manifest.bytes)), manifest.digest())
    }

    /// Adds the image with the config `config`, `layers`, and the manifests `manifests`, of which the last is the last
    /// one that was stored.
    pub fn add_image(&mut self, names: &[&str], config: &[u8], layers: &[Vec<u8>], manifests: &[Vec<u8>]) -> Digest {
        let id = Digest::of(config);
        let mut chain: Option<Digest> = None;
        for layer in layers {
            chain = Some(self.add_layer(layer, chain));
        }
        let mut keys = vec![id.to_string(), "manifest".to_owned()];
        put(&self.document(&id, &id.to_string()), config);
        for manifest in manifests {
            let key = format!("manifest-{}", Digest::of(manifest));
            put(&self.document(&id, &key), manifest);
            put(&self.document(&id, "manifest"), manifest);
            keys.push(key);
        }
        let mut record = json!({
            "id": id.hex(), "digest": manifests.first().map(|manifest| Digest::of(manifest)), "names": names,
            "layer": chain.map(|chain| chain.hex()), "metadata": "{}", "big-data-names": keys,
            "created": "2024-01-01T00:00:00Z",
        });
        if chain.is_none() {
            record.as_object_mut().unwrap().remove("layer");
        }
        self.images.push(record);
        self.write();
        id
    }

    /// Adds a layer above `parent`, unless it is there. Returns its ID.
    fn add_layer(&mut self, tar: &[u8], parent: Option<Digest>) -> Digest {
        let diff_id = Digest::of(tar);
        let id = parent.map_or(diff_id, |parent| Digest::of(format!("{parent} {diff_id}").as_bytes()));
        if self.layers.iter().any(|layer| layer["id"] == id.hex()) {
            return id;
        }
        let parts = split(tar);
        put(&self.tar_split(&id), &parts.compressed());
        fs::create_dir_all(self.files(&id)).unwrap();
        for (name, content) in &parts.files {
            put(&self.files(&id).join(OsStr::from_bytes(name)), content);
        }
        let mut record = json!({
            "id": id.hex(), "diff-digest": diff_id, "diff-size": tar.len(), "created": "2024-01-01T00:00:00Z",
            "uidset": [0], "gidset": [0],
        });
        if let Some(parent) = parent {
            record["parent"] = parent.hex().into();
        }
        self.layers.push(record);
        id
    }

    /// Writes the records, each by a rename.
    pub fn write(&self) {
        self.write_as("images.json", &self.images);
        self.write_as("layers.json", &self.layers);
    }

    /// Writes `records` as `images.json`, `layers.json` or `volatile-layers.json`.
    pub fn write_as(&self, name: &str, records: &[Value]) {
        let path = self.records(name);
        let new = path.with_extension("new");
        put(&new, Value::from(records).to_string().as_bytes());
        fs::rename(new, path).unwrap();
    }

    /// The path of `images.json`, `layers.json` or `volatile-layers.json`.
    pub fn records(&self, name: &str) -> PathBuf {
        let directory = if name == "images.json" { "images" } else { "layers" };
        self.dir.path().join(format!("{}-{directory}", self.driver)).join(name)
    }

    /// The document `key` of the image `id`.
    pub fn document(&self, id: &Digest, key: &str) -> PathBuf {
        let file = if key == "manifest" { key.to_owned() } else { format!("={}", base64(key.as_bytes())) };
        self.dir.path().join(format!("{}-images", self.driver)).join(id.hex()).join(file)
    }

    /// The tar-split of the layer `id`.
    pub fn tar_split(&self, id: &Digest) -> PathBuf {
        self.dir.path().join(format!("{}-layers/{}.tar-split.gz", self.driver, id.hex()))
    }

    /// The files of the layer `id`.
    pub fn files(&self, id: &Digest) -> PathBuf {
        match self.driver {
            "vfs" => self.dir.path().join("vfs/dir").join(id.hex()),
            driver => self.dir.path().join(driver).join(id.hex()).join("diff"),
        }
    }
}

/// A config of `layers`; `step` makes it another one.
pub fn config(layers: &[Vec<u8>], step: &str) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let mut history = vec![json!({ "created_by": "start" })];
    if !step.is_empty() {
        history.push(json!({ "created_by": step, "empty_layer": true }));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "history": history,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

/// The manifest of `layers` as they are.
pub fn raw_manifest(config: &[u8], layers: &[Vec<u8>]) -> Manifest {
    manifest(config, layers.iter().map(|layer| Descriptor::of(media_type::OCI_LAYER, layer)))
}

/// A manifest of `layers`, compressed.
pub fn compressed_manifest(config: &[u8], layers: &[Vec<u8>]) -> Manifest {
    let compressed = |layer: &Vec<u8>| Descriptor::of(media_type::OCI_LAYER_GZIP, &super::tar_split::gzip(layer));
    manifest(config, layers.iter().map(compressed))
}

fn manifest(config: &[u8], layers: impl Iterator<Item = Descriptor>) -> Manifest {
    let layers: Vec<Descriptor> = layers.collect();
    let document = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, config), "layers": layers,
        "annotations": { "made-by": "a builder" },
    });
    Manifest::from_bytes(document.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap()
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
