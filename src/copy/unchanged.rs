//! Manifests and blobs that keep every byte: artifacts and their blobs. Only layers of container images are ever
//! recompressed, and only their manifests are written in another form. By default layers are not recompressed either if
//! something is attached to the image, since that would have to be left out.

use super::convert;
use super::convert::Format;
use crate::image::{Digest, Image, Manifest, tagged_subject};
use std::collections::{HashMap, HashSet};

/// Manifests in `image` that are not converted: artifacts, and all that an index of artifacts lists.
pub(crate) fn manifests(image: &Image) -> HashSet<Digest> {
    let mut unchanged = HashSet::new();
    // Parents first.
    for manifest in image.tree.iter().rev() {
        if !manifest.is_container_image() || unchanged.contains(&manifest.digest()) {
            unchanged.insert(manifest.digest());
            unchanged.extend(manifest.children().iter().map(|child| child.digest));
        }
    }
    unchanged
}

/// Blobs of `images` that are not recompressed: each that some manifest lists as anything but a layer of a container image.
pub(crate) fn blobs(images: &[Image]) -> HashSet<Digest> {
    let mut blobs = HashSet::new();
    for image in images {
        let attached = image.attached.iter().flat_map(|attached| attached.manifest.blobs());
        blobs.extend(attached.map(|blob| blob.digest));
        let manifests = manifests(image);
        for manifest in &image.tree {
            let whole = manifests.contains(&manifest.digest());
            let layers = manifest.layers().iter().filter(|layer| whole || layer.coding().is_none());
            blobs.extend(manifest.config().into_iter().chain(layers).map(|blob| blob.digest));
        }
    }
    blobs
}

/// The layers of `image` that keep their bytes unless the user asks for another compression: with another digest of theirs,
/// what is attached would refer to a manifest that is not copied. A conversion to `format` changes manifests in any case.
pub(crate) fn layers_with_referrers(image: &Image, format: Format) -> HashSet<Digest> {
    let Ok(converted) = convert::image(image, &HashMap::new(), format) else { return HashSet::new() };
    let attached = converted.attached.iter().filter(|attached| !attached.is_part());
    let subject = |tag: Option<&str>, manifest: &Manifest| match tag {
        Some(tag) => tagged_subject(tag),
        None => manifest.subject.as_ref().map(|subject| subject.digest),
    };
    let mut kept: HashSet<Digest> =
        attached.filter_map(|attached| subject(attached.tag.as_deref(), &attached.manifest)).collect();
    let mut layers = HashSet::new();
    // Parents first.
    for manifest in image.original.iter().chain(image.tree.iter().rev()) {
        if kept.contains(&manifest.digest()) {
            kept.extend(manifest.children().iter().map(|child| child.digest));
            layers.extend(manifest.layers().iter().map(|layer| layer.digest));
        }
    }
    layers
}

/// Artifacts of `images`, each once.
pub(crate) fn artifacts(images: &[Image]) -> Vec<&Manifest> {
    let mut seen = HashSet::new();
    let all = images.iter().flat_map(|image| &image.tree);
    all.filter(|manifest| !manifest.is_container_image() && seen.insert(manifest.digest())).collect()
}
