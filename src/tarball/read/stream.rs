//! An archive that passes once (standard input, a packed file): small documents are kept, layers handed out, and what
//! the archive says of them is believed when it has ended.

use super::contents;
use super::contents::{ArchiveImage, Contents, INDEX, ImageForm, LAYOUT, MAX_DOCUMENT_BYTES, list};
use super::documents::StreamContents;
use super::layer::CurrentLayer;
use super::legacy_manifest;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest};
use crate::source::{Blob, Claim, Relay, Root, Stream, StreamSummary};
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::entries::{EntryKind, TarEntry, TarReader};
use crate::tarball::tar::path::shown;
use crate::tarball::tar::pipe::{Pipe, is_json, is_layer};
use std::{
    collections::HashSet,
    io::{self, Read},
};

/// What tells a document from a layer: enough for a tar's header.
const HEAD: usize = 512;
/// Bytes of documents kept, at most.
const MAX_HELD: u64 = 32 << 20;
/// Bytes passed over that are neither layer nor document, at most.
const MAX_JUNK: u64 = 1 << 30;
/// Bytes behind the end mark, at most.
const MAX_AFTER: u64 = 64 << 20;
/// A file of so many bytes may be one that docker's old form has for each layer (`VERSION`).
const FEW: u64 = 16;
const SCRATCH: usize = 64 << 10;

/// An archive of images that is read forward.
pub struct ArchiveStream {
    walk: TarReader<Pipe>,
    label: String,
    pub(crate) held: StreamContents,
    current: Option<CurrentLayer>,
    /// Whether layers lie under their digests.
    known: Option<bool>,
    /// What was passed to find out, for a relay.
    early: Vec<Step>,
    /// `current` was reached to find out, and not handed out yet.
    waiting: bool,
    junk: u64,
    ended: bool,
    expected_diff_ids: Vec<Vec<Digest>>,
}

/// What comes next in the archive.
pub(crate) enum Step {
    /// It is `current` now.
    Layer,
    /// It is held now, under this name.
    Document(String),
    /// A link or a directory, noted.
    Other(TarEntry),
    /// Neither document nor layer; its bytes where they are few.
    Junk(String, Vec<u8>),
    End,
}

impl ArchiveStream {
    /// The archive that `tar`, unpacked, gives. `label` is what messages call it.
    pub fn new(tar: Box<dyn Read + Send>, label: &str) -> ArchiveStream {
        ArchiveStream {
            walk: TarReader::new(Pipe(tar)),
            label: label.to_owned(),
            held: StreamContents::default(),
            current: None,
            known: None,
            early: Vec::new(),
            waiting: false,
            junk: 0,
            ended: false,
            expected_diff_ids: Vec::new(),
        }
    }

    /// Whoever writes the archive has said that its images have these layers ([`Stream::expected_diff_ids`]).
    pub fn expecting(self, expected_diff_ids: Vec<Vec<Digest>>) -> ArchiveStream {
        ArchiveStream { expected_diff_ids, ..self }
    }

    /// The next thing in the archive; what is left of a layer is passed over.
    pub(crate) fn step(&mut self) -> Result<Step> {
        self.pass_current()?;
        if self.ended {
            return Ok(Step::End);
        }
        let Some(entry) = self.walk.next_entry()? else {
            self.ended = true;
            // So that a packing's checksum is seen, and a writer can end.
            self.walk.input().drain(MAX_AFTER)?;
            return Ok(Step::End);
        };
        self.held.backslashes |= entry.name.contains('\\');
        if entry.kind != EntryKind::File {
            self.held.insert_link(&entry);
            return Ok(Step::Other(entry));
        }
        let head = self.head()?;
        let fits = entry.size <= MAX_DOCUMENT_BYTES && self.held.bytes + entry.size <= MAX_HELD;
        // Read whatever it begins with: what is no JSON is refused, as in a file.
        let list = [manifest_json::FILE, manifest_json::REPOSITORIES, INDEX, LAYOUT].contains(&entry.name.as_str());
        if list && !fits {
            return Err(Error::invalid(format!(
                "{} has {} bytes, more than is read of documents",
                shown(&entry.name),
                entry.size
            )));
        }
        let named = blob_digest(&entry.name);
        if fits && (is_json(&head) || list) {
            let bytes = self.whole(head, entry.size)?;
            self.held.insert_document(&entry.name, bytes)?;
            return Ok(Step::Document(entry.name));
        }
        let stray = named.is_none() && self.known == Some(true);
        if !stray && (named.is_some() || is_layer(&head)) {
            self.begin(entry, head, named)?;
            return Ok(Step::Layer);
        }
        if stray && is_layer(&head) {
            self.held.unnamed_layers.insert(entry.name.clone());
        }
        self.junk += entry.size;
        match self.junk > MAX_JUNK {
            true => Err(Error::invalid(format!("the archive has more than {MAX_JUNK} bytes that belong to no image"))),
            false if entry.size <= FEW => Ok(Step::Junk(entry.name, head)),
            false => Ok(Step::Junk(entry.name, Vec::new())),
        }
    }

    fn begin(&mut self, entry: TarEntry, head: Vec<u8>, named: Option<Digest>) -> Result<()> {
        let known = *self.known.get_or_insert_with(|| named.is_some() && self.held.names_blobs());
        self.current = Some(match named.filter(|_| known) {
            Some(digest) => CurrentLayer::named(entry.name, entry.size, head, digest),
            None => CurrentLayer::hashed(entry.name, entry.size, head)?,
        });
        Ok(())
    }

    /// Bytes of the layer that is passing; 0 at its end.
    pub(crate) fn read_current(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = match current.read_head(buffer) {
            0 => self.walk.read(buffer)?,
            n => n,
        };
        match n {
            0 => self.end_current()?,
            n => current.update(&buffer[..n])?,
        }
        Ok(n)
    }

    /// Name and size, in bytes, of the layer that is passing.
    pub(crate) fn current(&self) -> Option<(&str, u64)> {
        self.current.as_ref().map(|current| (&*current.name, current.size))
    }

    /// The steps that were made to know what the archive is.
    pub(crate) fn early_steps(&mut self) -> Vec<Step> {
        let mut early = std::mem::take(&mut self.early);
        if std::mem::take(&mut self.waiting) {
            early.push(Step::Layer);
        }
        early
    }

    fn end_current(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            let (name, passed) = current.finish()?;
            self.held.layers.insert(name, passed);
        }
        Ok(())
    }

    fn pass_current(&mut self) -> Result<()> {
        if self.current.as_ref().is_some_and(|current| !current.is_hashed()) {
            return self.end_current();
        }
        let mut scratch = match self.current {
            Some(_) => vec![0; SCRATCH],
            None => return Ok(()),
        };
        while self.read_current(&mut scratch)? > 0 {}
        Ok(())
    }

    /// The first bytes of the current entry.
    fn head(&mut self) -> Result<Vec<u8>> {
        let mut head = vec![0; HEAD];
        let mut filled = 0;
        while filled < HEAD {
            match self.walk.read(&mut head[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        head.truncate(filled);
        Ok(head)
    }

    /// The whole of a small entry that begins with `head`.
    fn whole(&mut self, head: Vec<u8>, size: u64) -> Result<Vec<u8>> {
        let mut filled = head.len();
        let mut bytes = head;
        bytes.resize(size as usize, 0);
        while filled < bytes.len() {
            filled += self.walk.read(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// The images, with every manifest and config; `self` has passed.
    pub(crate) fn settle(&self) -> Result<(Vec<(ArchiveImage, Root)>, StreamSummary)> {
        let nothing = contents::empty(&self.held, &self.label);
        let mut tail = StreamSummary { roots: Vec::new(), documents: Default::default(), nothing };
        let mut images = Vec::new();
        for image in list(&self.held)? {
            let root = match &image.form {
                ImageForm::Manifest(descriptor) => {
                    self.sizes_agree(descriptor, 0, &mut HashSet::new())?;
                    if self.held.backslashes && self.held.document(&descriptor.digest.blob_path())?.is_none() {
                        return Err(contents::missing(&self.held, &descriptor.digest.blob_path()));
                    }
                    let mut root = Root::new(None, Descriptor::clone(descriptor));
                    if let Some(made) = &image.index {
                        let mut seen = HashSet::new();
                        made.children().iter().try_for_each(|child| self.sizes_agree(child, 1, &mut seen))?;
                        tail.documents.insert(made.digest(), made.bytes.clone());
                        root.synthesised = true;
                    }
                    root
                }
                ImageForm::Legacy(saved) => {
                    let made = legacy_manifest::create(&self.held, saved)?;
                    let descriptor = made.manifest.descriptor;
                    tail.documents.insert(Digest::of(&made.config), made.config);
                    tail.documents.insert(descriptor.digest, made.manifest.bytes);
                    Root { name: None, descriptor, synthesised: true }
                }
            };
            let names = image.names.iter().cloned().map(Some);
            let nameless = image.names.is_empty().then_some(None);
            tail.roots.extend(names.chain(nameless).map(|name| Root { name, ..root.clone() }));
            images.push((image, root));
        }
        Ok((images, tail))
    }

    /// What passed has the sizes that the manifests under `at` say; what did not pass is the engine's to miss.
    fn sizes_agree(&self, at: &Descriptor, depth: usize, seen: &mut HashSet<Digest>) -> Result<()> {
        if !at.names_manifest() || depth > contents::MAX_DEPTH || !seen.insert(at.digest) {
            return Ok(());
        }
        let Some(bytes) = self.held.document(&at.digest.blob_path())? else { return Ok(()) };
        let manifest = Manifest::parse(bytes, at)?;
        for blob in manifest.blobs() {
            let found = self.held.size(&blob.digest.blob_path());
            if let Some(found) = found.filter(|found| *found != blob.size) {
                return Err(Error::invalid(format!(
                    "blob {} does not match: it has {found} bytes, its descriptor says {}",
                    blob.digest, blob.size
                )));
            }
        }
        manifest.children().iter().try_for_each(|child| self.sizes_agree(child, depth + 1, seen))
    }
}

impl Stream for ArchiveStream {
    fn expected_diff_ids(&self) -> Vec<Vec<Digest>> {
        self.expected_diff_ids.clone()
    }

    fn digests_known(&mut self) -> Result<bool> {
        while self.known.is_none() {
            match self.step().map_err(|e| e.at(&self.label))? {
                Step::Layer => self.waiting = true,
                // Only documents: images without layers.
                Step::End => self.known = Some(true),
                other => self.early.push(other),
            }
        }
        Ok(self.known.unwrap_or(true))
    }

    fn next_blob(&mut self) -> Result<Option<Blob<'_>>> {
        if !std::mem::take(&mut self.waiting) {
            while !matches!(self.step().map_err(|e| e.at(&self.label))?, Step::Layer) {
                if self.ended {
                    return Ok(None);
                }
            }
        }
        self.early.clear();
        let current = self.current.as_ref().expect("a step to a layer sets it");
        let digest = self.known.filter(|known| *known).and_then(|_| blob_digest(&current.name));
        let claim = Claim { digest, size: Some(current.size) };
        Ok(Some(Blob { claim, bytes: Box::new(Handed(self)) }))
    }

    fn finish(mut self: Box<Self>) -> Result<StreamSummary> {
        while !matches!(self.step().map_err(|e| e.at(&self.label))?, Step::End) {}
        let (_, mut tail) = self.settle().map_err(|e| e.at(&self.label))?;
        tail.documents.extend(self.held.into_blobs());
        Ok(tail)
    }

    fn relay(mut self: Box<Self>, relay: Relay<'_>) -> Result<StreamSummary> {
        let label = self.label.clone();
        crate::tarball::rewrite::relay::relay(&mut self, relay).map_err(|e| e.at(&label))
    }
}

/// The layer that is passing, as a reader.
struct Handed<'s>(&'s mut ArchiveStream);

impl Read for Handed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_current(buffer).map_err(|e| e.at(&self.0.label).into())
    }
}
