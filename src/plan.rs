//! What is to be copied: images with their trees of manifests, platforms chosen.

use crate::image::{Descriptor, Manifest, Name};

/// One image on its way, with the names it is to have.
#[derive(Debug, Clone)]
pub struct Image {
    /// At the sink; empty: only the digest.
    pub names: Vec<Name>,
    /// Every manifest that comes along, children before parents; the root is last. Never empty.
    pub tree: Vec<Manifest>,
    /// The root was made here, the source had none.
    pub synthesised: bool,
}

impl Image {
    pub fn root(&self) -> &Manifest {
        self.tree.last().expect("a tree has a root")
    }

    /// Configs and layers of the whole tree (not yet each once).
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.tree.iter().flat_map(Manifest::blobs)
    }
}
