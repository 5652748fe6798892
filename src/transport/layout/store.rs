//! A layout as a source.

use super::directory::{INDEX_FILE, LAYOUT_FILE, LayoutDirectory};
use super::referrers;
use crate::error::{Error, Result};
use crate::image::{
    Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name, digest_tags, implicit_index, is_digest_tag,
};
use crate::source::documents;
use crate::source::{Profile, ReferrerList, Root, Selector, Store, select, with_unlisted};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::OnceLock;

/// An OCI layout directory, its `index.json` read once.
pub struct LayoutStore {
    layout: LayoutDirectory,
    roots: Vec<Root>,
    /// Indexes made for platforms that `index.json` lists as separate entries.
    made: HashMap<Digest, Manifest>,
    has_layout_file: bool,
    referrers: OnceLock<referrers::Table>,
    /// The first name with each of cosign's tags.
    digest_tags: OnceLock<HashMap<String, Name>>,
}

impl LayoutStore {
    /// Opens the layout in `dir`. The file `oci-layout` may be missing if `index.json` lists images.
    ///
    /// Fails with `NotFound` if `dir` does not exist, with `Usage` if it is a file, and with `Invalid` if it is not a
    /// layout or its `index.json` is invalid.
    pub fn open(dir: &Path) -> Result<LayoutStore> {
        let shown = dir.display();
        let layout =
            LayoutDirectory::open(dir)?.ok_or_else(|| Error::not_found(format!("no OCI layout at {shown}")))?;
        let without = |file: &str| Error::invalid(format!("{shown} is not an OCI layout: it has no file {file}"));
        let has_layout_file = layout.is_layout()?;
        let index = layout.index()?.ok_or_else(|| without(if has_layout_file { INDEX_FILE } else { LAYOUT_FILE }))?;
        let named = index.named().map_err(|e| e.at(dir.display()))?;
        if !has_layout_file && named.is_empty() {
            return Err(without(LAYOUT_FILE));
        }
        let mut store = LayoutStore {
            layout,
            roots: Vec::new(),
            made: HashMap::new(),
            has_layout_file,
            referrers: OnceLock::new(),
            digest_tags: OnceLock::new(),
        };
        let images =
            implicit_index::images(named, &|at| documents::platform(&store, at)).map_err(|e| e.at(dir.display()))?;
        for entry in images {
            let synthesised = entry.index.is_some();
            store.made.extend(entry.index.map(|index| (index.digest(), index)));
            store.roots.push(Root { synthesised, ..Root::new(entry.name, entry.root) });
        }
        Ok(store)
    }

    /// Whether the file `oci-layout` exists.
    pub fn has_layout_file(&self) -> bool {
        self.has_layout_file
    }

    /// The entries of `index.json`, ambiguous names included.
    pub fn entries(&self) -> &[Root] {
        &self.roots
    }

    /// Opens the blob `digest`; `None` if it is missing. The file stays readable after the blob is removed.
    pub fn file(&self, digest: &Digest) -> Result<Option<File>> {
        self.layout.blob(digest)
    }

    fn missing(&self, what: &str, digest: &Digest) -> Error {
        Error::not_found(format!("{what} {digest} is not in {}", self.layout.describe()))
    }
}

impl Store for LayoutStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let read = |digest: &Digest| match self.layout.size(digest)? {
            Some(size) if size <= MAX_MANIFEST_BYTES => {
                let claim = Descriptor::new("", *digest, size);
                Ok(Some(Manifest::parse(self.manifest(&claim)?, &claim)?.bytes))
            }
            _ => Ok(None),
        };
        let known = with_unlisted(&*self.roots, selectors, read)?;
        select(&known, selectors).map_err(|e| e.at(self.layout.describe()))
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        if let Some(made) = self.made.get(&at.digest) {
            return Ok(made.bytes.clone());
        }
        let blobs = self.layout.blobs(at.digest.algorithm())?;
        let bytes = blobs.map(|blobs| blobs.read(&at.digest.hex(), MAX_MANIFEST_BYTES)).transpose()?.flatten();
        bytes.ok_or_else(|| self.missing("manifest", &at.digest))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut file = self.layout.blob(&blob.digest)?.ok_or_else(|| self.missing("blob", &blob.digest))?;
        if from > 0 {
            let sought = file.seek(SeekFrom::Start(from));
            sought.map_err(|e| Error::reading(format!("blob {} in {}", blob.digest, self.layout.describe()), e))?;
        }
        Ok(Box::new(file))
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        let blobs = self.layout.blobs(digest.algorithm()).ok().flatten()?;
        Some(blobs.display(&digest.hex())).filter(|_| !self.made.contains_key(digest))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        if let Some(made) = self.made.get(digest) {
            return Ok(Some(made.descriptor.clone()));
        }
        let Some(size) = self.layout.size(digest)? else { return Ok(None) };
        let listed = self.roots.iter().map(|root| &root.descriptor).find(|entry| entry.digest == *digest);
        let media_type = listed.map_or("", |entry| &entry.media_type);
        Ok(Some(Descriptor::new(media_type, *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.roots.iter().filter_map(|root| root.name.clone()).collect())
    }

    /// The first call reads all manifests that `index.json` reaches, at most `referrers::MAX_MANIFESTS`.
    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        let table = match self.referrers.get() {
            Some(table) => table,
            None => {
                let table = referrers::walk(self, self.roots.iter())?;
                self.referrers.get_or_init(|| table)
            }
        };
        Ok(table.list(subject))
    }

    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        let named = self.digest_tags.get_or_init(|| {
            let names = self.roots.iter().rev().filter_map(|root| root.name.as_ref());
            let tagged = names.filter_map(|name| Some((name.tag().filter(|tag| is_digest_tag(tag))?, name.clone())));
            tagged.collect()
        });
        let mut found = Vec::new();
        for tag in digest_tags(subject) {
            let Some(name) = named.get(&tag) else { continue };
            let root = self.roots(&[Selector::Name(name.as_str().to_owned())])?.into_iter().next();
            found.extend(root.map(|root| (tag, root.descriptor)));
        }
        Ok(found)
    }

    /// A layout may have an index with only some of its images.
    fn profile(&self) -> Profile {
        let empty_message = format!("{} has no image: its {INDEX_FILE} lists no manifests", self.layout.describe());
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}
