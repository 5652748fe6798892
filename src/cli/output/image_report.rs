//! The answer of `imgmv inspect`: a JSON document, or lines.

use super::answer::VERSION;
use super::referrer_tree::ReferrerNode;
use crate::image::Image;
use crate::image::media_type::{DOCKER_CONFIG, OCI_CONFIG, is_foreign_layer, is_index};
use crate::image::{Descriptor, Digest, Manifest, Name, Platform};
use crate::message::printable;
use crate::source::Store;
use crate::source::documents;
use crate::{Error, Result};
use indicatif::HumanBytes;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

const MAX_SHOWN_TYPES: usize = 8;

#[derive(Serialize)]
pub struct ImageDocument {
    version: u32,
    images: Vec<InspectedImage>,
}

impl ImageDocument {
    pub fn new(images: Vec<InspectedImage>) -> ImageDocument {
        ImageDocument { version: VERSION, images }
    }
}

/// One image: its indexes (the root first) and its manifests.
#[derive(Serialize)]
pub struct InspectedImage {
    names: Vec<String>,
    digest: Digest,
    media_type: String,
    size: u64,
    /// The source does not have this root: imgmv generated it, from a config and layers or from manifests of one name.
    synthesised: bool,
    indexes: Vec<IndexEntry>,
    manifests: Vec<ImageManifest>,
    /// The manifests that belong to the image, as `imgmv list --referrers` prints them; null if they are not known.
    referrers: Option<Vec<ReferrerEntry>>,
    #[serde(skip)]
    referrer_types: Vec<String>,
    /// Entries of the indexes that are not manifests (BuildKit's cache).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    index_blobs: Vec<IndexEntry>,
}

/// The manifest of one platform, or of an artifact.
#[derive(Serialize)]
struct ImageManifest {
    #[serde(flatten)]
    at: IndexEntry,
    platform: Option<String>,
    /// The index lists the manifest, but the source does not have it.
    missing: bool,
    subject: Option<Digest>,
    config: Option<IndexEntry>,
    layers: Vec<IndexEntry>,
}

/// A manifest that belongs to the image.
#[derive(Serialize)]
struct ReferrerEntry {
    #[serde(flatten)]
    at: IndexEntry,
    /// The manifest to which it belongs: the root, a manifest below it, or another referrer.
    subject: Digest,
    /// The tag of cosign that names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

impl From<&ReferrerNode> for ReferrerEntry {
    fn from(node: &ReferrerNode) -> ReferrerEntry {
        let at = IndexEntry {
            digest: node.digest,
            media_type: node.media_type.clone(),
            size: node.size,
            artifact_type: node.artifact_type.clone(),
            annotations: Some(node.annotations.clone()).filter(|annotations| !annotations.is_empty()),
            urls: None,
        };
        ReferrerEntry { at, subject: node.subject, tag: node.tag.clone() }
    }
}

/// A descriptor.
#[derive(Serialize, Clone)]
struct IndexEntry {
    digest: Digest,
    media_type: String,
    /// In bytes.
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    urls: Option<Vec<String>>,
}

impl From<&Descriptor> for IndexEntry {
    fn from(at: &Descriptor) -> IndexEntry {
        IndexEntry {
            digest: at.digest,
            media_type: at.media_type.clone(),
            size: at.size,
            artifact_type: at.artifact_type.clone(),
            annotations: at.annotations.clone(),
            urls: at.urls.clone(),
        }
    }
}

impl InspectedImage {
    /// Describes `image`. Reads a config from `store` only if the index does not tell the platform.
    pub fn new(image: &Image, synthesised: bool, store: &dyn Store) -> Result<InspectedImage> {
        let manifests: HashMap<Digest, &Manifest> =
            image.tree.iter().map(|manifest| (manifest.digest(), manifest)).collect();
        let mut inspected = InspectedImage {
            names: image.names.iter().map(Name::to_string).collect(),
            digest: image.root().digest(),
            media_type: image.root().descriptor.media_type.clone(),
            size: image.root().descriptor.size,
            synthesised,
            indexes: Vec::new(),
            manifests: Vec::new(),
            referrers: None,
            referrer_types: Vec::new(),
            index_blobs: Vec::new(),
        };
        inspected.descend(&image.root().descriptor, &manifests, store)?;
        Ok(inspected)
    }

    fn descend(&mut self, at: &Descriptor, manifests: &HashMap<Digest, &Manifest>, store: &dyn Store) -> Result<()> {
        let Some(manifest) = manifests.get(&at.digest) else {
            self.manifests.push(ImageManifest::missing(at));
            return Ok(());
        };
        if !is_index(&manifest.descriptor.media_type) {
            self.manifests.push(ImageManifest::new(at, manifest, store)?);
            return Ok(());
        }
        // An index that several indexes list appears once.
        if self.indexes.iter().any(|index| index.digest == at.digest) {
            return Ok(());
        }
        self.indexes.push(IndexEntry { media_type: manifest.descriptor.media_type.clone(), ..IndexEntry::from(at) });
        self.index_blobs.extend(manifest.layers().iter().map(IndexEntry::from));
        manifest.children().iter().try_for_each(|child| self.descend(child, manifests, store))
    }

    /// Adds the manifests that belong to the image.
    pub fn add_referrers(&mut self, referrers: &[&ReferrerNode]) {
        self.referrers = Some(referrers.iter().map(|node| ReferrerEntry::from(*node)).collect());
        self.referrer_types = referrer_types(referrers);
    }

    /// Removes all manifests except the best match for each of `wanted`.
    pub fn retain_platforms(&mut self, wanted: &[Platform]) -> Result<()> {
        let offered: Vec<Option<Platform>> = self
            .manifests
            .iter()
            .map(|manifest| manifest.platform.as_ref().and_then(|platform| platform.parse().ok()))
            .collect();
        let mut best_digests = Vec::new();
        for platform in wanted {
            let Some(best) = platform.best(offered.iter().map(Option::as_ref)) else {
                let name = self.names.first().cloned().unwrap_or_else(|| self.digest.to_string());
                let has: Vec<&str> = self.manifests.iter().filter_map(|m| m.platform.as_deref()).collect();
                return Err(Error::not_found(format!("{name} has no image for {platform}; it has {}", has.join(", "))));
            };
            best_digests.push(self.manifests[best].at.digest);
        }
        self.manifests.retain(|manifest| best_digests.contains(&manifest.at.digest));
        Ok(())
    }

    /// The answer without `--json`.
    pub fn lines(&self) -> Vec<String> {
        let names = if self.names.is_empty() { "(no name)".to_owned() } else { self.names.join(", ") };
        let mut lines = vec![names];
        if let Some(count) = self.referrers.as_ref().map(Vec::len).filter(|count| *count > 0) {
            lines.push(format!("  referrers: {count} ({})", self.referrer_types.join(", ")));
        }
        lines.extend(self.indexes.iter().map(|index| index.line("index", 1)));
        lines.extend(self.index_blobs.iter().map(|blob| blob.line("blob", 2)));
        for manifest in &self.manifests {
            let platform = manifest.platform.as_deref().unwrap_or("-");
            let remark = match (manifest.missing, self.synthesised) {
                (true, _) => "  (missing)",
                (false, true) if self.indexes.is_empty() => "  (generated from config and layers)",
                (false, _) => "",
            };
            lines.push(format!("  {}{remark}", printable(platform)));
            lines.push(manifest.at.line("manifest", 2));
            lines.extend(manifest.config.iter().map(|config| config.line("config", 2)));
            lines.extend(manifest.layers.iter().map(|layer| layer.line("layer", 2)));
        }
        lines
    }
}

/// The types of `referrers`, each once; at most [`MAX_SHOWN_TYPES`].
fn referrer_types(referrers: &[&ReferrerNode]) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    for ReferrerNode { kind, .. } in referrers {
        if types.len() < MAX_SHOWN_TYPES && !types.contains(kind) {
            types.push(kind.clone());
        }
    }
    types
}

impl ImageManifest {
    fn new(at: &Descriptor, manifest: &Manifest, store: &dyn Store) -> Result<ImageManifest> {
        let platform = match &at.platform {
            Some(platform) => Some(platform.to_string()),
            None => platform_of_config(manifest, store)?,
        };
        Ok(ImageManifest {
            // The media type of the manifest itself, because the index may not have one.
            at: IndexEntry { media_type: manifest.descriptor.media_type.clone(), ..IndexEntry::from(at) },
            platform,
            missing: false,
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            config: manifest.config().map(IndexEntry::from),
            layers: manifest.layers().iter().map(IndexEntry::from).collect(),
        })
    }

    fn missing(at: &Descriptor) -> ImageManifest {
        let platform = at.platform.as_ref().map(Platform::to_string);
        let (subject, config, layers) = (None, None, Vec::new());
        ImageManifest { at: IndexEntry::from(at), platform, missing: true, subject, config, layers }
    }
}

/// Returns the platform from the image's config; none for artifacts.
fn platform_of_config(manifest: &Manifest, store: &dyn Store) -> Result<Option<String>> {
    let Some(config) = manifest.config().filter(|config| is_image_config(config)) else { return Ok(None) };
    let platform = documents::config(store, config)?.platform();
    Ok(Some(platform.to_string()).filter(|_| !platform.os.is_empty()))
}

/// Whether `config` belongs to a container image, so that it has a platform.
fn is_image_config(config: &Descriptor) -> bool {
    config.media_type == OCI_CONFIG || config.media_type == DOCKER_CONFIG
}

impl IndexEntry {
    fn line(&self, what: &str, depth: usize) -> String {
        let size = HumanBytes(self.size).to_string();
        let foreign = if is_foreign_layer(&self.media_type) { "  (nondistributable)" } else { "" };
        let media_type = printable(&self.media_type);
        format!("{:indent$}{what:8} {}  {size:>10}  {media_type}{foreign}", "", self.digest, indent = depth * 2)
    }
}
