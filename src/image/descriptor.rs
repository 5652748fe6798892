//! Descriptors (image-spec, descriptor.md): the references to blobs in a manifest or an index.

use super::{Digest, Hasher, Platform, media_type};
use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A reference to content by type, digest and size. It is untrusted until the bytes were hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type; empty if the document has none.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// In bytes.
    #[serde(deserialize_with = "bounded")]
    pub size: u64,
    /// The URLs of the content; mostly foreign layers have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Annotations by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The content in base64 (descriptor.md, "Embedded Content").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The `artifactType` of the manifest that this refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The platform of an image that an index lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The maximum size of a blob. The sum of all sizes that one copy can list fits into 64 bits.
const MAX_BLOB_BYTES: u64 = 1 << 44;

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        size if size <= MAX_BLOB_BYTES => Ok(size),
        size => Err(serde::de::Error::custom(format!("blob of {size} bytes: at most {MAX_BLOB_BYTES} are allowed"))),
    }
}

impl Descriptor {
    /// Creates a descriptor without optional fields; `size` is in bytes.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            urls: None,
            annotations: None,
            data: None,
            artifact_type: None,
            platform: None,
        }
    }

    /// Creates the descriptor of `bytes`, with their sha256 digest.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Returns the annotation `key`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Sets the annotation `key`.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }

    /// Whether this is a foreign layer (media-types.md, "nondistributable"), which registries may not have. Only the
    /// media type counts: other layers must exist even if they have `urls`.
    pub fn is_foreign(&self) -> bool {
        media_type::is_foreign_layer(&self.media_type)
    }

    /// Whether this entry of an index refers to a manifest or an index, not to another blob. An entry without a media
    /// type counts as one.
    pub fn names_manifest(&self) -> bool {
        let kind = self.media_type.as_str();
        kind.is_empty()
            || media_type::is_index(kind)
            || media_type::is_manifest(kind)
            || media_type::DOCKER_SCHEMA1.contains(&kind)
    }

    /// Returns the embedded content if it matches digest and size. Otherwise the caller reads the blob itself.
    pub fn embedded(&self) -> Option<Vec<u8>> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.data.as_ref()?).ok()?;
        let matches = bytes.len() as u64 == self.size
            && Hasher::new(self.digest.algorithm()).with(&bytes).finish() == self.digest;
        matches.then_some(bytes)
    }
}
