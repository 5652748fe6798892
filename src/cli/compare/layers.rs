//! The layers of two images.

use super::platforms::PlatformImage;
use crate::image::{Descriptor, Digest};
use serde::Serialize;
use std::collections::HashSet;

/// The layers of A and B.
#[derive(Serialize)]
pub struct LayerDifferences {
    /// In both, with the same digest.
    pub shared: Vec<LayerEntry>,
    /// Only in B.
    pub new: Vec<LayerEntry>,
    /// Only in A.
    pub gone: Vec<LayerEntry>,
    /// In both with the same content, but compressed in another way.
    pub recompressed: Vec<RecompressedLayer>,
    /// Whether the shared layers have another order, or another number of repetitions.
    pub reordered: bool,
}

#[derive(Serialize)]
pub struct LayerEntry {
    pub digest: Digest,
    pub media_type: String,
    /// In bytes, as stored.
    pub size: u64,
}

/// A layer of A, and the layer of B with the same content.
#[derive(Serialize)]
pub struct RecompressedLayer {
    pub a: LayerEntry,
    pub b: LayerEntry,
}

impl LayerDifferences {
    /// Whether the layers have other content or another order.
    pub fn differ(&self) -> bool {
        !self.new.is_empty() || !self.gone.is_empty() || !self.recompressed.is_empty() || self.reordered
    }
}

impl From<&Descriptor> for LayerEntry {
    fn from(layer: &Descriptor) -> LayerEntry {
        LayerEntry { digest: layer.digest, media_type: layer.media_type.clone(), size: layer.size }
    }
}

/// Compares the layers of `a` and `b`; each digest once, in the order of the image that has it, of B's for both.
pub fn differences(a: &PlatformImage<'_>, b: &PlatformImage<'_>) -> LayerDifferences {
    let digests =
        |image: &PlatformImage<'_>| -> HashSet<Digest> { image.layers().iter().map(|layer| layer.digest).collect() };
    let (in_a, in_b) = (digests(a), digests(b));
    let in_both = |image: &PlatformImage<'_>| -> Vec<Digest> {
        let digests = image.layers().iter().map(|layer| layer.digest);
        digests.filter(|digest| in_a.contains(digest) && in_b.contains(digest)).collect()
    };
    let reordered = in_both(a) != in_both(b);
    let (shared, new, gone, recompressed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut found = LayerDifferences { shared, new, gone, recompressed, reordered };
    let mut seen = HashSet::new();
    let mut recompressed = HashSet::new();
    for (at, layer) in b.layers().iter().enumerate().filter(|(_, layer)| seen.insert(layer.digest)) {
        if in_a.contains(&layer.digest) {
            found.shared.push(LayerEntry::from(layer));
            continue;
        }
        let diff_id = b.diff_ids.get(at);
        let same = a
            .diff_ids
            .iter()
            .zip(a.layers())
            .find(|(own, layer)| Some(*own) == diff_id && !in_b.contains(&layer.digest));
        match same {
            Some((_, own)) if recompressed.insert(own.digest) => {
                found.recompressed.push(RecompressedLayer { a: LayerEntry::from(own), b: LayerEntry::from(layer) });
            }
            _ => found.new.push(LayerEntry::from(layer)),
        }
    }
    let gone = a.layers().iter().filter(|layer| !in_b.contains(&layer.digest) && !recompressed.contains(&layer.digest));
    found.gone = gone.filter(|layer| seen.insert(layer.digest)).map(LayerEntry::from).collect();
    found
}
