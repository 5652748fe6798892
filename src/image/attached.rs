//! Manifests that belong to an image without being part of it: referrers (image-spec, "subject"), and the manifests
//! that cosign finds by a tag made of the image's digest.

use super::{Descriptor, Digest, Manifest, json_tree, media_type};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// The maximum number of referrers of one subject that are copied.
pub const MAX_COPIED_REFERRERS: usize = 10_000;
/// The annotation of an image in the list of an archive: the digest of the index that the image is a part of.
pub(crate) const ORIGINAL: &str = "imgmv.original";
/// The endings of cosign's tags: signatures, attestations, SBOMs.
const DIGEST_TAG_ENDINGS: [&str; 3] = ["sig", "att", "sbom"];

/// A manifest that belongs to an image.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The manifest itself.
    pub manifest: Manifest,
    /// The tag that leads to it; `None` for a referrer, whose `subject` leads to the image.
    pub tag: Option<String>,
    /// The sink has it already, so it is not copied.
    pub is_held: bool,
}

impl Attached {
    /// Creates a manifest that the sink is not known to have.
    pub fn new(manifest: Manifest, tag: Option<String>) -> Attached {
        Attached { manifest, tag, is_held: false }
    }

    /// Whether the manifest is only a part of what belongs to the image: an attached index lists it, or it is the index
    /// that the image is a part of.
    pub fn is_part(&self) -> bool {
        self.tag.is_none() && self.manifest.subject.is_none()
    }
}

/// The tags under which cosign stores what belongs to `subject`: `sha256-<hex>.sig`, `.att` and `.sbom`.
pub fn digest_tags(subject: &Digest) -> [String; 3] {
    DIGEST_TAG_ENDINGS.map(|ending| format!("{}.{ending}", subject.to_string().replacen(':', "-", 1)))
}

/// Whether `tag` has the form of [`digest_tags`].
pub fn is_digest_tag(tag: &str) -> bool {
    tag.contains('.') && tagged_subject(tag).is_some()
}

/// Whether `tag` has the form of a referrers tag, `sha256-<hex>` (distribution-spec, "Referrers Tag Schema").
pub fn is_referrers_tag(tag: &str) -> bool {
    !tag.contains('.') && tagged_subject(tag).is_some()
}

/// The referrers tag of `subject`: `sha256-<hex>` (distribution-spec, "Referrers Tag Schema").
pub fn referrers_tag(subject: &Digest) -> String {
    // The specification cuts the hex digits of a longer digest.
    let hex: String = subject.hex().chars().take(64).collect();
    format!("{}-{hex}", subject.algorithm().name())
}

/// The list of referrers `list`, the bytes under a referrers tag, with `added`; a new list where there is none. `None` if
/// it has all of them. Entries and fields that imgmv does not know stay.
///
/// Fails, with the reason, if `list` is not an index or becomes too large.
pub fn with_referrers(list: Option<&[u8]>, added: &[Descriptor]) -> Result<Option<Manifest>, String> {
    let new = || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] });
    let mut list = list.map_or_else(|| Ok(new()), json_tree)?;
    if list.get("manifests").is_some_and(Value::is_null) {
        list["manifests"] = json!([]);
    }
    let entries = match list.get_mut("manifests") {
        Some(Value::Array(entries)) => entries,
        _ => return Err("it is not an image index".to_owned()),
    };
    let digest = |entry: &Value| entry.get("digest").and_then(Value::as_str).map(str::to_owned);
    let mut known: HashSet<String> = entries.iter().filter_map(digest).collect();
    let before = entries.len();
    entries.extend(added.iter().filter(|entry| known.insert(entry.digest.to_string())).map(|entry| json!(entry)));
    if entries.len() == before {
        return Ok(None);
    }
    let made = Manifest::from_bytes(list.to_string().into_bytes(), media_type::OCI_INDEX);
    made.map(Some).map_err(|error| error.to_string())
}

/// The list of referrers `list`, the bytes under a referrers tag, without the entries of `digest`, and the number of the
/// others; `None` if it has none of `digest`.
///
/// Fails, with the reason, if `list` is not an index.
pub fn without_referrer(list: &[u8], digest: &Digest) -> Result<Option<(Manifest, usize)>, String> {
    let mut list = json_tree(list)?;
    let Some(Value::Array(entries)) = list.get_mut("manifests") else { return Ok(None) };
    let (before, named) = (entries.len(), digest.to_string());
    entries.retain(|entry| entry.get("digest").and_then(Value::as_str) != Some(&named));
    let left = entries.len();
    if left == before {
        return Ok(None);
    }
    let made = Manifest::from_bytes(list.to_string().into_bytes(), media_type::OCI_INDEX);
    made.map(|list| Some((list, left))).map_err(|error| error.to_string())
}

/// The subject in a tag of the form of [`digest_tags`], or in a referrers tag, `sha256-<hex>` (distribution-spec,
/// "Referrers Tag Schema").
pub fn tagged_subject(tag: &str) -> Option<Digest> {
    let digest = match tag.rsplit_once('.') {
        Some((digest, ending)) => DIGEST_TAG_ENDINGS.contains(&ending).then_some(digest)?,
        None => tag,
    };
    digest.replacen('-', ":", 1).parse().ok()
}

impl Manifest {
    /// The entry for this manifest in a list of referrers: its artifact type (else its config's type) and annotations
    /// (distribution-spec, "Listing Referrers").
    pub fn referrer_entry(&self) -> Descriptor {
        #[derive(Default, Deserialize)]
        struct Annotated {
            annotations: Option<BTreeMap<String, String>>,
        }
        let config_type = || self.config().map(|config| config.media_type.clone());
        let Annotated { annotations } = serde_json::from_slice(&self.bytes).unwrap_or_default();
        let artifact_type = self.artifact_type.clone().or_else(config_type);
        Descriptor { artifact_type, annotations, ..self.descriptor.clone() }
    }
}

/// A kind of referrer, as a user selects it: a media type, or a word for several of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferrerType {
    /// Signatures of cosign and notation.
    Signature,
    /// Software bills of materials: SPDX, CycloneDX, syft.
    Sbom,
    /// in-toto attestations.
    Attestation,
    /// An artifact type, or the media type of the config.
    MediaType(String),
}

/// cosign's bundle, which carries signatures and attestations alike.
const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// Annotation of a bundle: the type of its statement.
const BUNDLE_PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign";

impl ReferrerType {
    /// The type of the manifest with this entry in a list, or under this one of cosign's tags.
    pub fn of(entry: &Descriptor, tag: Option<&str>) -> ReferrerType {
        let matches = |word: &ReferrerType| match tag {
            Some(tag) => word.matches_tag(tag),
            None => word.matches_entry(entry),
        };
        let words = [ReferrerType::Signature, ReferrerType::Sbom, ReferrerType::Attestation];
        let media_type = || entry.artifact_type.clone().unwrap_or_else(|| entry.media_type.clone());
        words.into_iter().find(matches).unwrap_or_else(|| ReferrerType::MediaType(media_type()))
    }

    /// Whether a referrer with this entry in a list is of this type.
    fn matches_entry(&self, entry: &Descriptor) -> bool {
        let own = comparable(entry.artifact_type.as_deref().unwrap_or_default());
        let one_of = |beginnings: &[&str]| beginnings.iter().any(|beginning| own.starts_with(beginning));
        // A bundle of cosign is an attestation if its annotation names another predicate than cosign's for signatures.
        let predicate = entry.annotation(BUNDLE_PREDICATE);
        let is_bundle = |of_signature: bool| {
            own.starts_with(SIGSTORE_BUNDLE)
                && predicate.is_none_or(|predicate| predicate.starts_with(SIGNATURE_PREDICATE) == of_signature)
        };
        match self {
            ReferrerType::Signature => {
                is_bundle(true)
                    || one_of(&["application/vnd.dev.cosign.artifact.sig", "application/vnd.cncf.notary.signature"])
            }
            ReferrerType::Sbom => one_of(&[
                "application/spdx",
                "text/spdx",
                "application/vnd.cyclonedx",
                "application/vnd.syft",
                "application/vnd.dev.cosign.artifact.sbom",
            ]),
            ReferrerType::Attestation => {
                is_bundle(false) || one_of(&["application/vnd.in-toto", "application/vnd.dev.cosign.artifact.att"])
            }
            ReferrerType::MediaType(wanted) => own == comparable(wanted),
        }
    }

    /// Whether a manifest under one of cosign's tags is of this type.
    fn matches_tag(&self, tag: &str) -> bool {
        let ending = tag.rsplit('.').next();
        match self {
            ReferrerType::Signature => ending == Some("sig"),
            ReferrerType::Attestation => ending == Some("att"),
            ReferrerType::Sbom => ending == Some("sbom"),
            ReferrerType::MediaType(_) => false,
        }
    }

    /// Whether `attached` is of this type.
    pub fn matches(&self, attached: &Attached) -> bool {
        match &attached.tag {
            Some(tag) => self.matches_tag(tag),
            None => self.matches_entry(&attached.manifest.referrer_entry()),
        }
    }
}

/// `media_type` in a form in which equal types have the same bytes: case and spaces around parameters do not count
/// (RFC 9110, "Media Type").
fn comparable(media_type: &str) -> String {
    let parts: Vec<&str> = media_type.split(';').map(str::trim).collect();
    parts.join(";").to_ascii_lowercase()
}

/// Whether `text` may be a media type, with or without parameters. One with a wildcard is not.
fn is_media_type(text: &str) -> bool {
    let name = text.split(';').next().unwrap_or_default().trim_end();
    let is_text = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let parts: Vec<&str> = name.split('/').collect();
    is_text && parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && !part.contains(['*', ' ']))
}

impl std::str::FromStr for ReferrerType {
    type Err = String;

    fn from_str(text: &str) -> Result<ReferrerType, String> {
        match text {
            "signature" => Ok(ReferrerType::Signature),
            "sbom" => Ok(ReferrerType::Sbom),
            "attestation" => Ok(ReferrerType::Attestation),
            _ if is_media_type(text) => Ok(ReferrerType::MediaType(text.to_owned())),
            _ => Err("expected a media type (without *), or one of signature, sbom, attestation".to_owned()),
        }
    }
}

impl std::fmt::Display for ReferrerType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ReferrerType::Signature => "signature",
            ReferrerType::Sbom => "sbom",
            ReferrerType::Attestation => "attestation",
            ReferrerType::MediaType(media_type) => media_type,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosigns_tags_are_known_by_their_form() {
        let digest = Digest::of(b"image");
        for tag in digest_tags(&digest) {
            assert!(is_digest_tag(&tag), "{tag}");
            assert_eq!(tagged_subject(&tag), Some(digest));
        }
        let hex = digest.hex();
        for tag in ["v1.sig".to_owned(), format!("sha256-{hex}"), format!("sha256-{hex}.txt"), format!("{hex}.sig")] {
            assert!(!is_digest_tag(&tag), "{tag}");
        }
    }

    #[test]
    fn types_are_words_or_media_types() {
        assert_eq!("sbom".parse(), Ok(ReferrerType::Sbom));
        assert_eq!("a/b".parse(), Ok(ReferrerType::MediaType("a/b".into())));
        for wrong in ["signatures", "application/*", "*/*", "a/", "a b/c", "a/b/c"] {
            assert!(wrong.parse::<ReferrerType>().is_err(), "{wrong}");
        }
        let bundle = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
        let attached = Attached::new(Manifest::from_bytes(bundle.to_vec(), "").unwrap(), None);
        let is = |text: &str| text.parse::<ReferrerType>().unwrap().matches(&attached);
        assert!(is("signature") && is("attestation") && !is("sbom"));
        assert!(is("Application/vnd.dev.sigstore.Bundle.v0.3+json"));
        assert!(is("application/vnd.dev.sigstore.bundle.v0.3+json") && !is("application/vnd.dev.sigstore.bundle"));
        let with_parameter = Descriptor {
            artifact_type: Some("Application/Vnd.in-toto+json;version=1".into()),
            ..attached.manifest.descriptor.clone()
        };
        for text in ["application/vnd.in-toto+json; version=1", "attestation"] {
            assert!(text.parse::<ReferrerType>().unwrap().matches_entry(&with_parameter), "{text}");
        }
        let tagged = Attached { tag: digest_tags(&Digest::of(b"x")).into_iter().next(), ..attached };
        assert!(ReferrerType::Signature.matches(&tagged) && !ReferrerType::Sbom.matches(&tagged));
    }
}
