//! One image of a copy: its manifests and its names at the sink.

use super::{Attached, Descriptor, Digest, Manifest, Name, ORIGINAL, Platform, Reference};
use crate::error::Result;
use std::borrow::Cow;
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
    /// The manifests to store if the sink refuses `tree`, an index of which children are missing.
    pub narrowed: Option<Vec<Manifest>>,
    /// The index that `tree` is a part of, for a sink that stores it too.
    pub original: Option<Manifest>,
    /// The manifests that belong to the image, in the order in which they are stored: after the image, before its names.
    pub attached: Vec<Attached>,
    /// The sink has the image under its names, and only `attached` is copied.
    pub is_current: bool,
}

impl Image {
    /// Returns the manifest or index that the names point at.
    pub fn root(&self) -> &Manifest {
        self.tree.last().expect("a tree has a root")
    }

    /// Returns the image as messages name it: its first name, else the digest by which its source knows it.
    pub fn label(&self) -> String {
        let config = self.root().config().filter(|_| self.synthesised);
        let known = config.map_or(self.source_digest, |config| config.digest);
        self.names.first().map_or_else(|| known.to_string(), Name::to_string)
    }

    /// Returns the root as a list of images has it: its annotation names the index that the image is a part of.
    pub fn listed_root(&self) -> Cow<'_, Manifest> {
        let Some(original) = &self.original else { return Cow::Borrowed(self.root()) };
        let mut root = self.root().clone();
        root.descriptor.annotate(ORIGINAL, &original.digest().to_string());
        Cow::Owned(root)
    }

    /// Returns the name `tag` in the repository of the image's first name; only the tag for an image without one.
    pub fn sibling(&self, tag: &str) -> Result<Name> {
        let repository = self.names.first().and_then(Name::reference);
        match repository {
            Some(named) => Ok(Name::from(&Reference { tag: Some(tag.to_owned()), digest: None, ..named })),
            None => Name::new(tag),
        }
    }

    /// Returns the name of the manifest `digest` in the repository of the image's first name.
    pub fn at_digest(&self, digest: &Digest) -> Result<Name> {
        match self.names.first().and_then(Name::reference) {
            Some(named) => Ok(Name::from(&Reference { tag: None, digest: Some(*digest), ..named })),
            None => Name::new(format!("@{digest}")),
        }
    }

    /// Returns the manifests of `tree` that the source has: not an index that was made of a part of the source's.
    pub fn found_manifests(&self) -> impl Iterator<Item = &Manifest> {
        let is_made = |manifest: &Manifest| {
            !manifest.children().is_empty()
                && manifest.digest() == self.root().digest()
                && manifest.digest() != self.source_digest
        };
        self.tree.iter().filter(move |manifest| !is_made(manifest))
    }

    /// Returns all configs and layers that are copied, without those of attached manifests that the sink has; a digest may
    /// occur several times.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let image = if self.is_current { &[] } else { &self.tree[..] };
        let foreign_layers = if self.is_current { &[] } else { &self.foreign_layers[..] };
        let attached = self.attached.iter().filter(|attached| !attached.is_held);
        let attached = attached.flat_map(|attached| attached.manifest.blobs());
        image.iter().flat_map(Manifest::blobs).chain(foreign_layers).chain(attached)
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
