//! The manifests that belong to the images of an archive, kept where no loader looks for images: a blob, an image index,
//! that the annotation [`ANNOTATION`] of `index.json` names. It lists referrers, and what cosign's tags name with the tag
//! as `org.opencontainers.image.ref.name`. containerd 1.6 and podman refuse an archive that lists them in `index.json`.
//!
//! A damaged or missing manifest here does not make the images unreadable: the lists of referrers say that they are not
//! complete.

use crate::error::{Error, Kind, Result};
use crate::image::{
    Descriptor, Digest, Hasher, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name, ORIGINAL, REF_NAME, digest_tags,
    is_digest_tag, media_type, remove_name,
};
use crate::source::{ReferrerList, Root};
use crate::tarball::read::contents::{Contents, INDEX};
use crate::tarball::tar::path::shown;
use std::collections::{HashMap, HashSet};

/// The annotation of `index.json` that names the blob.
pub(crate) const ANNOTATION: &str = "imgmv.referrers";
/// The annotation of an entry in the blob: the subject, by which a missing referrer is told apart from those of other
/// images.
pub(crate) const SUBJECT: &str = "imgmv.subject";
/// The maximum size of the manifests that the blob lists, together.
const MAX_TABLE_BYTES: u64 = 32 << 20;
/// The maximum number of manifests that all indexes of which images are a part list, counted for each index.
const MAX_LISTED: usize = 1 << 20;
/// The maximum number of entries in the blob.
const MAX_ENTRIES: usize = 50_000;

/// The attached manifests of an archive.
#[derive(Debug, Default)]
pub(crate) struct AttachedTable {
    /// By the digest of their subject.
    referrers: HashMap<Digest, Vec<Descriptor>>,
    tagged: HashMap<String, Descriptor>,
    /// By the digests of an image and of the index that it names: that index, where the image is a part of it.
    original_of: HashMap<(Digest, Digest), Descriptor>,
    /// The first reason why there may be more.
    incomplete: Option<String>,
}

impl AttachedTable {
    /// Reads the table of `contents`, whose lists of images are valid; empty for an archive without one.
    pub fn read(contents: &dyn Contents) -> Result<AttachedTable> {
        let Some(index) = contents.document(INDEX)? else { return Ok(AttachedTable::default()) };
        let index = LayoutIndex::parse(&index)?;
        let entries = index.named()?;
        let mut reader = Reader {
            contents,
            table: AttachedTable::default(),
            seen: HashSet::new(),
            indexes: HashMap::new(),
            bytes: 0,
        };
        reader.listed(&entries)?;
        match index.annotation(ANNOTATION).map(|digest| reader.annotated(digest)) {
            Some(Err(error)) if error.kind() == Kind::Invalid => reader.note(error.to_string()),
            Some(Err(error)) => return Err(error),
            None | Some(Ok(())) => {}
        }
        reader.find_originals(&entries)?;
        Ok(reader.table)
    }

    /// `roots` of the archive, with the indexes that they are a part of.
    pub fn with_originals(&self, mut roots: Vec<Root>) -> Vec<Root> {
        for root in &mut roots {
            let named = root.descriptor.annotation(ORIGINAL).and_then(|named| named.parse().ok());
            root.original = named.and_then(|named| self.original_of.get(&(root.descriptor.digest, named)).cloned());
        }
        roots
    }

    /// As [`crate::source::Store::referrers`].
    pub fn referrers(&self, subject: &Digest) -> ReferrerList {
        let entries = self.referrers.get(subject).cloned().unwrap_or_default();
        ReferrerList { entries, incomplete: self.incomplete.clone() }
    }

    /// As [`crate::source::Store::digest_tagged`].
    pub fn digest_tagged(&self, subject: &Digest) -> Vec<(String, Descriptor)> {
        let tags = digest_tags(subject).into_iter();
        tags.filter_map(|tag| self.tagged.get(&tag).map(|entry| (tag.clone(), entry.clone()))).collect()
    }

    /// The manifests under cosign's tags, with their tags.
    pub fn all_digest_tagged(&self) -> Vec<(String, Descriptor)> {
        self.tagged.iter().map(|(tag, entry)| (tag.clone(), entry.clone())).collect()
    }
}

/// Reads the table of an archive.
struct Reader<'c> {
    contents: &'c dyn Contents,
    table: AttachedTable,
    /// The referrers in the table.
    seen: HashSet<Digest>,
    /// Indexes that images of the archive are a part of, and indexes below them.
    indexes: HashMap<Digest, (Descriptor, Vec<Digest>)>,
    /// The size of the manifests that were read, together.
    bytes: u64,
}

impl Reader<'_> {
    /// Adds the manifests that other tools list like images: those with a subject and no name, and cosign's tags.
    fn listed(&mut self, entries: &[(Option<Name>, Descriptor)]) -> Result<()> {
        for (name, entry) in entries {
            if let Some(tag) = name.as_ref().and_then(Name::tag).filter(|tag| is_digest_tag(tag)) {
                self.table.tagged.insert(tag, entry.clone());
            } else if name.is_none() && entry.names_manifest() && self.fits(entry) {
                // The list of images fails for one that is missing or damaged, unless it is not copied.
                let Some(manifest) = self.manifest(entry)? else { continue };
                if let Some(subject) = manifest.subject.as_ref().map(|subject| subject.digest) {
                    self.add_referrer(subject, manifest.referrer_entry());
                }
            }
        }
        Ok(())
    }

    /// Adds what the blob lists that the annotation names.
    ///
    /// # Errors
    /// `Invalid` for a blob that is missing, malformed or too large.
    fn annotated(&mut self, named: &str) -> Result<()> {
        let wrong =
            |why: &str| Error::invalid(format!("the annotation {ANNOTATION} of {INDEX} names {}, {why}", shown(named)));
        let digest: Digest = named.parse().map_err(|_| wrong("which is not a digest"))?;
        let bytes = document(self.contents, &digest)?.ok_or_else(|| wrong("which is not in the archive"))?;
        if Hasher::new(digest.algorithm()).with(&bytes).finish() != digest {
            return Err(wrong("whose bytes have another digest"));
        }
        let entries = LayoutIndex::parse(&bytes).and_then(|list| list.entries());
        let entries = entries.map_err(|error| wrong(&format!("which is not a list of manifests ({error})")))?;
        if entries.len() > MAX_ENTRIES {
            return Err(wrong(&format!("which lists more than {MAX_ENTRIES} manifests")));
        }
        entries.into_iter().try_for_each(|entry| self.insert(entry))
    }

    fn insert(&mut self, mut entry: Descriptor) -> Result<()> {
        let tag = entry.annotation(REF_NAME).filter(|tag| is_digest_tag(tag)).map(str::to_owned);
        if let Some(tag) = tag {
            remove_name(&mut entry);
            self.table.tagged.insert(tag, entry);
            return Ok(());
        }
        if self.seen.contains(&entry.digest) || !self.fits(&entry) {
            return Ok(());
        }
        let annotated = entry.annotation(SUBJECT).and_then(|subject| subject.parse::<Digest>().ok());
        entry.annotations = None;
        let manifest = match annotated {
            Some(_) => self.readable(&entry)?,
            None => self.manifest(&entry)?,
        };
        let own = manifest.as_ref().and_then(|manifest| manifest.subject.as_ref());
        match (manifest.as_ref(), own.map(|subject| subject.digest).or(annotated)) {
            (Some(manifest), Some(subject)) => self.add_referrer(subject, manifest.referrer_entry()),
            // The search for referrers cannot read it, and names it.
            (None, Some(subject)) => self.add_referrer(subject, entry),
            (Some(manifest), None) if media_type::is_index(&manifest.descriptor.media_type) => {
                let children = manifest.children().iter().map(|child| child.digest).collect();
                self.indexes.insert(entry.digest, (entry, children));
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// Finds the index that each of `entries` names as the one that it is a part of; a note tells why one is not found.
    fn find_originals(&mut self, entries: &[(Option<Name>, Descriptor)]) -> Result<()> {
        let (mut seen, mut below, mut listed) = (HashSet::new(), HashMap::new(), 0);
        for (_, entry) in entries {
            let Some(named) = entry.annotation(ORIGINAL).filter(|named| seen.insert((entry.digest, *named))) else {
                continue;
            };
            let digest = named.parse::<Digest>().ok();
            let known = digest.and_then(|digest| self.indexes.get(&digest));
            let why = match known.cloned() {
                None => "which is missing or damaged",
                Some(_) if listed > MAX_LISTED => "and the archive names too many",
                Some((index, _)) => {
                    let parts = below.entry(index.digest).or_insert_with(|| {
                        let parts = self.below(&index.digest);
                        listed += parts.len();
                        parts
                    });
                    let is_part = match self.readable(entry)? {
                        None => false,
                        Some(manifest) if manifest.children().is_empty() => parts.contains(&entry.digest),
                        Some(manifest) => manifest.children().iter().all(|child| parts.contains(&child.digest)),
                    };
                    if is_part {
                        self.table.original_of.insert((entry.digest, index.digest), index);
                        continue;
                    }
                    "which does not list it"
                }
            };
            let named = digest.map_or_else(|| shown(named), |digest| digest.to_string());
            self.note(format!("image {} names {named} as the index that it is a part of, {why}", entry.digest));
        }
        Ok(())
    }

    /// The digests that the index `top` and the indexes below it list.
    fn below(&self, top: &Digest) -> HashSet<Digest> {
        let (mut found, mut next) = (HashSet::new(), vec![*top]);
        while let Some(index) = next.pop() {
            let listed = self.indexes.get(&index).into_iter().flat_map(|(_, listed)| listed);
            next.extend(listed.filter(|child| found.insert(**child)));
        }
        found
    }

    fn add_referrer(&mut self, subject: Digest, entry: Descriptor) {
        if self.seen.insert(entry.digest) {
            self.table.referrers.entry(subject).or_default().push(entry);
        }
    }

    /// Counts the bytes of `entry`; whether they may be read.
    fn fits(&mut self, entry: &Descriptor) -> bool {
        self.bytes = self.bytes.saturating_add(entry.size.min(MAX_MANIFEST_BYTES));
        let fits = self.bytes <= MAX_TABLE_BYTES;
        if !fits {
            self.note(format!(
                "the manifests that belong to the images have more than {MAX_TABLE_BYTES} bytes together"
            ));
        }
        fits
    }

    /// The manifest `entry`; `None`, with a note, if it is missing or damaged.
    fn manifest(&mut self, entry: &Descriptor) -> Result<Option<Manifest>> {
        let manifest = self.readable(entry)?;
        if manifest.is_none() {
            self.note(format!("manifest {}, which may be a referrer, is missing or damaged", entry.digest));
        }
        Ok(manifest)
    }

    /// The manifest `entry`; `None` if it is missing or damaged.
    fn readable(&self, entry: &Descriptor) -> Result<Option<Manifest>> {
        let bytes = match document(self.contents, &entry.digest) {
            Err(error) if error.kind() != Kind::Invalid => return Err(error),
            bytes => bytes.ok().flatten(),
        };
        Ok(bytes.and_then(|bytes| Manifest::parse(bytes, entry).ok()))
    }

    fn note(&mut self, why: String) {
        self.table.incomplete.get_or_insert(why);
    }
}

fn document(contents: &dyn Contents, digest: &Digest) -> Result<Option<Vec<u8>>> {
    Ok(contents.document(&digest.blob_path())?.filter(|bytes| bytes.len() as u64 <= MAX_MANIFEST_BYTES))
}
