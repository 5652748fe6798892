//! The entries of an archive, one step after the other: small documents are stored, layers are handed out, everything
//! else is skipped.

use super::contents::{INDEX, LAYOUT, MAX_DOCUMENT};
use super::documents::Held;
use super::layer::Passing;
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::entries;
use crate::tarball::tar::entries::{Entry, Walk};
use crate::tarball::tar::path::shown;
use crate::tarball::tar::pipe::{Pipe, is_json, is_layer};
use std::io::Read;

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

/// An archive that is read forward, up to the current entry.
pub(crate) struct Steps {
    walk: Walk<Pipe>,
    pub held: Held,
    current: Option<Passing>,
    /// Whether layers are stored under their digests; `None` before the first layer.
    pub known: Option<bool>,
    junk: u64,
    pub ended: bool,
}

/// What comes next in the archive.
pub(crate) enum Step {
    /// It is `current` now.
    Layer,
    /// It is held now, under this name.
    Document(String),
    /// A link or a directory, noted.
    Other(Entry),
    /// Neither document nor layer; its bytes where they are few.
    Junk(String, Vec<u8>),
    End,
}

impl Steps {
    pub fn new(tar: Box<dyn Read + Send>) -> Steps {
        let (walk, held) = (Walk::new(Pipe(tar)), Held::default());
        Steps { walk, held, current: None, known: None, junk: 0, ended: false }
    }

    /// The next thing in the archive; what is left of a layer is passed over.
    pub fn step(&mut self) -> Result<Step> {
        self.pass_current()?;
        if self.ended {
            return Ok(Step::End);
        }
        let Some(entry) = self.walk.next_entry()? else {
            self.ended = true;
            // So that a packing's checksum is seen, and a writer can end.
            self.walk.tape().drain(MAX_AFTER)?;
            return Ok(Step::End);
        };
        self.held.backslashes |= entry.name.contains('\\');
        if entry.what != entries::What::File {
            self.held.note(&entry);
            return Ok(Step::Other(entry));
        }
        let head = self.head()?;
        let fits = entry.size <= MAX_DOCUMENT && self.held.bytes + entry.size <= MAX_HELD;
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
            self.held.hold(&entry.name, bytes)?;
            return Ok(Step::Document(entry.name));
        }
        let stray = named.is_none() && self.known == Some(true);
        if !stray && (named.is_some() || is_layer(&head)) {
            self.begin(entry, head, named)?;
            return Ok(Step::Layer);
        }
        if stray && is_layer(&head) {
            self.held.strays.insert(entry.name.clone());
        }
        self.junk += entry.size;
        match self.junk > MAX_JUNK {
            true => Err(Error::invalid(format!("the archive has more than {MAX_JUNK} bytes that belong to no image"))),
            false if entry.size <= FEW => Ok(Step::Junk(entry.name, head)),
            false => Ok(Step::Junk(entry.name, Vec::new())),
        }
    }

    fn begin(&mut self, entry: Entry, head: Vec<u8>, named: Option<Digest>) -> Result<()> {
        let known = *self.known.get_or_insert_with(|| named.is_some() && self.held.names_blobs());
        self.current = Some(match named.filter(|_| known) {
            Some(digest) => Passing::named(entry.name, entry.size, head, digest),
            None => Passing::hashed(entry.name, entry.size, head)?,
        });
        Ok(())
    }

    /// Bytes of the layer that is passing; 0 at its end.
    pub fn read_current(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = match current.first(buffer) {
            0 => self.walk.read(buffer)?,
            n => n,
        };
        match n {
            0 => self.end_current()?,
            n => current.pass(&buffer[..n])?,
        }
        Ok(n)
    }

    /// Name and size, in bytes, of the layer that is passing.
    pub fn current(&self) -> Option<(&str, u64)> {
        self.current.as_ref().map(|current| (&*current.name, current.size))
    }

    fn end_current(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            let (name, passed) = current.end()?;
            self.held.passed.insert(name, passed);
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
}
