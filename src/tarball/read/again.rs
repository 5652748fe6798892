//! A compressed archive in a file can be read from its start again: for one of its layers, or to know what its blobs are
//! before they are copied.

use super::steps::{Step, Steps};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest};
use crate::tarball::tar::decompress::ArchiveCompression;
use crate::tarball::tar::path::shown;
use crate::tarball::tar::read_at::{ReadAt, Section};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

/// A compressed archive in a file.
#[derive(Debug, Clone)]
pub struct ArchiveFile {
    section: Arc<Section>,
    compression: ArchiveCompression,
}

impl ArchiveFile {
    /// The archive in `section`.
    pub fn new(section: Section, compression: ArchiveCompression) -> ArchiveFile {
        ArchiveFile { section: Arc::new(section), compression }
    }

    /// The decompressed tar, from its start.
    ///
    /// # Errors
    /// As [`ArchiveCompression::decompress`].
    pub fn tar(&self) -> Result<Box<dyn Read + Send>> {
        self.compression.decompress(Box::new(SectionReader { section: self.section.clone(), at: 0 }))
    }
}

struct SectionReader {
    section: Arc<Section>,
    at: u64,
}

impl Read for SectionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.section.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// The layers of a compressed archive in a file, which is read from its start for each of them.
#[derive(Debug)]
pub(crate) struct LayersAgain {
    pub file: ArchiveFile,
    /// The name of the archive in messages.
    pub label: String,
    /// The names of the entries, by the digest of the layer.
    pub entries: HashMap<Digest, Box<str>>,
}

impl LayersAgain {
    /// The bytes of `layer` from the offset `from`; `None` if the archive does not have it.
    ///
    /// # Errors
    /// - `Invalid`: the archive is damaged, or it changed.
    /// - Those of the file.
    pub fn open(&self, layer: &Descriptor, from: u64) -> Result<Option<Box<dyn Read + Send>>> {
        let Some(name) = self.entries.get(&layer.digest) else { return Ok(None) };
        let mut steps = Steps::new(self.file.tar()?);
        loop {
            match steps.step().map_err(|e| e.at(&self.label))? {
                Step::Layer if steps.current().is_some_and(|(current, _)| current == &**name) => break,
                Step::End => {
                    let (label, name) = (&self.label, shown(name));
                    return Err(Error::invalid(format!("{label}: {name} is missing now: the archive changed")));
                }
                _ => {}
            }
        }
        let mut bytes = LayerAgain { steps, label: self.label.clone() };
        io::copy(&mut (&mut bytes).take(from), &mut io::sink())?;
        Ok(Some(Box::new(bytes)))
    }
}

/// One layer; the archive ends behind it.
struct LayerAgain {
    steps: Steps,
    label: String,
}

impl Read for LayerAgain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.steps.read_current(buffer).map_err(|e| e.at(&self.label).into())
    }
}
