//! Manifests and indexes (image-spec, manifest.md and image-index.md): the exact bytes, and the fields parsed from them
//! once.

use super::{Descriptor, Digest, media_type};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::HashSet;

/// The maximum size of a manifest: every registry must accept this size (distribution-spec, "Pushing Manifests").
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A manifest or an index.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The actual type, digest and size of `bytes`, not the claimed ones.
    pub descriptor: Descriptor,
    /// The document, unchanged.
    pub bytes: Vec<u8>,
    /// The parsed references to other content.
    pub body: Body,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// The `artifactType` (manifest.md); never empty.
    pub artifact_type: Option<String>,
}

#[derive(Debug, Clone)]
// There is one per manifest, so a box would not save memory.
#[allow(clippy::large_enum_variant)]
pub enum Body {
    /// An index of images or of other indexes. BuildKit's cache also lists `blobs`, which differ only by media type.
    Index { manifests: Vec<Descriptor>, blobs: Vec<Descriptor> },
    /// One image or artifact. Only the withdrawn OCI artifact manifest has no `config`.
    Image { config: Option<Descriptor>, layers: Vec<Descriptor> },
    /// An unknown type: copied without parsing.
    Opaque,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFields {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
}

impl Manifest {
    /// Parses `bytes`. Digest, size and type must match `claim`.
    ///
    /// Fails with `Invalid` if they do not match, if the document is both manifest and index (CVE-2021-41190), if it is
    /// docker's schema 1, or if it is not a manifest.
    pub fn parse(bytes: Vec<u8>, claim: &Descriptor) -> Result<Manifest> {
        let found = super::Hasher::new(claim.digest.algorithm()).with(&bytes).finish();
        if found != claim.digest {
            return Err(Error::invalid(format!(
                "manifest {} does not match: got {found}; fetch it from the source again",
                claim.digest
            )));
        }
        if bytes.len() as u64 != claim.size {
            return Err(Error::invalid(format!(
                "manifest {}: expected {} bytes by its descriptor, got {}",
                claim.digest,
                claim.size,
                bytes.len()
            )));
        }
        Manifest::read(bytes, &claim.media_type, found)
    }

    /// Parses `bytes`, whose digest and size were compared with `claim` before.
    pub(crate) fn hashed(bytes: Vec<u8>, claim: &Descriptor) -> Result<Manifest> {
        Manifest::read(bytes, &claim.media_type, claim.digest)
    }

    /// Parses `bytes` without a claim of digest and size. `media_type` may be empty.
    pub fn from_bytes(bytes: Vec<u8>, media_type: &str) -> Result<Manifest> {
        let digest = Digest::of(&bytes);
        Manifest::read(bytes, media_type, digest)
    }

    /// Checks that `bytes` are a manifest of any kind, known or not: a JSON object with at least one field of a
    /// manifest. The error describes `bytes`.
    pub(crate) fn check_fields(bytes: &[u8]) -> Result<(), &'static str> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            schema_version: Option<u64>,
            media_type: Option<String>,
            artifact_type: Option<String>,
            manifests: Option<IgnoredAny>,
            config: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
            blobs: Option<IgnoredAny>,
        }
        let without = "JSON without a manifest's fields";
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
            true => without,
            false => "something that is not JSON",
        })?;
        let lists = [fields.manifests, fields.config, fields.layers, fields.blobs];
        let stated = [fields.media_type, fields.artifact_type];
        let has_one =
            fields.schema_version.is_some() || lists.iter().any(Option::is_some) || stated.iter().any(Option::is_some);
        // serde also accepts a list as an object.
        let is_object = bytes.trim_ascii_start().starts_with(b"{");
        if has_one && is_object { Ok(()) } else { Err(without) }
    }

    fn read(bytes: Vec<u8>, claimed_type: &str, digest: Digest) -> Result<Manifest> {
        let size = bytes.len() as u64;
        if size > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!(
                "manifest {digest} has {size} bytes; at most {MAX_MANIFEST_BYTES} are allowed"
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
                return Err(wrong(&mismatch(&stated, claimed_type)));
            }
            Manifest::check_fields(&bytes).map_err(|why| wrong(&format!("it is {why}")))?;
            let descriptor = Descriptor::new(claimed_type, digest, size);
            return Ok(Manifest { descriptor, bytes, body: Body::Opaque, subject: None, artifact_type: None });
        }
        let document: ManifestFields =
            serde_json::from_slice(&bytes).map_err(|e| wrong(&format!("it is not the expected JSON ({e})")))?;
        if document.fs_layers.is_some() || document.schema_version == Some(1) {
            return Err(wrong("it is docker's schema 1, which was withdrawn; push the image again with a newer tool"));
        }
        if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
            return Err(wrong(
                "it is both a manifest and an index, so tools would read it differently (CVE-2021-41190)",
            ));
        }
        let claimed_type = if known { claimed_type } else { "" };
        let stated = document.media_type.as_deref().unwrap_or("");
        if !stated.is_empty() && !claimed_type.is_empty() && !media_type::same_kind(stated, claimed_type) {
            return Err(wrong(&mismatch(stated, claimed_type)));
        }
        let shape = [stated, claimed_type].into_iter().find(|t| !t.is_empty()).map(str::to_owned);
        let is_index = document.manifests.is_some();
        let media_type = match shape {
            Some(shape)
                if media_type::is_index(&shape) != is_index
                    || !(media_type::is_index(&shape) || media_type::is_manifest(&shape)) =>
            {
                return Err(wrong(&format!("its content does not match its type {shape:?}")));
            }
            Some(shape) => shape,
            None if is_index => media_type::OCI_INDEX.to_owned(),
            None => media_type::OCI_MANIFEST.to_owned(),
        };
        let body = match (document.manifests, document.config, document.layers, document.blobs) {
            (Some(listed), ..) => {
                let (manifests, blobs) = listed.into_iter().partition(|entry| entry.names_manifest());
                Body::Index { manifests, blobs }
            }
            (None, None, None, Some(blobs)) => Body::Image { config: None, layers: blobs },
            (None, Some(config), layers, _) => Body::Image { config: Some(config), layers: layers.unwrap_or_default() },
            (None, None, ..) => return Err(wrong("it has neither a config nor manifests")),
        };
        let descriptor = Descriptor::new(media_type, digest, size);
        let artifact_type = document.artifact_type.filter(|stated| !stated.is_empty());
        Ok(Manifest { descriptor, bytes, body, subject: document.subject, artifact_type })
    }

    /// Creates a manifest for an image without one (docker-save's legacy form). The bytes determine the digest, so a
    /// test freezes them.
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
        Manifest::from_bytes(text.into_bytes(), media_type::OCI_MANIFEST).expect("made of checked parts")
    }

    /// Returns the digest of `bytes`.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Returns the manifests and indexes that an index lists.
    pub fn children(&self) -> &[Descriptor] {
        match &self.body {
            Body::Index { manifests, .. } => manifests,
            _ => &[],
        }
    }

    /// Returns config and layers without foreign layers, each digest once, in order: these blobs must exist.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let layers = self.layers().iter().filter(|layer| !layer.is_foreign());
        let mut seen = HashSet::new();
        self.config().into_iter().chain(layers).filter(|blob| seen.insert(blob.digest)).collect()
    }

    /// Returns the foreign layers (nondistributable types), which a source may not have.
    pub fn foreign_layers(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers().iter().filter(|layer| layer.is_foreign())
    }

    /// Returns the config of an image or artifact; `None` for an index.
    pub fn config(&self) -> Option<&Descriptor> {
        match &self.body {
            Body::Image { config, .. } => config.as_ref(),
            _ => None,
        }
    }

    /// Returns the layers; for an index, the blobs that it lists in addition to manifests.
    pub fn layers(&self) -> &[Descriptor] {
        match &self.body {
            Body::Image { layers, .. } => layers,
            Body::Index { blobs, .. } => blobs,
            Body::Opaque => &[],
        }
    }

    /// Whether this is a container image or an index of images, so that its layers and its form may be converted.
    /// Artifacts, referrers and unknown types are copied unchanged.
    pub fn is_container_image(&self) -> bool {
        let image_type = |text: &str| [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&text);
        let plain = self.subject.is_none() && self.artifact_type.as_deref().is_none_or(image_type);
        plain
            && match &self.body {
                Body::Image { config, .. } => config.as_ref().is_some_and(|config| image_type(&config.media_type)),
                Body::Index { blobs, .. } => blobs.is_empty(),
                Body::Opaque => false,
            }
    }
}

/// Returns the `mediaType` field if it is that of a manifest or an index. Under another claimed type, the document would
/// be copied without its children.
fn stated_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stated {
        media_type: String,
    }
    let stated = serde_json::from_slice::<Stated>(bytes).ok()?.media_type;
    (media_type::is_index(&stated) || media_type::is_manifest(&stated)).then_some(stated)
}

/// The reason for refusing a document whose `mediaType` field and claimed type differ.
fn mismatch(stated: &str, claimed: &str) -> String {
    format!("its mediaType field is {stated:?}, but its claimed type is {claimed:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, media_type: &str) -> Result<Manifest> {
        Manifest::from_bytes(text.as_bytes().to_vec(), media_type)
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
        // The same kind in OCI and in docker form: the document's own `mediaType` counts.
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
    fn only_images_that_run_may_be_converted() {
        let layer = format!(r#"{{"mediaType":"{}","digest":"{}","size":1}}"#, media_type::OCI_LAYER, Digest::of(b"a"));
        let manifest = |config: &str, more: &str| {
            let config = format!(r#"{{"mediaType":"{config}","digest":"{}","size":1}}"#, Digest::of(b"b"));
            parse(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{more}}}"#), "").unwrap()
        };
        let index = |child: &str, more: &str| {
            parse(&format!(r#"{{"schemaVersion":2,"manifests":[{child}]{more}}}"#), "").unwrap()
        };
        let child = layer.replace(media_type::OCI_LAYER, media_type::OCI_MANIFEST);
        let subject = format!(r#","subject":{child}"#);
        for (manifest, converted) in [
            (manifest(media_type::OCI_CONFIG, ""), true),
            (manifest(media_type::DOCKER_CONFIG, r#","artifactType":"""#), true),
            (manifest(media_type::OCI_CONFIG, r#","artifactType":"application/vnd.oci.image.config.v1+json""#), true),
            (manifest(media_type::OCI_CONFIG, r#","artifactType":"application/x-policy""#), false),
            (manifest(media_type::OCI_CONFIG, &subject), false),
            (manifest("application/vnd.oci.empty.v1+json", ""), false),
            (manifest("application/vnd.buildkit.cacheconfig.v0", ""), false),
            (manifest("application/vnd.docker.plugin.v1+json", ""), false),
            (index(&child, ""), true),
            (index(&layer, ""), false),
            (index(&child, r#","artifactType":"application/x-set""#), false),
        ] {
            assert_eq!(manifest.is_container_image(), converted, "{}", String::from_utf8_lossy(&manifest.bytes));
        }
    }

    #[test]
    fn what_an_index_lists_is_a_manifest_by_its_type_only() {
        let entry =
            |kind: &str, at: &[u8]| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":1}}"#, Digest::of(at));
        let kinds = [media_type::OCI_MANIFEST, media_type::DOCKER_LIST, "", media_type::OCI_LAYER_GZIP, "text/plain"];
        let listed: Vec<String> = kinds.iter().map(|kind| entry(kind, kind.as_bytes())).collect();
        let index = parse(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(",")), "").unwrap();
        let digests = |entries: &[Descriptor]| entries.iter().map(|entry| entry.digest).collect::<Vec<_>>();
        let expected: Vec<Digest> = kinds.iter().map(|kind| Digest::of(kind.as_bytes())).collect();
        assert_eq!(
            (digests(index.children()), digests(index.layers())),
            (expected[..3].to_vec(), expected[3..].to_vec())
        );
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
