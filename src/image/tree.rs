//! One image of a copy: its manifests and its names at the sink.

use super::{Descriptor, Digest, Manifest, Name, Platform};
use std::collections::HashSet;

/// One image of a copy.
#[derive(Debug, Clone)]
pub struct Image {
    /// The names at the sink; if empty, the image gets only its digest.
    pub names: Vec<Name>,
    /// Every manifest that is copied, children before parents, the root last. Never empty.
    pub tree: Vec<Manifest>,
    /// The root was created here, because the source has none.
    pub synthesised: bool,
    /// The manifest in whose place the root was created, where the source recorded one.
    pub lost_manifest: Option<Digest>,
    /// The digest of the root in the source.
    pub source_digest: Digest,
    /// The foreign layers that are copied.
    pub foreign_layers: Vec<Descriptor>,
}

impl Image {
    /// Returns the manifest or index that the names point at.
    pub fn root(&self) -> &Manifest {
        self.tree.last().expect("a tree has a root")
    }

    /// Returns all configs and layers that are copied; a digest may occur several times.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.tree.iter().flat_map(Manifest::blobs).chain(&self.foreign_layers)
    }

    /// Returns the foreign layers that are not copied.
    pub fn skipped_foreign_layers(&self) -> impl Iterator<Item = &Descriptor> {
        let copied: HashSet<Digest> = self.foreign_layers.iter().map(|layer| layer.digest).collect();
        self.tree.iter().flat_map(Manifest::foreign_layers).filter(move |layer| !copied.contains(&layer.digest))
    }

    /// Returns the platforms of the copied images, as the index lists them.
    pub fn platforms(&self) -> Vec<Platform> {
        let copied: HashSet<Digest> = self.tree.iter().map(Manifest::digest).collect();
        let children = self.tree.iter().flat_map(|manifest| manifest.children());
        let listed = children.filter(|child| copied.contains(&child.digest)).filter_map(|child| child.platform.clone());
        listed.filter(|platform| platform.os != "unknown").collect()
    }
}
