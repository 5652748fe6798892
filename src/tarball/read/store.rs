//! A seekable, uncompressed archive as a store: any thread can read any blob.

use super::contents;
use super::contents::{ArchiveImage, Contents, ImageForm, list};
use super::files::ArchiveFiles;
use super::legacy_manifest;
use super::table::{EntryTable, Extent};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name, media_type, with_coding};
use crate::progress::Watch;
use crate::source::{Profile, ReferrerList, Root, Selector, Store, select};
use crate::tarball::attached::AttachedTable;
use crate::tarball::tar::read_at::ReadAt;
use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex},
};

/// An archive of images in `B`.
pub struct ArchiveStore<B> {
    files: ArchiveFiles<B>,
    images: Vec<ArchiveImage>,
    attached: AttachedTable,
    created: Mutex<Created>,
    /// The name of the archive in messages.
    label: String,
}

/// The manifests that were created here, for legacy images and for platforms with separate entries, and the blobs of
/// legacy images.
#[derive(Default)]
struct Created {
    manifests: HashMap<Digest, Manifest>,
    blobs: HashMap<Digest, (Extent, &'static str)>,
}

impl<B: ReadAt> ArchiveStore<B> {
    /// Opens the uncompressed tar `bytes` and reads its headers. `label` is the name of the archive in messages.
    ///
    /// Fails with `Invalid` if it is not an image archive, is truncated or hostile, or if its two lists of images
    /// disagree.
    pub fn open(bytes: B, label: &str, watch: Arc<dyn Watch>) -> Result<ArchiveStore<B>> {
        let table = EntryTable::read(&bytes).map_err(|e| e.at(label))?;
        let files = ArchiveFiles::new(bytes, table, watch);
        let images = list(&files).map_err(|e| e.at(label))?;
        let attached = AttachedTable::read(&files).map_err(|e| e.at(label))?;
        let indexes = images.iter().filter_map(|image| image.index.clone());
        let manifests = indexes.map(|index| (index.digest(), index)).collect();
        let created = Mutex::new(Created { manifests, ..Created::default() });
        Ok(ArchiveStore { files, images, attached, created, label: label.to_owned() })
    }

    /// Returns the roots without hashing a layer: a legacy image has the descriptor of its config.
    fn provisional_roots(&self) -> Result<Vec<(Root, usize)>> {
        let mut roots = Vec::new();
        for (at, image) in self.images.iter().enumerate() {
            let descriptor = match &image.form {
                ImageForm::Manifest(descriptor) => Descriptor::clone(descriptor),
                ImageForm::Legacy(saved) => {
                    let config = contents::document(&self.files, &saved.config)?;
                    Descriptor::of(media_type::OCI_CONFIG, &config)
                }
            };
            let synthesised = matches!(image.form, ImageForm::Legacy(_)) || image.index.is_some();
            let root = |name| (Root { synthesised, ..Root::new(name, descriptor.clone()) }, at);
            match image.names.is_empty() {
                true => roots.push(root(None)),
                false => roots.extend(image.names.iter().cloned().map(Some).map(root)),
            }
        }
        Ok(roots)
    }

    /// Creates the manifest of a legacy image, and returns `root` with its descriptor. Other roots do not change.
    fn with_manifest(&self, root: Root, at: usize) -> Result<Root> {
        let ImageForm::Legacy(saved) = &self.images[at].form else { return Ok(root) };
        self.files.hash_compressed(&saved.layers)?;
        let image = legacy_manifest::create(&self.files, saved)?;
        let mut created = self.created();
        for (name, layer) in &image.layers {
            let extent = self.files.extent(name)?;
            created.blobs.insert(layer.digest, (extent, with_coding(media_type::OCI_LAYER, layer.coding)));
        }
        let config = Descriptor::of(media_type::OCI_CONFIG, &image.config);
        created.blobs.insert(config.digest, (self.files.extent(&saved.config)?, media_type::OCI_CONFIG));
        let descriptor = image.manifest.descriptor.clone();
        created.manifests.insert(image.manifest.digest(), image.manifest);
        Ok(Root { descriptor, ..root })
    }

    /// Returns the provisional roots that `selectors` select, each with the position of its image if it is listed.
    fn select_roots(&self, selectors: &[Selector]) -> Result<Vec<(Root, Option<usize>)>> {
        let known = self.provisional_roots()?;
        let listed = |(root, at): &(Root, usize)| (root.clone(), Some(*at));
        if selectors.is_empty() {
            return Ok(known.iter().map(listed).collect());
        }
        let all: Vec<Root> = known.iter().map(|(root, _)| root.clone()).collect();
        let mut selected = Vec::new();
        for selector in selectors {
            if let Selector::Digest(digest) = selector
                && let Some(found) = self.by_digest(digest, &known)?
            {
                selected.push(found);
                continue;
            }
            for root in select(&all, std::slice::from_ref(selector))? {
                let same = |other: &Root| other.name == root.name && other.descriptor.digest == root.descriptor.digest;
                selected.extend(known.iter().find(|(other, _)| same(other)).map(listed));
            }
        }
        Ok(selected)
    }

    /// Finds `digest`: an image by the digest of its manifest or its config, or any manifest in the archive.
    fn by_digest(&self, digest: &Digest, known: &[(Root, usize)]) -> Result<Option<(Root, Option<usize>)>> {
        for (root, at) in known {
            let same = root.descriptor.digest == *digest;
            if same || root.synthesised && self.with_manifest(root.clone(), *at)?.descriptor.digest == *digest {
                return Ok(Some((root.clone(), Some(*at))));
            }
        }
        let Some(bytes) = self.files.document(&digest.blob_path()).unwrap_or(None) else { return Ok(None) };
        let claim = Descriptor::new("", *digest, bytes.len() as u64);
        Ok(Manifest::parse(bytes, &claim).ok().map(|manifest| (Root::new(None, manifest.descriptor), None)))
    }

    /// Returns the image that `selector` selects, or the only image.
    pub(crate) fn single_image(&self, selector: Option<&Selector>) -> Result<(Root, &ArchiveImage)> {
        let selected = self.select_roots(selector.map_or(&[], std::slice::from_ref))?;
        let digests: HashSet<Digest> = selected.iter().map(|(root, _)| root.descriptor.digest).collect();
        match (digests.len(), selected.into_iter().next()) {
            (1, Some((root, Some(at)))) => Ok((self.with_manifest(root, at)?, &self.images[at])),
            (1, _) => Err(Error::usage("a part of an image cannot be tagged; select the complete image")),
            (images, _) => Err(Error::usage(format!("the archive has {images} images; select one of them"))),
        }
    }

    /// Returns the small file `name`.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.files.document(name)
    }

    pub(crate) fn bytes(&self) -> &B {
        self.files.bytes()
    }

    /// Returns the extent and the media type of a blob.
    fn extent(&self, digest: &Digest) -> Result<Option<(Extent, &'static str)>> {
        if let Some(found) = self.created().blobs.get(digest) {
            return Ok(Some(*found));
        }
        Ok(self.files.find(&digest.blob_path())?.map(|extent| (extent, media_type::OCTETS)))
    }

    fn created(&self) -> std::sync::MutexGuard<'_, Created> {
        self.created.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Returns the error for a missing blob (`NotFound`) or a missing manifest (`Invalid`).
    fn missing(&self, kind: Kind, digest: &Digest) -> Error {
        let hint = contents::backslash_hint(&self.files);
        let label = &self.label;
        Error::new(
            kind,
            format!(
                "{label}: blob {digest} is missing, although a manifest in the archive lists it{hint}; save the image again"
            ),
        )
    }
}

impl<B: ReadAt> Store for ArchiveStore<B> {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let selected = self.select_roots(selectors).map_err(|e| e.at(&self.label))?;
        let with_manifest = |(root, at): (Root, Option<usize>)| match at {
            Some(at) => self.with_manifest(root, at).map_err(|e| e.at(&self.label)),
            None => Ok(root),
        };
        let roots = selected.into_iter().map(with_manifest).collect::<Result<Vec<Root>>>()?;
        Ok(self.attached.with_originals(roots))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.images.iter().flat_map(|image| image.names.clone()).collect())
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        if let Some(manifest) = self.created().manifests.get(&at.digest) {
            return Ok(manifest.bytes.clone());
        }
        let (extent, _) = self.extent(&at.digest)?.ok_or_else(|| self.missing(Kind::Invalid, &at.digest))?;
        if extent.size > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!(
                "{}: manifest {} has {} bytes; at most {MAX_MANIFEST_BYTES} are allowed",
                self.label, at.digest, extent.size
            )));
        }
        self.files.read(extent).map_err(|e| e.at(&self.label))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let (extent, _) = self.extent(&blob.digest)?.ok_or_else(|| self.missing(Kind::NotFound, &blob.digest))?;
        if extent.size != blob.size || from > extent.size {
            return Err(Error::invalid(format!(
                "{}: blob {} does not match: expected {} bytes by its descriptor, got {}",
                self.label, blob.digest, blob.size, extent.size
            )));
        }
        Ok(Box::new(self.files.open(Extent { at: extent.at + from, size: extent.size - from })))
    }

    fn file_of(&self, _digest: &Digest) -> Option<String> {
        Some(self.label.clone())
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        if let Some(manifest) = self.created().manifests.get(digest) {
            return Ok(Some(manifest.descriptor.clone()));
        }
        Ok(self.extent(digest)?.map(|(extent, media_type)| Descriptor::new(media_type, *digest, extent.size)))
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        Ok(self.attached.referrers(subject))
    }

    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        Ok(self.attached.digest_tagged(subject))
    }

    fn unlisted_digest_tags(&self) -> Vec<(String, Descriptor)> {
        self.attached.all_digest_tagged()
    }

    /// Engines store only some manifests of an index, and write only those into archives.
    fn profile(&self) -> Profile {
        let empty_message = contents::empty(&self.files, &self.label);
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}
