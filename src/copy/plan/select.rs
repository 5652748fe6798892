//! The manifests of an image that are copied: its complete tree, or the wanted platforms.

use super::{PlanOptions, Platforms, Sparse};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, media_type};
use crate::message::counted;
use crate::progress::{Event, Watch};
use crate::sink::{Shape, SinkCapabilities};
use crate::source::{Root, Store, with_file};
use std::collections::{HashMap, HashSet};

/// Maximum depth of indexes in indexes.
pub(super) const MAX_DEPTH: usize = 8;
/// The manifests in one image's tree together.
const MAX_TREE_BYTES: u64 = 24 << 20;

/// The manifests of one image that are stored in memory while it is planned, and their bytes.
const MAX_REMEMBERED: usize = 64;
const MAX_REMEMBERED_BYTES: usize = 4 << 20;

/// The manifests of an image that are copied, children before parents.
pub(super) struct Chosen {
    pub tree: Vec<Manifest>,
    /// As [`crate::image::Image::narrowed`].
    pub narrowed: Option<Vec<Manifest>>,
    /// As [`crate::image::Image::original`].
    pub original: Option<Manifest>,
    /// The attestations of the copied images that only `original` lists, and the indexes between it and the images; each
    /// before the index that lists it.
    pub parts: Vec<Manifest>,
    /// The size of the manifests that were read, in bytes.
    pub bytes: u64,
}

/// The manifest or index of an image.
pub(super) struct Wanted<'a> {
    pub root: &'a Descriptor,
    /// The index that the root is a part of, for a sink that stores its bytes too.
    pub original: Option<&'a Descriptor>,
}

/// The manifests of the image at `wanted` that are copied. `label` is the name of the image in messages.
pub(super) fn choose(
    store: &dyn Store,
    known: &HashMap<Digest, &Root>,
    wanted: Wanted<'_>,
    options: &PlanOptions,
    capabilities: &SinkCapabilities,
    watch: &dyn Watch,
    label: &str,
) -> Result<Chosen> {
    let is_sparse = store.profile().is_sparse;
    let mut chooser = Chooser {
        store,
        known,
        is_sparse,
        options,
        capabilities,
        watch,
        label,
        bytes: 0,
        seen: HashSet::new(),
        read: HashMap::new(),
        narrowed: None,
        original: None,
        parts: Vec::new(),
        missing: HashSet::new(),
    };
    let tree = chooser.tree(wanted.root)?;
    if let Some(original) = wanted.original {
        let original = chooser.fetch(original)?;
        chooser.keep_original(original, &tree)?;
    }
    let Chooser { narrowed, original, parts, bytes, .. } = chooser;
    Ok(Chosen { tree, narrowed, original, parts, bytes })
}

pub(super) struct Chooser<'a> {
    pub store: &'a dyn Store,
    /// The roots, some of which carry their manifests.
    known: &'a HashMap<Digest, &'a Root>,
    pub is_sparse: bool,
    pub options: &'a PlanOptions,
    pub capabilities: &'a SinkCapabilities,
    pub watch: &'a dyn Watch,
    /// The name of the image in messages.
    pub label: &'a str,
    bytes: u64,
    seen: HashSet<Digest>,
    /// The bytes of manifests that were read, since an index and its smaller form share them.
    read: HashMap<Digest, Vec<u8>>,
    pub narrowed: Option<Vec<Manifest>>,
    pub original: Option<Manifest>,
    pub parts: Vec<Manifest>,
    /// Manifests that the store does not have, so that none is asked for twice.
    missing: HashSet<Digest>,
}

/// The manifests below an index, as far as the source has them.
pub(super) struct FoundManifest {
    /// Children first, without the top index.
    pub tree: Vec<Manifest>,
    pub absent: Vec<Descriptor>,
}

impl Chooser<'_> {
    fn tree(&mut self, root: &Descriptor) -> Result<Vec<Manifest>> {
        let top = self.fetch(root)?;
        if top.children().is_empty() {
            self.agree(&top)?;
            return Ok(vec![top]);
        }
        let entries = counted(top.children().len(), "entry");
        match (&self.options.platforms, &self.capabilities.shape) {
            (Platforms::Only(wanted), _) => {
                let chosen = self.chosen(&top, wanted)?;
                self.asked(top, chosen)
            }
            (Platforms::All, Shape::One(_)) => Err(Error::usage(format!(
                "{}: the destination stores one platform of an image; use --platform",
                self.label
            ))),
            (Platforms::Default, Shape::One(platform)) => {
                let chosen = self.chosen(&top, std::slice::from_ref(platform))?;
                self.watch.say(&format!("{}: of {entries}, {platform} is copied", self.label));
                self.asked(top, chosen)
            }
            (Platforms::Default, Shape::Sparse(platform)) => {
                let chosen = self.chosen(&top, std::slice::from_ref(platform))?;
                self.native(top, chosen, platform)
            }
            _ => self.all(top),
        }
    }

    /// The complete tree below `top`.
    fn all(&mut self, top: Manifest) -> Result<Vec<Manifest>> {
        let mut found = FoundManifest { tree: Vec::new(), absent: Vec::new() };
        self.descend(&top, 0, &mut found)?;
        if !found.absent.is_empty() {
            return self.incomplete(top, found);
        }
        found.tree.push(top);
        Ok(found.tree)
    }

    /// Finds every manifest below `top`.
    fn descend(&mut self, top: &Manifest, depth: usize, found: &mut FoundManifest) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        for child in top.children() {
            if self.seen.contains(&child.digest) {
                continue;
            }
            // A registry's error is the reason where the user does not allow missing children.
            let manifest = match self.is_sparse || self.tolerates_missing() {
                true => self.find(child)?,
                false => Some(self.fetch(child)?),
            };
            let Some(manifest) = manifest else {
                found.absent.push(child.clone());
                continue;
            };
            if self.is_sparse && !self.complete(&manifest)? {
                found.absent.push(child.clone());
                continue;
            }
            self.descend(&manifest, depth + 1, found)?;
            found.tree.push(manifest);
        }
        Ok(())
    }

    /// Whether `top` was made of single images of the source.
    pub(super) fn is_synthesised(&self, top: &Manifest) -> bool {
        self.known.get(&top.digest()).is_some_and(|root| root.synthesised)
    }

    fn tolerates_missing(&self) -> bool {
        match self.options.sparse {
            Sparse::Keep | Sparse::Narrow => true,
            // Copies of chosen platforms leave such indexes in registries.
            Sparse::Auto => matches!(self.options.platforms, Platforms::Default),
            Sparse::Fail => false,
        }
    }

    pub(super) fn too_deep(&self) -> Error {
        Error::invalid(format!("{}: indexes are nested more than {MAX_DEPTH} deep", self.label))
    }

    /// Whether the store can be expected to have the manifest `digest`.
    pub(super) fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(!self.missing.contains(digest) && (!self.is_sparse || self.store.find(digest)?.is_some()))
    }

    /// The manifest `at`; `None` where the store does not have it, which a registry shows only by its answer.
    pub(super) fn find(&mut self, at: &Descriptor) -> Result<Option<Manifest>> {
        if !self.has(&at.digest)? {
            return Ok(None);
        }
        match self.fetch(at) {
            Err(error) if error.kind() == Kind::NotFound => {
                self.missing.insert(at.digest);
                Ok(None)
            }
            manifest => manifest.map(Some),
        }
    }

    pub(super) fn complete(&self, manifest: &Manifest) -> Result<bool> {
        for blob in manifest.blobs() {
            if self.store.find(&blob.digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The source's error for a blob that is missing although its manifest exists.
    pub(super) fn reason(&mut self, absent: &[Descriptor]) -> Result<Option<Error>> {
        for child in absent {
            if self.store.find(&child.digest)?.is_none() {
                continue;
            }
            for blob in self.fetch(child)?.blobs() {
                if self.store.find(&blob.digest)?.is_none() {
                    return Ok(self.store.open(blob, 0).err());
                }
            }
        }
        Ok(None)
    }

    pub(super) fn fetch(&mut self, at: &Descriptor) -> Result<Manifest> {
        let same = |root: &&&Root| root.descriptor.media_type == at.media_type && root.descriptor.size == at.size;
        let carried = self.known.get(&at.digest).filter(same).and_then(|root| root.manifest.clone());
        let manifest = match carried {
            Some(manifest) => {
                self.count(&at.digest, manifest.bytes.len())?;
                Manifest::clone(&manifest)
            }
            None => {
                let bytes = self.read(at)?;
                self.count(&at.digest, bytes.len())?;
                let manifest = Manifest::parse(bytes, at).map_err(|e| with_file(self.store, &at.digest, e))?;
                self.remember(&manifest);
                manifest
            }
        };
        let own = &manifest.descriptor.media_type;
        if *own != at.media_type && media_type::same_kind(own, &at.media_type) {
            let (digest, listed) = (at.digest, &at.media_type);
            self.watch.event(Event::Detail(&format!("manifest {digest} is listed as {listed}; its own type is {own}")));
        }
        Ok(manifest)
    }

    fn read(&mut self, at: &Descriptor) -> Result<Vec<u8>> {
        if let Some(bytes) = self.read.get(&at.digest) {
            return Ok(bytes.clone());
        }
        match at.embedded() {
            Some(bytes) => Ok(bytes),
            None if at.size > MAX_MANIFEST_BYTES => Err(Error::invalid(format!(
                "manifest {} has {} bytes by its descriptor, more than {MAX_MANIFEST_BYTES}",
                at.digest, at.size
            ))),
            None => self.store.manifest(at),
        }
    }

    /// Stores the bytes of `manifest` for the next [`Chooser::fetch`], if there is room.
    fn remember(&mut self, manifest: &Manifest) {
        let bytes: usize = self.read.values().map(Vec::len).sum();
        if self.read.len() < MAX_REMEMBERED && bytes + manifest.bytes.len() <= MAX_REMEMBERED_BYTES {
            self.read.insert(manifest.digest(), manifest.bytes.clone());
        }
    }

    /// Counts the bytes of the manifest `digest`, once, and fails where they are too many.
    fn count(&mut self, digest: &Digest, bytes: usize) -> Result<()> {
        if self.seen.insert(*digest) {
            self.bytes += bytes as u64;
        }
        match self.bytes > MAX_TREE_BYTES {
            true => Err(Error::invalid(format!("{}: its manifests have more than {MAX_TREE_BYTES} bytes", self.label))),
            false => Ok(()),
        }
    }
}
