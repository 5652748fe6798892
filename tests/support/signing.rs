//! What belongs to an image, made without a signing program: a referrer, and a manifest under cosign's tag.
#![allow(dead_code)]

use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// The artifact type of the referrer.
pub const SIGNATURE: &str = "application/vnd.cncf.notary.signature";

/// What belongs to a signed image.
pub struct Signatures {
    /// The digest of the referrer.
    pub referrer: Digest,
    /// cosign's tag for the image.
    pub tag: String,
    /// The digest of the manifest under `tag`.
    pub tagged: Digest,
}

/// Signs the image or index `image` of the layout `layout`. Cosign's tag has no repository.
pub fn sign(layout: &Path, image: &str) -> Signatures {
    let subject: Digest = image.parse().unwrap();
    let bytes = fs::read(layout.join(subject.blob_path())).unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let subject = Descriptor::new(document["mediaType"].as_str().unwrap(), subject, bytes.len() as u64);
    let keep = |media_type: &str, bytes: &[u8]| {
        let blob = Descriptor::of(media_type, bytes);
        fs::write(layout.join(blob.digest.blob_path()), bytes).unwrap();
        blob
    };
    let manifest = |config: Descriptor, layer: Descriptor, more: Value| {
        let mut document = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            document[key] = value.clone();
        }
        keep(media_type::OCI_MANIFEST, document.to_string().as_bytes())
    };
    let empty = keep("application/vnd.oci.empty.v1+json", b"{}");
    let envelope = keep("application/jose+json", format!("signature of {image}").as_bytes());
    let referrer = manifest(empty, envelope, json!({ "artifactType": SIGNATURE, "subject": subject }));
    // The form of cosign: the config of an image without layers.
    let config = json!({ "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = keep(media_type::OCI_CONFIG, config.to_string().as_bytes());
    let payload = json!({ "critical": { "image": { "docker-manifest-digest": image } } }).to_string();
    let payload = keep("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
    let tagged = manifest(config, payload, json!({}));
    let tag = format!("{}.sig", image.replacen(':', "-", 1));
    list(layout, &[(None, &referrer), (Some(&tag), &tagged)]);
    Signatures { referrer: referrer.digest, tag, tagged: tagged.digest }
}

/// Adds `entries` to the list of `layout`.
fn list(layout: &Path, entries: &[(Option<&str>, &Descriptor)]) {
    let file = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (name, descriptor) in entries {
        let mut entry = json!(descriptor);
        if let Some(name) = name {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        index["manifests"].as_array_mut().unwrap().push(entry);
    }
    fs::write(file, index.to_string()).unwrap();
}
