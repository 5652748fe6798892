//! One image of a copy: its manifests and the names that it gets.

use super::{Descriptor, Digest, Manifest, Name, Platform};
use std::collections::HashSet;

/// One image on its way, with the names it is to have.
#[derive(Debug, Clone)]
pub struct Image {
    /// At the sink; empty: only the digest.
    pub names: Vec<Name>,
    /// Every manifest that comes along, children before parents; the root is last. Never empty.
    pub tree: Vec<Manifest>,
    /// The root was made here, the source had none.
    pub synthesised: bool,
    /// What the source calls it.
    pub source_digest: Digest,
    /// Layers of a nondistributable type that come along.
    pub carried: Vec<Descriptor>,
}

impl Image {
    pub fn root(&self) -> &Manifest {
        self.tree.last().expect("a tree has a root")
    }

    /// Configs and layers of the whole tree that come along (not yet each once).
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.tree.iter().flat_map(Manifest::blobs).chain(&self.carried)
    }

    /// Layers of a nondistributable type that do not come along.
    pub fn left(&self) -> impl Iterator<Item = &Descriptor> {
        let carried: HashSet<Digest> = self.carried.iter().map(|layer| layer.digest).collect();
        self.tree.iter().flat_map(Manifest::foreign_layers).filter(move |layer| !carried.contains(&layer.digest))
    }

    /// The platforms that its index lists, of the images that come along.
    pub fn platforms(&self) -> Vec<Platform> {
        let here: HashSet<Digest> = self.tree.iter().map(Manifest::digest).collect();
        let children = self.tree.iter().flat_map(|manifest| manifest.children());
        let listed = children.filter(|child| here.contains(&child.digest)).filter_map(|child| child.platform.clone());
        listed.filter(|platform| platform.os != "unknown").collect()
    }
}
