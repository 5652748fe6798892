//! A seekable, unpacked archive as a store: every blob is read in place, from any thread.

use super::contents;
use super::contents::{Contents, Listed, What, list};
use super::files::Files;
use super::legacy_manifest;
use super::table::{Place, Table};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name, media_type, with_coding};
use crate::progress::Watch;
use crate::source::{Root, Selector, Store, select};
use crate::tarball::tar::read_at::ReadAt;
use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{Arc, Mutex},
};

/// An archive of images in `B`.
pub struct ArchiveStore<B> {
    files: Files<B>,
    images: Vec<Listed>,
    made: Mutex<Made>,
    /// For messages.
    label: String,
}

/// What was given digests here: images of the old form, and indexes over platforms that lie side by side.
#[derive(Default)]
struct Made {
    manifests: HashMap<Digest, Manifest>,
    blobs: HashMap<Digest, (Place, &'static str)>,
}

impl<B: ReadAt> ArchiveStore<B> {
    /// Reads where everything lies in `bytes`, a plain tar. `label` is what messages call the archive.
    ///
    /// Fails with `Invalid` where it is no archive of images, is cut short, is hostile, or where its two lists of
    /// images disagree.
    pub fn open(bytes: B, label: &str, watch: Arc<dyn Watch>) -> Result<ArchiveStore<B>> {
        let table = Table::read(&bytes).map_err(|e| e.at(label))?;
        let files = Files::new(bytes, table, watch);
        let images = list(&files).map_err(|e| e.at(label))?;
        let made = images.iter().filter_map(|image| image.made.clone());
        let made = Made { manifests: made.map(|index| (index.digest(), index)).collect(), ..Made::default() };
        Ok(ArchiveStore { files, images, made: Mutex::new(made), label: label.to_owned() })
    }

    /// The roots as far as they are known without hashing a layer: an image without a manifest goes by its config's
    /// digest.
    fn provisional(&self) -> Result<Vec<(Root, usize)>> {
        let mut roots = Vec::new();
        for (at, image) in self.images.iter().enumerate() {
            let descriptor = match &image.what {
                What::Manifest(descriptor) => Descriptor::clone(descriptor),
                What::Saved(saved) => {
                    let config = contents::document(&self.files, &saved.config)?;
                    Descriptor::of(media_type::OCI_CONFIG, &config)
                }
            };
            let synthesised = matches!(image.what, What::Saved(_)) || image.made.is_some();
            let root = |name| (Root { name, descriptor: descriptor.clone(), synthesised }, at);
            match image.names.is_empty() {
                true => roots.push(root(None)),
                false => roots.extend(image.names.iter().cloned().map(Some).map(root)),
            }
        }
        Ok(roots)
    }

    /// `root` with its manifest's digest.
    fn settled(&self, root: Root, at: usize) -> Result<Root> {
        let What::Saved(saved) = &self.images[at].what else { return Ok(root) };
        self.files.hash_packed(&saved.layers)?;
        let image = legacy_manifest::image(&self.files, saved)?;
        let mut made = self.made();
        for (name, layer) in &image.layers {
            let place = self.files.place(name)?;
            made.blobs.insert(layer.digest, (place, with_coding(media_type::OCI_LAYER, layer.coding)));
        }
        let config = Descriptor::of(media_type::OCI_CONFIG, &image.config);
        made.blobs.insert(config.digest, (self.files.place(&saved.config)?, media_type::OCI_CONFIG));
        let descriptor = image.manifest.descriptor.clone();
        made.manifests.insert(image.manifest.digest(), image.manifest);
        Ok(Root { descriptor, ..root })
    }

    /// What `picks` select, not yet settled; with the image's place in the list where it has one.
    fn chosen(&self, picks: &[Selector]) -> Result<Vec<(Root, Option<usize>)>> {
        let known = self.provisional()?;
        let listed = |(root, at): &(Root, usize)| (root.clone(), Some(*at));
        if picks.is_empty() {
            return Ok(known.iter().map(listed).collect());
        }
        let all: Vec<Root> = known.iter().map(|(root, _)| root.clone()).collect();
        let mut chosen = Vec::new();
        for pick in picks {
            if let Selector::Digest(digest) = pick
                && let Some(found) = self.by_digest(digest, &known)?
            {
                chosen.push(found);
                continue;
            }
            for root in select(&all, std::slice::from_ref(pick))? {
                let same = |other: &Root| other.name == root.name && other.descriptor.digest == root.descriptor.digest;
                chosen.extend(known.iter().find(|(other, _)| same(other)).map(listed));
            }
        }
        Ok(chosen)
    }

    /// What `digest` picks: an image by its manifest's or its config's digest, or any manifest that lies here.
    fn by_digest(&self, digest: &Digest, known: &[(Root, usize)]) -> Result<Option<(Root, Option<usize>)>> {
        for (root, at) in known {
            let same = root.descriptor.digest == *digest;
            if same || root.synthesised && self.settled(root.clone(), *at)?.descriptor.digest == *digest {
                return Ok(Some((root.clone(), Some(*at))));
            }
        }
        let Some(bytes) = self.files.document(&digest.blob_path()).unwrap_or(None) else { return Ok(None) };
        let claim = Descriptor::new("", *digest, bytes.len() as u64);
        Ok(Manifest::parse(bytes, &claim).ok().map(|manifest| (Root::new(None, manifest.descriptor), None)))
    }

    /// The one image that `pick` selects, or the only one there is.
    pub(crate) fn one(&self, pick: Option<&Selector>) -> Result<(Root, &Listed)> {
        let chosen = self.chosen(pick.map_or(&[], std::slice::from_ref))?;
        let digests: HashSet<Digest> = chosen.iter().map(|(root, _)| root.descriptor.digest).collect();
        match (digests.len(), chosen.into_iter().next()) {
            (1, Some((root, Some(at)))) => Ok((self.settled(root, at)?, &self.images[at])),
            (1, _) => Err(Error::usage("a part of an image cannot be tagged; name the whole image")),
            (images, _) => Err(Error::usage(format!("there are {images} images; say which one is meant"))),
        }
    }

    /// The small file `name`, whole.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.files.document(name)
    }

    pub(crate) fn bytes(&self) -> &B {
        self.files.bytes()
    }

    fn place(&self, digest: &Digest) -> Result<Option<(Place, &'static str)>> {
        if let Some(found) = self.made().blobs.get(digest) {
            return Ok(Some(*found));
        }
        Ok(self.files.find(&digest.blob_path())?.map(|place| (place, media_type::OCTETS)))
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `kind` of error: a blob that is listed may be missing, a manifest that is may not.
    fn absent(&self, kind: Kind, digest: &Digest) -> Error {
        let hint = contents::backslash_hint(&self.files);
        let (label, listed) = (&self.label, "a manifest in it lists the blob");
        Error::new(
            kind,
            format!("{label}: {listed} {digest}, which the archive does not have{hint}; save the image again"),
        )
    }
}

impl<B: ReadAt> Store for ArchiveStore<B> {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        let chosen = self.chosen(picks).map_err(|e| e.at(&self.label))?;
        let settled = |(root, at): (Root, Option<usize>)| match at {
            Some(at) => self.settled(root, at).map_err(|e| e.at(&self.label)),
            None => Ok(root),
        };
        chosen.into_iter().map(settled).collect()
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.images.iter().flat_map(|image| image.names.clone()).collect())
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        if let Some(made) = self.made().manifests.get(&at.digest) {
            return Ok(made.bytes.clone());
        }
        let (place, _) = self.place(&at.digest)?.ok_or_else(|| self.absent(Kind::Invalid, &at.digest))?;
        if place.size > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!(
                "{}: manifest {} has {} bytes, more than the {MAX_MANIFEST_BYTES} allowed",
                self.label, at.digest, place.size
            )));
        }
        self.files.whole(place).map_err(|e| e.at(&self.label))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let (place, _) = self.place(&blob.digest)?.ok_or_else(|| self.absent(Kind::NotFound, &blob.digest))?;
        if place.size != blob.size || from > place.size {
            return Err(Error::invalid(format!(
                "{}: blob {} does not match: it has {} bytes here, its descriptor says {}",
                self.label, blob.digest, place.size, blob.size
            )));
        }
        Ok(Box::new(self.files.span(Place { at: place.at + from, size: place.size - from })))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        if let Some(made) = self.made().manifests.get(digest) {
            return Ok(Some(made.descriptor.clone()));
        }
        Ok(self.place(digest)?.map(|(place, media_type)| Descriptor::new(media_type, *digest, place.size)))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = Vec::new();
        for image in &self.images {
            let What::Manifest(entry) = &image.what else { continue };
            if image.made.is_some()
                || self.place(&entry.digest)?.is_none()
                || found.iter().any(|known| known.digest == entry.digest)
            {
                continue;
            }
            let manifest = Manifest::parse(self.manifest(entry)?, entry)?;
            if manifest.subject.is_some_and(|about| about.digest == *subject) {
                found.push(Descriptor::clone(entry));
            }
        }
        Ok(found)
    }

    fn nothing(&self) -> String {
        contents::empty(&self.files, &self.label)
    }

    /// Engines keep, and write into archives, only some of an index.
    fn is_sparse(&self) -> bool {
        true
    }
}
