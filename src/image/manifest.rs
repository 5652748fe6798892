//! Manifests and indexes (image-spec, manifest.md and image-index.md), kept as the bytes they came as, with what they
//! point at read out of them once and checked.

use super::{Descriptor, Digest, Platform, media_type};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::HashSet;

/// In bytes; the least a registry has to accept (distribution-spec, "Pushing Manifests"), and the most imgmv takes.
pub const MAX_MANIFEST: u64 = 4 << 20;

/// A document that names others: its exact bytes, and what they say.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Type, digest and size of `bytes`, as found, not as claimed.
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
    pub body: Body,
    /// The image this is a referrer of.
    pub subject: Option<Descriptor>,
}

#[derive(Debug, Clone)]
// One per manifest, never many in a row: a box would buy nothing.
#[allow(clippy::large_enum_variant)]
pub enum Body {
    /// Several images, or indexes again.
    Index(Vec<Descriptor>),
    /// One image or artifact. `config` is missing only in the early artifact form.
    Image { config: Option<Descriptor>, layers: Vec<Descriptor> },
    /// A type that is not known: carried, not looked into.
    Opaque,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
}

impl Manifest {
    /// Reads `bytes`, which `claim` describes: digest, size and type must agree with it.
    ///
    /// Fails with `Invalid` where they do not, where the document is both manifest and index (CVE-2021-41190), where
    /// it is docker's schema 1, or where it is no such document.
    pub fn parse(bytes: Vec<u8>, claim: &Descriptor) -> Result<Manifest> {
        let found = super::Hasher::new(claim.digest.algorithm()).with(&bytes).finish();
        if found != claim.digest {
            return Err(Error::invalid(format!(
                "manifest {} does not match: got {found}; ask the source again",
                claim.digest
            )));
        }
        if bytes.len() as u64 != claim.size {
            return Err(Error::invalid(format!(
                "manifest {} has {} bytes, its descriptor says {}",
                claim.digest,
                bytes.len(),
                claim.size
            )));
        }
        Manifest::read(bytes, &claim.media_type, found)
    }

    /// Reads `bytes` of which nothing but perhaps the type (empty: none) is claimed.
    pub fn unclaimed(bytes: Vec<u8>, media_type: &str) -> Result<Manifest> {
        let digest = Digest::of(&bytes);
        Manifest::read(bytes, media_type, digest)
    }

    fn read(bytes: Vec<u8>, claimed_type: &str, digest: Digest) -> Result<Manifest> {
        let size = bytes.len() as u64;
        if size > MAX_MANIFEST {
            return Err(Error::invalid(format!(
                "manifest {digest} has {size} bytes, more than the {MAX_MANIFEST} allowed"
            )));
        }
        let wrong = |why: &str| Error::invalid(format!("manifest {digest} is refused: {why}"));
        let known =
            claimed_type.is_empty() || media_type::is_index(claimed_type) || media_type::is_manifest(claimed_type);
        if media_type::DOCKER_SCHEMA1.contains(&claimed_type) {
            return Err(wrong("it is docker's schema 1, which was withdrawn; push the image again with a newer tool"));
        }
        if !known
            && claimed_type != media_type::OCTETS
            && !claimed_type.starts_with("application/json")
            && !claimed_type.starts_with("text/plain")
        {
            if let Some(stated) = stated_type(&bytes) {
                return Err(wrong(&format!("it says {stated:?} of itself and was announced as {claimed_type:?}")));
            }
            let descriptor = Descriptor::new(claimed_type, digest, size);
            return Ok(Manifest { descriptor, bytes, body: Body::Opaque, subject: None });
        }
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|e| wrong(&format!("it is not the JSON expected ({e})")))?;
        if document.fs_layers.is_some() || document.schema_version == Some(1) {
            return Err(wrong("it is docker's schema 1, which was withdrawn; push the image again with a newer tool"));
        }
        if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
            return Err(wrong("it is a manifest and an index at once, which tools read differently (CVE-2021-41190)"));
        }
        let claimed_type = if known { claimed_type } else { "" };
        let stated = document.media_type.as_deref().unwrap_or("");
        if !stated.is_empty() && !claimed_type.is_empty() && !media_type::same_kind(stated, claimed_type) {
            return Err(wrong(&format!("it says {stated:?} of itself and was announced as {claimed_type:?}")));
        }
        let shape = [stated, claimed_type].into_iter().find(|t| !t.is_empty()).map(str::to_owned);
        let is_index = document.manifests.is_some();
        let media_type = match shape {
            Some(shape)
                if media_type::is_index(&shape) != is_index
                    || !(media_type::is_index(&shape) || media_type::is_manifest(&shape)) =>
            {
                return Err(wrong(&format!("its content is not what its type {shape:?} says")));
            }
            Some(shape) => shape,
            None if is_index => media_type::OCI_INDEX.to_owned(),
            None => media_type::OCI_MANIFEST.to_owned(),
        };
        let body = match (document.manifests, document.config, document.layers, document.blobs) {
            (Some(manifests), ..) => Body::Index(manifests),
            (None, None, None, Some(blobs)) => Body::Image { config: None, layers: blobs },
            (None, Some(config), layers, _) => Body::Image { config: Some(config), layers: layers.unwrap_or_default() },
            (None, None, ..) => return Err(wrong("it has neither a config nor manifests")),
        };
        let descriptor = Descriptor::new(media_type, digest, size);
        Ok(Manifest { descriptor, bytes, body, subject: document.subject })
    }

    /// The manifest of an image that has none (a docker-save archive of the old form). Its bytes become digests for
    /// ever: they are frozen by a test.
    pub fn synthesise(config: &Descriptor, layers: &[Descriptor]) -> Manifest {
        let pointer = |d: &Descriptor| {
            format!("{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":{}}}", d.media_type, d.digest, d.size)
        };
        let layers: Vec<String> = layers.iter().map(pointer).collect();
        let text = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{},\"layers\":[{}]}}",
            media_type::OCI_MANIFEST,
            pointer(config),
            layers.join(",")
        );
        Manifest::unclaimed(text.into_bytes(), media_type::OCI_MANIFEST).expect("made here of checked parts")
    }

    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Manifests and indexes one step below.
    pub fn children(&self) -> &[Descriptor] {
        match &self.body {
            Body::Index(manifests) => manifests,
            _ => &[],
        }
    }

    /// Config and layers, each digest once, in order; foreign layers left out.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let Body::Image { config, layers } = &self.body else {
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let all = config.iter().chain(layers.iter().filter(|layer| !layer.is_foreign()));
        all.filter(|blob| seen.insert(blob.digest)).collect()
    }

    pub fn config(&self) -> Option<&Descriptor> {
        match &self.body {
            Body::Image { config, .. } => config.as_ref(),
            _ => None,
        }
    }

    pub fn layers(&self) -> &[Descriptor] {
        match &self.body {
            Body::Image { layers, .. } => layers,
            _ => &[],
        }
    }
}

/// The type that a document states, if that is a manifest's or an index's: announced as anything else, it would be
/// carried without what it names.
fn stated_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stated {
        media_type: String,
    }
    let stated = serde_json::from_slice::<Stated>(bytes).ok()?.media_type;
    (media_type::is_index(&stated) || media_type::is_manifest(&stated)).then_some(stated)
}

/// What imgmv reads of an image's config (image-spec, config.md).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub variant: Option<String>,
    #[serde(default)]
    pub rootfs: Option<RootFs>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl Config {
    pub fn parse(bytes: &[u8]) -> Result<Config> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid(format!("config {} is not an image's config: {e}", Digest::of(bytes))))
    }

    /// Digests of the uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        self.rootfs.as_ref().map_or(&[], |rootfs| &rootfs.diff_ids)
    }

    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, media_type: &str) -> Result<Manifest> {
        Manifest::unclaimed(text.as_bytes().to_vec(), media_type)
    }

    #[test]
    fn a_document_that_is_both_manifest_and_index_is_refused() {
        let text = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(parse(text, "").unwrap_err().to_string().contains("CVE-2021-41190"));
    }

    #[test]
    fn a_type_that_belies_the_content_is_refused() {
        assert!(parse(r#"{"schemaVersion":2,"manifests":[]}"#, media_type::OCI_MANIFEST).is_err());
        let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(parse(index, media_type::OCI_MANIFEST).is_err());
        // The same kind of document in the other's form: its own word counts.
        assert_eq!(parse(index, media_type::DOCKER_LIST).unwrap().descriptor.media_type, media_type::OCI_INDEX);
        assert!(parse(r#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err().to_string().contains("schema 1"));
    }

    #[test]
    fn bytes_other_than_those_announced_are_refused() {
        let manifest = parse(r#"{"schemaVersion":2,"manifests":[]}"#, "").unwrap();
        let mut bytes = manifest.bytes.clone();
        assert!(Manifest::parse(bytes.clone(), &manifest.descriptor).is_ok());
        bytes.push(b' ');
        assert!(Manifest::parse(bytes, &manifest.descriptor).is_err());
    }

    #[test]
    fn synthesised_manifests_never_change() {
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let layer = Descriptor::of(media_type::OCI_LAYER, b"layer");
        let made = Manifest::synthesise(&config, &[layer]);
        assert_eq!(
            made.digest().to_string(),
            "sha256:a3aa9a6043e00956389f9e9ac582e89b5acda67f142cb2b9f4ca1ab146b651d7"
        );
    }
}
