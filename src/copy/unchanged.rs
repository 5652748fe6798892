//! Manifests and blobs that keep every byte: artifacts and their blobs. Only layers of container images are ever
//! recompressed, and only their manifests are written in another form.

use crate::image::Image;
use crate::image::{Digest, Manifest};
use std::collections::HashSet;

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

/// Artifacts of `images`, each once.
pub(crate) fn artifacts(images: &[Image]) -> Vec<&Manifest> {
    let mut seen = HashSet::new();
    let all = images.iter().flat_map(|image| &image.tree);
    all.filter(|manifest| !manifest.is_container_image() && seen.insert(manifest.digest())).collect()
}
