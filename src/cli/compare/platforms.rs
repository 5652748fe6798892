//! The images of an index, and which of two indexes are compared with each other.

use super::Side;
use crate::image::media_type::is_index;
use crate::image::{Config, Descriptor, Digest, Manifest, Platform, json_tree};
use crate::source::documents;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

/// The image of one platform.
pub struct PlatformImage<'s> {
    pub manifest: &'s Manifest,
    pub platform: Option<Platform>,
    /// The config as JSON; null for an artifact.
    pub config: Value,
    /// The digests of the uncompressed layers; empty if they are not known.
    pub diff_ids: Vec<Digest>,
}

impl PlatformImage<'_> {
    pub fn name(&self) -> Option<String> {
        self.platform.as_ref().map(Platform::to_string)
    }

    pub fn layers(&self) -> &[Descriptor] {
        self.manifest.layers()
    }

    /// Whether the layer `at` is the layer `other_at` of `other`, compressed in any way.
    pub fn has_same_layer(&self, at: usize, other: &PlatformImage<'_>, other_at: usize) -> bool {
        let digest = |image: &PlatformImage<'_>, at: usize| image.layers().get(at).map(|layer| layer.digest);
        let same = |one: Option<Digest>, two: Option<Digest>| one.is_some() && one == two;
        same(digest(self, at), digest(other, other_at))
            || same(self.diff_ids.get(at).copied(), other.diff_ids.get(other_at).copied())
    }
}

/// The images in `side` that its store has, without attestations.
pub fn images<'s>(side: &Side<'s>) -> Result<Vec<PlatformImage<'s>>> {
    let listed: HashMap<Digest, &Platform> = side
        .image
        .tree
        .iter()
        .flat_map(|manifest| manifest.children())
        .filter_map(|child| Some((child.digest, child.platform.as_ref()?)))
        .collect();
    let mut images = Vec::new();
    for manifest in &side.image.tree {
        let platform = listed.get(&manifest.digest()).copied();
        let is_attestation = platform.is_some_and(|platform| platform.os == "unknown");
        if is_attestation || is_index(&manifest.descriptor.media_type) {
            continue;
        }
        let mut image =
            PlatformImage { manifest, platform: platform.cloned(), config: Value::Null, diff_ids: Vec::new() };
        if let Some(at) = manifest.config().filter(|_| manifest.is_container_image()) {
            let bytes = documents::document(side.store, at)?;
            image.config = json_tree(&bytes)
                .map_err(|why| Error::invalid(format!("config {} is not an image config: {why}", at.digest)))?;
            let config = Config::parse(&bytes)?;
            if config.diff_ids().len() == image.layers().len() {
                image.diff_ids = config.diff_ids().to_vec();
            }
            let own = config.platform();
            image.platform = image.platform.or_else(|| (!own.os.is_empty()).then_some(own));
        }
        images.push(image);
    }
    Ok(images)
}

/// The positions of images for the same platform. Two images without an index are compared for any platforms.
pub fn pairs(a: &[PlatformImage<'_>], b: &[PlatformImage<'_>]) -> Vec<(usize, usize)> {
    if let ([_], [_]) = (a, b) {
        return vec![(0, 0)];
    }
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (at, image) in a.iter().enumerate() {
        let fits = |other: usize| is_same(image.platform.as_ref(), b[other].platform.as_ref());
        let free = |other: &usize| pairs.iter().all(|(_, taken)| taken != other);
        if let Some(other) = (0..b.len()).filter(free).find(|other| fits(*other)) {
            pairs.push((at, other));
        }
    }
    pairs
}

/// Whether both are one platform, also if only one of them names the default variant.
fn is_same(one: Option<&Platform>, other: Option<&Platform>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.os_version == other.os_version && one.rank(other) == Some(0) && other.rank(one) == Some(0)
        }
        (None, None) => true,
        _ => false,
    }
}
