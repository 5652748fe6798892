//! A layout as a source.

use super::directory::{INDEX_FILE, LAYOUT_FILE, Place};
use super::referrers;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name, implicit_index};
use crate::source::documents;
use crate::source::{Profile, Root, Selector, Store, select};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::OnceLock;

/// An OCI layout directory, its `index.json` read once.
pub struct LayoutStore {
    place: Place,
    roots: Vec<Root>,
    /// Indexes over platforms that lie side by side.
    made: HashMap<Digest, Manifest>,
    marked: bool,
    referrers: OnceLock<referrers::Table>,
}

impl LayoutStore {
    /// Opens the layout in `dir`; the file `oci-layout` may be missing beside an `index.json` that lists images.
    ///
    /// Fails with `NotFound` where there is nothing, with `Usage` on a file, and with `Invalid` on a directory that is
    /// no layout or has an `index.json` that is refused.
    pub fn open(dir: &Path) -> Result<LayoutStore> {
        let shown = dir.display();
        let place = Place::open(dir)?.ok_or_else(|| Error::not_found(format!("there is no OCI layout at {shown}")))?;
        let lacks = |file: &str| Error::invalid(format!("{shown} is not an OCI layout: it has no file {file}"));
        let marked = place.is_layout()?;
        let index = place.index()?.ok_or_else(|| lacks(if marked { INDEX_FILE } else { LAYOUT_FILE }))?;
        let named = index.named().map_err(|e| e.at(dir.display()))?;
        if !marked && named.is_empty() {
            return Err(lacks(LAYOUT_FILE));
        }
        let mut store =
            LayoutStore { place, roots: Vec::new(), made: HashMap::new(), marked, referrers: OnceLock::new() };
        let images =
            implicit_index::images(named, &|at| documents::platform(&store, at)).map_err(|e| e.at(dir.display()))?;
        for entry in images {
            let synthesised = entry.index.is_some();
            store.made.extend(entry.index.map(|index| (index.digest(), index)));
            store.roots.push(Root { synthesised, ..Root::new(entry.name, entry.root) });
        }
        Ok(store)
    }

    /// Whether the file `oci-layout` is there.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// What `index.json` lists, names that stand for several images too.
    pub fn entries(&self) -> &[Root] {
        &self.roots
    }

    /// The blob under `digest`, open; `None` where it is not there. Stays readable when its name goes.
    pub fn file(&self, digest: &Digest) -> Result<Option<File>> {
        self.place.blob(digest)
    }

    /// A manifest that no entry points at, by its digest.
    fn unlisted(&self, digest: &Digest) -> Result<Option<Root>> {
        match self.place.size(digest)? {
            Some(size) if size <= MAX_MANIFEST_BYTES => {
                let claim = Descriptor::new("", *digest, size);
                let manifest = Manifest::parse(self.manifest(&claim)?, &claim)?;
                Ok(Some(Root::new(None, manifest.descriptor)))
            }
            _ => Ok(None),
        }
    }

    fn lacks(&self, what: &str, digest: &Digest) -> Error {
        Error::not_found(format!("{what} {digest} is not in {}", self.place.shown()))
    }
}

impl Store for LayoutStore {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        if picks.is_empty() {
            return Ok(self.roots.clone());
        }
        let mut chosen = Vec::new();
        for pick in picks {
            let listed = |digest: &Digest| self.roots.iter().any(|root| root.descriptor.digest == *digest);
            let unlisted = match pick {
                Selector::Digest(digest) if !listed(digest) => self.unlisted(digest)?,
                _ => None,
            };
            match unlisted {
                Some(root) => chosen.push(root),
                None => {
                    let found = select(&self.roots, std::slice::from_ref(pick));
                    chosen.extend(found.map_err(|e| e.at(self.place.shown()))?);
                }
            }
        }
        Ok(chosen)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        if let Some(made) = self.made.get(&at.digest) {
            return Ok(made.bytes.clone());
        }
        let blobs = self.place.blobs(at.digest.algorithm())?;
        let bytes = blobs.map(|blobs| blobs.read(&at.digest.hex(), MAX_MANIFEST_BYTES)).transpose()?.flatten();
        bytes.ok_or_else(|| self.lacks("manifest", &at.digest))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut file = self.place.blob(&blob.digest)?.ok_or_else(|| self.lacks("blob", &blob.digest))?;
        if from > 0 {
            let sought = file.seek(SeekFrom::Start(from));
            sought.map_err(|e| Error::reading(format!("blob {} in {}", blob.digest, self.place.shown()), e))?;
        }
        Ok(Box::new(file))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        if let Some(made) = self.made.get(digest) {
            return Ok(Some(made.descriptor.clone()));
        }
        let Some(size) = self.place.size(digest)? else { return Ok(None) };
        let listed = self.roots.iter().map(|root| &root.descriptor).find(|entry| entry.digest == *digest);
        let media_type = listed.map_or("", |entry| &entry.media_type);
        Ok(Some(Descriptor::new(media_type, *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.roots.iter().filter_map(|root| root.name.clone()).collect())
    }

    /// Found by a walk over what `index.json` reaches, once, as far as `referrers::MAX_MANIFESTS`.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        if self.referrers.get().is_none() {
            let table = referrers::walk(self, self.roots.iter().map(|root| &root.descriptor))?;
            self.referrers.get_or_init(|| table);
        }
        Ok(self.referrers.get().and_then(|table| table.get(subject)).cloned().unwrap_or_default())
    }

    /// A layout may hold an index with only some of its images.
    fn profile(&self) -> Profile {
        let empty_message = format!("{} holds no image: its {INDEX_FILE} lists no manifests", self.place.shown());
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}
