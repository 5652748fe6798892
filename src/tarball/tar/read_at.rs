//! Bytes that several threads can read at any offset: the file of an archive, or a part of it.

use super::entries::{TarBytes, truncated};
use crate::error::{Error, Result};
use std::{fs::File, io, io::Read, os::unix::fs::FileExt};

/// Bytes that can be read at any offset.
pub trait ReadAt: Send + Sync {
    /// Reads some bytes at the offset `at`; 0 only at the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Returns the size in bytes.
    fn size(&self) -> u64;
}

/// A file from an offset to the end. The end is fixed when the section is created.
#[derive(Debug)]
pub struct Section {
    file: File,
    from: u64,
    size: u64,
}

impl Section {
    /// Creates the section of `file` that starts at the offset `from`.
    pub fn new(file: File, from: u64) -> io::Result<Section> {
        let size = file.metadata()?.len().saturating_sub(from);
        Ok(Section { file, from, size })
    }
}

impl ReadAt for Section {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, self.from + at)
    }
    fn size(&self) -> u64 {
        self.size
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(self.len());
        (&self[from..]).read(buffer)
    }
    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// Reads `bytes` from `at` to `end`. It fails if they end before.
pub(crate) struct SpanReader<'b, B> {
    pub bytes: &'b B,
    pub at: u64,
    pub end: u64,
}

impl<B: ReadAt> Read for SpanReader<'_, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.bytes.read_at(&mut buffer[..wanted], self.at)? {
            0 => Err(truncated().into()),
            n => {
                self.at += n as u64;
                Ok(n)
            }
        }
    }
}

/// Reads all of `bytes` forward; skipped data is not read.
pub(crate) struct ForwardReader<'b, B> {
    bytes: &'b B,
    at: u64,
    /// A buffer for the headers of small entries, which saves a system call for each.
    window: Vec<u8>,
    window_at: u64,
}

impl<'b, B: ReadAt> ForwardReader<'b, B> {
    const WINDOW_BYTES: usize = 16 << 10;

    pub fn new(bytes: &'b B) -> Self {
        ForwardReader { bytes, at: 0, window: Vec::new(), window_at: 0 }
    }
}

impl<B: ReadAt> TarBytes for ForwardReader<'_, B> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if !(self.window_at..self.window_at + self.window.len() as u64).contains(&self.at) {
            self.window.resize(Self::WINDOW_BYTES, 0);
            let n = self.bytes.read_at(&mut self.window, self.at).map_err(|e| Error::reading("the archive", e))?;
            self.window.truncate(n);
            self.window_at = self.at;
        }
        let n = (&self.window[(self.at - self.window_at) as usize..]).read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        match self.at.checked_add(bytes) {
            Some(at) if at <= self.bytes.size() => {
                self.at = at;
                Ok(())
            }
            _ => Err(truncated()),
        }
    }
}
