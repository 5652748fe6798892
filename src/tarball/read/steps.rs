//! The entries of an archive, one step after the other. Manifests, indexes, configs and other small documents are stored,
//! layers and other blobs are read by the caller, and other entries are skipped.

use super::contents::{INDEX, LAYOUT, MAX_DOCUMENT_BYTES};
use super::documents::StreamContents;
use super::layer::CurrentLayer;
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::entries::{EntryKind, TarEntry, TarReader};
use crate::tarball::tar::path::shown;
use crate::tarball::tar::pipe::{Pipe, is_json, is_layer};
use std::io::Read;

/// The first bytes of an entry, which tell a document from a layer: a tar's header.
const HEAD_BYTES: usize = 512;
/// All stored documents together.
const MAX_DOCUMENTS_BYTES: u64 = 32 << 20;
/// All skipped entries that are neither layer nor document.
const MAX_SKIPPED_BYTES: u64 = 1 << 30;
/// Bytes after the end mark.
const MAX_TRAILER_BYTES: u64 = 64 << 20;
/// Skipped entries up to this size are passed on by a rewrite: docker's old form has one per layer (`VERSION`).
const TINY_FILE_BYTES: u64 = 16;
const BUFFER_BYTES: usize = 64 << 10;

/// An archive that is read forward, up to the current entry.
pub(crate) struct Steps {
    walk: TarReader<Pipe>,
    pub held: StreamContents,
    current: Option<CurrentLayer>,
    /// Whether layers are stored under their digests; `None` before the first layer.
    pub digests_known: Option<bool>,
    /// Whether the first entry is `oci-layout`.
    pub begins_with_layout: bool,
    is_begun: bool,
    skipped_bytes: u64,
    pub ended: bool,
}

/// The next entry of the archive.
pub(crate) enum Step {
    /// A layer, which is the current entry.
    Layer,
    /// A document, stored under this name.
    Document(String),
    /// A link or a directory, stored.
    Other(TarEntry),
    /// Neither document nor layer; with its bytes if they are at most [`TINY_FILE_BYTES`].
    Skipped(String, Vec<u8>),
    End,
}

impl Steps {
    pub fn new(tar: Box<dyn Read + Send>) -> Steps {
        let (walk, held) = (TarReader::new(Pipe(tar)), StreamContents::default());
        Steps {
            walk,
            held,
            current: None,
            digests_known: None,
            begins_with_layout: false,
            is_begun: false,
            skipped_bytes: 0,
            ended: false,
        }
    }

    /// The next entry; the unread rest of a layer is skipped.
    pub fn step(&mut self) -> Result<Step> {
        self.skip_current()?;
        if self.ended {
            return Ok(Step::End);
        }
        let Some(entry) = self.walk.next_entry()? else {
            self.ended = true;
            // A decompressor checks its checksum here, and a writer can end.
            self.walk.input().drain(MAX_TRAILER_BYTES)?;
            return Ok(Step::End);
        };
        self.begins_with_layout |= !std::mem::replace(&mut self.is_begun, true) && entry.name == LAYOUT;
        self.held.backslashes |= entry.name.contains('\\');
        if entry.kind != EntryKind::File {
            self.held.insert_link(&entry);
            return Ok(Step::Other(entry));
        }
        let head = self.head()?;
        let fits = entry.size <= MAX_DOCUMENT_BYTES && self.held.bytes + entry.size <= MAX_DOCUMENTS_BYTES;
        // Read in any case: a list that is not JSON is an error, as in a file.
        let list = [manifest_json::FILE, manifest_json::REPOSITORIES, INDEX, LAYOUT].contains(&entry.name.as_str());
        if list && !fits {
            return Err(Error::invalid(format!(
                "{} has {} bytes, more than the {MAX_DOCUMENT_BYTES} allowed ({MAX_DOCUMENTS_BYTES} for all documents)",
                shown(&entry.name),
                entry.size
            )));
        }
        let named = blob_digest(&entry.name);
        if fits && (is_json(&head) || list) {
            let bytes = self.read_all(head, entry.size)?;
            if named.is_some() && self.names_blobs() && !self.held.needs(&bytes) {
                // An SBOM, an attestation, a bundle of cosign: a blob like any other.
                self.begin_layer(entry, bytes, named)?;
                return Ok(Step::Layer);
            }
            self.held.insert_document(&entry.name, bytes)?;
            return Ok(Step::Document(entry.name));
        }
        let stray = named.is_none() && self.digests_known == Some(true);
        if !stray && (named.is_some() || is_layer(&head)) {
            self.begin_layer(entry, head, named)?;
            return Ok(Step::Layer);
        }
        if stray && is_layer(&head) {
            self.held.unnamed_layers.insert(entry.name.clone());
        }
        self.skipped_bytes += entry.size;
        match self.skipped_bytes > MAX_SKIPPED_BYTES {
            true => Err(Error::invalid(format!(
                "the archive has more than {MAX_SKIPPED_BYTES} bytes that do not belong to an image"
            ))),
            false if entry.size <= TINY_FILE_BYTES => Ok(Step::Skipped(entry.name, head)),
            false => Ok(Step::Skipped(entry.name, Vec::new())),
        }
    }

    /// Whether layers are stored under their digests, as far as the entries before show it.
    fn names_blobs(&self) -> bool {
        self.digests_known.unwrap_or_else(|| self.held.names_blobs())
    }

    /// Begins a layer; `head` is at least its first bytes.
    fn begin_layer(&mut self, entry: TarEntry, head: Vec<u8>, named: Option<Digest>) -> Result<()> {
        let known = *self.digests_known.get_or_insert_with(|| named.is_some() && self.held.names_blobs());
        self.current = Some(match named.filter(|_| known) {
            Some(digest) => CurrentLayer::named(entry.name, entry.size, head, digest),
            None => CurrentLayer::hashed(entry.name, entry.size, head)?,
        });
        Ok(())
    }

    /// Reads bytes of the current layer; 0 at its end.
    pub fn read_current(&mut self, buffer: &mut [u8]) -> Result<usize> {
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

    /// Name and size in bytes of the current layer.
    pub fn current(&self) -> Option<(&str, u64)> {
        self.current.as_ref().map(|current| (&*current.name, current.size))
    }

    fn end_current(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            let (name, passed) = current.finish()?;
            self.held.layers.insert(name, passed);
        }
        Ok(())
    }

    fn skip_current(&mut self) -> Result<()> {
        if self.current.as_ref().is_some_and(|current| !current.is_hashed()) {
            return self.end_current();
        }
        let mut scratch = match self.current {
            Some(_) => vec![0; BUFFER_BYTES],
            None => return Ok(()),
        };
        while self.read_current(&mut scratch)? > 0 {}
        Ok(())
    }

    /// The first bytes of the current entry.
    fn head(&mut self) -> Result<Vec<u8>> {
        let mut head = vec![0; HEAD_BYTES];
        let mut filled = 0;
        while filled < HEAD_BYTES {
            match self.walk.read(&mut head[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        head.truncate(filled);
        Ok(head)
    }

    /// All bytes of a small entry that begins with `head`.
    fn read_all(&mut self, head: Vec<u8>, size: u64) -> Result<Vec<u8>> {
        let mut filled = head.len();
        let mut bytes = head;
        bytes.resize(size as usize, 0);
        while filled < bytes.len() {
            filled += self.walk.read(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }
}
