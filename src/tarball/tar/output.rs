//! Writes a tar to a pipe, or to a file whose headers can still be changed.

use super::compress::Compressed;
use super::header;
use super::header::{BLOCK_BYTES, HeaderKind};
use crate::error::{Error, Result};
use std::{fs::File, io::Write, os::unix::fs::FileExt};

/// Smaller writes are buffered; larger ones are written without a copy.
const BUFFER_BYTES: usize = 64 << 10;
/// The end mark of a tar: two blocks of zeros.
const END_MARK: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// The destination of an archive.
pub enum TarOutput<'o> {
    Pipe(Box<dyn Write + Send + 'o>),
    /// An empty file.
    File(File),
    /// A compressed file, which cannot be changed afterwards.
    Compressed(Compressed),
}

/// Writes a tar.
pub(crate) struct TarWriter<'o> {
    out: TarOutput<'o>,
    buffer: Vec<u8>,
    /// The number of bytes written, including buffered ones.
    at: u64,
    label: String,
}

impl<'o> TarWriter<'o> {
    /// Creates a writer. `label` is the name of the destination in messages.
    pub fn new(out: TarOutput<'o>, label: &str) -> TarWriter<'o> {
        TarWriter { out, buffer: Vec::with_capacity(BUFFER_BYTES), at: 0, label: label.to_owned() }
    }

    pub fn is_file(&self) -> bool {
        self.file().is_some()
    }

    /// Returns the file if the output is one; buffered bytes are not in it yet.
    pub fn file(&self) -> Option<&File> {
        match &self.out {
            TarOutput::File(file) => Some(file),
            TarOutput::Pipe(_) | TarOutput::Compressed(_) => None,
        }
    }

    /// Returns the number of bytes written so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Writes the complete entry of a small file.
    pub fn write_entry(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(&header::encode_entry(name, bytes))
    }

    /// Writes the header of an entry; [`Self::write`] and [`Self::write_padding`] follow.
    pub fn write_header(&mut self, name: &str, kind: HeaderKind<'_>, size: u64) -> Result<()> {
        self.write(&header::encode(name, kind, size))
    }

    /// Fills the last block of `size` bytes of data.
    pub fn write_padding(&mut self, size: u64) -> Result<()> {
        self.write(&END_MARK[..header::padding(size)])
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        if self.buffer.len() + bytes.len() <= BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_through(bytes)
    }

    /// Writes the buffered bytes to the output.
    pub fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let done = if buffer.is_empty() { Ok(()) } else { self.write_through(&buffer) };
        self.buffer = buffer;
        self.buffer.clear();
        done
    }

    /// Replaces the header at `at`, once name and size of the entry are known. The length of the header must not change.
    pub fn replace_header(&mut self, at: u64, name: &str, size: u64) -> Result<()> {
        self.flush()?;
        let header = header::encode(name, HeaderKind::File, size);
        match &self.out {
            TarOutput::File(file) if header.len() == BLOCK_BYTES => {
                file.write_all_at(&header, at).map_err(|e| Error::writing(&self.label, e))
            }
            _ => Err(Error::failed("only an entry in a file can be named after its data")),
        }
    }

    /// Returns the name of the destination in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Continues at the offset `at` of a file; bytes behind it stay until they are overwritten.
    pub fn seek(&mut self, at: u64) -> Result<()> {
        self.flush()?;
        let TarOutput::File(file) = &mut self.out else {
            return Err(Error::failed("bytes written to a pipe cannot be changed"));
        };
        std::io::Seek::seek(file, std::io::SeekFrom::Start(at)).map_err(|e| Error::writing(&self.label, e))?;
        self.at = at;
        Ok(())
    }

    /// Removes everything from the offset `at` on.
    pub fn truncate(&mut self, at: u64) -> Result<()> {
        self.seek(at)?;
        let truncated = self.file().map_or(Ok(()), |file| file.set_len(at));
        truncated.map_err(|e| Error::writing(&self.label, e))
    }

    /// Writes the end mark and closes the output. Returns the file if it is one.
    pub fn finish(mut self) -> Result<Option<File>> {
        self.write(&END_MARK)?;
        self.close()
    }

    /// Closes the output without an end mark.
    pub fn close(mut self) -> Result<Option<File>> {
        self.flush()?;
        match self.out {
            TarOutput::File(file) => Ok(Some(file)),
            TarOutput::Compressed(compressed) => compressed.finish().map(Some),
            TarOutput::Pipe(mut pipe) => {
                pipe.flush().map_err(|e| Error::writing(&self.label, e))?;
                Ok(None)
            }
        }
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.out {
            TarOutput::Pipe(pipe) => pipe.write_all(bytes),
            TarOutput::File(file) => file.write_all(bytes),
            TarOutput::Compressed(compressed) => compressed.write_all(bytes),
        };
        done.map_err(|e| Error::writing(&self.label, e))
    }
}
