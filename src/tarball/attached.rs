//! The manifests that belong to the images of an archive, kept where no loader looks for images: a blob, an image index,
//! that the annotation [`ANNOTATION`] of `index.json` names. It lists referrers, and what cosign's tags name with the tag
//! as `org.opencontainers.image.ref.name`. containerd 1.6 and podman refuse an archive that lists them in `index.json`.

use crate::error::{Error, Result};
use crate::image::{
    Descriptor, Digest, Hasher, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name, ORIGINAL, REF_NAME, digest_tags,
    is_digest_tag, remove_name,
};
use crate::source::{Root, Store};
use crate::tarball::read::contents::{Contents, INDEX};
use std::collections::{HashMap, HashSet};

/// The annotation of `index.json` that names the blob.
pub(crate) const ANNOTATION: &str = "imgmv.referrers";
/// The maximum size of the manifests that the blob lists, together.
const MAX_TABLE_BYTES: u64 = 32 << 20;
/// The maximum number of entries in the blob.
const MAX_ENTRIES: usize = 50_000;

/// The attached manifests of an archive.
#[derive(Debug, Default)]
pub(crate) struct AttachedTable {
    /// By the digest of their subject.
    referrers: HashMap<Digest, Vec<Descriptor>>,
    tagged: HashMap<String, Descriptor>,
    /// Indexes that images of the archive are a part of, with the digests that they list.
    originals: Vec<(Descriptor, HashSet<Digest>)>,
    /// Listed, but not in the archive.
    missing: Vec<Digest>,
}

impl AttachedTable {
    /// Reads the table of `contents`; empty for an archive without one.
    ///
    /// # Errors
    /// `Invalid` for a blob that is missing, malformed or too large. An entry whose manifest is missing is skipped.
    pub fn read(contents: &dyn Contents) -> Result<AttachedTable> {
        let mut table = AttachedTable::default();
        let Some(index) = contents.document(INDEX)? else { return Ok(table) };
        let index = LayoutIndex::parse(&index)?;
        table.add_listed(contents, &index)?;
        let Some(digest) = index.annotation(ANNOTATION).map(str::to_owned) else { return Ok(table) };
        let wrong = |why: &str| Error::invalid(format!("the annotation {ANNOTATION} of {INDEX} names {digest}, {why}"));
        let digest: Digest = digest.parse().map_err(|_| wrong("which is not a digest"))?;
        let bytes = document(contents, &digest)?.ok_or_else(|| wrong("which is not in the archive"))?;
        if Hasher::new(digest.algorithm()).with(&bytes).finish() != digest {
            return Err(wrong("whose bytes have another digest"));
        }
        let entries = LayoutIndex::parse(&bytes)?.entries()?;
        if entries.len() > MAX_ENTRIES {
            return Err(wrong(&format!("which lists more than {MAX_ENTRIES} manifests")));
        }
        let (mut seen, mut bytes) = (HashSet::new(), 0);
        for entry in entries.into_iter().filter(|entry| seen.insert((entry.digest, entry.annotations.clone()))) {
            bytes += entry.size.min(MAX_MANIFEST_BYTES);
            if bytes > MAX_TABLE_BYTES {
                return Err(wrong(&format!("whose manifests have more than {MAX_TABLE_BYTES} bytes together")));
            }
            table.insert(contents, entry)?;
        }
        Ok(table)
    }

    /// Adds what other tools list beside the images: manifests with a subject and no name, and cosign's tags.
    fn add_listed(&mut self, contents: &dyn Contents, index: &LayoutIndex) -> Result<()> {
        let mut bytes = 0;
        for (name, entry) in index.named()? {
            if let Some(tag) = name.as_ref().and_then(Name::tag).filter(|tag| is_digest_tag(tag)) {
                self.tagged.insert(tag, entry);
                continue;
            }
            bytes += entry.size.min(MAX_MANIFEST_BYTES);
            if name.is_some() || !entry.names_manifest() || bytes > MAX_TABLE_BYTES {
                continue;
            }
            let Some(bytes) = document(contents, &entry.digest)? else { continue };
            let subject =
                Manifest::parse(bytes, &entry).ok().and_then(|manifest| Some((manifest.subject.clone()?, manifest)));
            if let Some((subject, manifest)) = subject {
                self.referrers.entry(subject.digest).or_default().push(manifest.referrer_entry());
            }
        }
        Ok(())
    }

    fn insert(&mut self, contents: &dyn Contents, mut entry: Descriptor) -> Result<()> {
        let tag = entry.annotation(REF_NAME).filter(|tag| is_digest_tag(tag)).map(str::to_owned);
        if let Some(tag) = tag {
            remove_name(&mut entry);
            self.tagged.insert(tag, entry);
            return Ok(());
        }
        let Some(bytes) = document(contents, &entry.digest)? else {
            self.missing.push(entry.digest);
            return Ok(());
        };
        let Ok(manifest) = Manifest::parse(bytes, &entry) else { return Ok(()) };
        match &manifest.subject {
            Some(subject) => self.referrers.entry(subject.digest).or_default().push(manifest.referrer_entry()),
            None => {
                let children = manifest.children().iter().map(|child| child.digest).collect();
                self.originals.push((entry, children));
            }
        }
        Ok(())
    }

    /// The index that `root`, of the manifest `manifest`, names as the one that it is a part of. `None` if it names none, or
    /// one that does not list it.
    fn original(&self, root: &Root, manifest: &Manifest) -> Option<Descriptor> {
        let named: Digest = root.descriptor.annotation(ORIGINAL)?.parse().ok()?;
        let is_part = |listed: &HashSet<Digest>| match manifest.children() {
            [] => listed.contains(&manifest.digest()),
            children => children.iter().all(|child| listed.contains(&child.digest)),
        };
        let (entry, listed) = self.originals.iter().find(|(entry, _)| entry.digest == named)?;
        is_part(listed).then(|| entry.clone())
    }

    /// `roots` of the archive, with the indexes that they are a part of.
    pub fn with_originals(&self, store: &dyn Store, mut roots: Vec<Root>) -> Vec<Root> {
        for root in roots.iter_mut().filter(|root| root.descriptor.annotation(ORIGINAL).is_some()) {
            let manifest = root.read(store).ok();
            root.original = manifest.and_then(|manifest| self.original(root, &manifest));
        }
        roots
    }

    /// As [`crate::source::Store::missing_attached`].
    pub fn missing(&self) -> &[Digest] {
        &self.missing
    }

    /// As [`crate::source::Store::referrers`].
    pub fn referrers(&self, subject: &Digest) -> Vec<Descriptor> {
        self.referrers.get(subject).cloned().unwrap_or_default()
    }

    /// As [`crate::source::Store::digest_tagged`].
    pub fn digest_tagged(&self, subject: &Digest) -> Vec<(String, Descriptor)> {
        let tags = digest_tags(subject).into_iter();
        tags.filter_map(|tag| self.tagged.get(&tag).map(|entry| (tag.clone(), entry.clone()))).collect()
    }
}

fn document(contents: &dyn Contents, digest: &Digest) -> Result<Option<Vec<u8>>> {
    Ok(contents.document(&digest.blob_path())?.filter(|bytes| bytes.len() as u64 <= MAX_MANIFEST_BYTES))
}
