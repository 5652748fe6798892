//! Descriptors (image-spec, descriptor.md): what names a blob inside a manifest or an index.

use super::{Digest, Hasher, Platform, media_type};
use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A typed, sized pointer to content. What a stranger wrote: believed only after the bytes were hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    #[serde(deserialize_with = "bounded")]
    pub size: u64,
    #[serde(default, skip_serializing_if = "nothing")]
    pub urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The content itself, base64 (descriptor.md, "Embedded Content").
    #[serde(default, skip_serializing_if = "nothing")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub platform: Option<Platform>,
}

/// More than any blob has, in bytes; and the sizes of all that one copy can list still add up in 64 bits.
const MAX_SIZE: u64 = 1 << 44;

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        size if size <= MAX_SIZE => Ok(size),
        size => Err(serde::de::Error::custom(format!("a blob of {size} bytes, more than the {MAX_SIZE} allowed"))),
    }
}

fn nothing<T>(value: &Option<T>) -> bool {
    value.is_none()
}

impl Descriptor {
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

    /// The descriptor of `bytes` as they are.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The annotation `key`, if there.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }

    /// A layer that registries were not to have (media-types.md, "nondistributable"), by its type alone: other layers have
    /// to be there even where they name `urls`.
    pub fn is_foreign(&self) -> bool {
        media_type::is_foreign_layer(&self.media_type)
    }

    /// Whether an index names a manifest or an index by this, and no other blob. One without a type is taken for such.
    pub fn names_manifest(&self) -> bool {
        let kind = self.media_type.as_str();
        kind.is_empty()
            || media_type::is_index(kind)
            || media_type::is_manifest(kind)
            || media_type::DOCKER_SCHEMA1.contains(&kind)
    }

    /// The embedded content, when it is there and is what the descriptor says; anything else is passed over for the
    /// blob itself.
    pub fn embedded(&self) -> Option<Vec<u8>> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.data.as_ref()?).ok()?;
        let right = bytes.len() as u64 == self.size
            && Hasher::new(self.digest.algorithm()).with(&bytes).finish() == self.digest;
        right.then_some(bytes)
    }
}
