//! Images as a stranger makes them: nothing has to be what it says.

use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything that a source has.
#[derive(Default, Clone)]
pub struct World {
    /// Under the name that each has, whatever it is.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Of an `index.json`, as it is to stand there.
    pub entries: Vec<Value>,
}

/// A layer: a tar of one file.
pub fn layer(seed: u8) -> Vec<u8> {
    super::tars::Tar::new().file(&format!("file-{seed}"), &[seed; 700]).end()
}

impl World {
    pub fn keep(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest, bytes);
        json!(descriptor)
    }

    pub fn document(&mut self, media_type: &str, document: &Value) -> Value {
        self.keep(media_type, document.to_string())
    }

    pub fn config(&mut self, layers: &[Vec<u8>]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({ "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        self.document(media_type::OCI_CONFIG, &config)
    }

    /// The manifest of an image of raw layers, as a document.
    pub fn manifest(&mut self, layers: &[Vec<u8>]) -> Value {
        let config = self.config(layers);
        let layers: Vec<Value> = layers.iter().map(|layer| self.keep(media_type::OCI_LAYER, layer.clone())).collect();
        json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers })
    }

    pub fn image(&mut self, layers: &[Vec<u8>]) -> Value {
        let manifest = self.manifest(layers);
        self.document(media_type::OCI_MANIFEST, &manifest)
    }

    pub fn index(&mut self, children: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
        self.document(media_type::OCI_INDEX, &index)
    }

    /// `root` in `index.json`, as `registry.lan/app:1`.
    pub fn name(self, root: Value) -> World {
        self.name_as("registry.lan/app:1", root)
    }

    pub fn name_as(mut self, name: &str, mut root: Value) -> World {
        root["annotations"] = json!({ "io.containerd.image.name": name });
        self.entries.push(root);
        self
    }

    /// The blob that is there under the digest of `descriptor`.
    pub fn blob(&mut self, descriptor: &Value) -> &mut Vec<u8> {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        self.blobs.get_mut(&digest).unwrap()
    }

    pub fn index_json(&self) -> Vec<u8> {
        json!({ "schemaVersion": 2, "manifests": self.entries }).to_string().into_bytes()
    }
}
