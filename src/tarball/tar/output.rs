//! Where an archive is written to: a pipe, or a file whose headers can still be changed.

use super::compress::Compressed;
use super::header;
use super::header::{BLOCK, Kind};
use crate::error::{Error, Result};
use std::{fs::File, io::Write, os::unix::fs::FileExt};

/// Small writes are gathered up to this many bytes; larger ones pass by without being copied.
const GATHERED: usize = 64 << 10;
/// Two blocks of zeros end a tar.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What an archive is written to.
pub enum Out<'o> {
    Pipe(Box<dyn Write + Send + 'o>),
    /// From its beginning on.
    File(File),
    /// A file that nothing can be gone back to in.
    Compressed(Compressed),
}

/// A tar being written.
pub(crate) struct Tar<'o> {
    out: Out<'o>,
    gathered: Vec<u8>,
    /// Bytes written, gathered ones included.
    at: u64,
    label: String,
}

impl<'o> Tar<'o> {
    /// `label` is what messages call the destination.
    pub fn new(out: Out<'o>, label: &str) -> Tar<'o> {
        Tar { out, gathered: Vec::with_capacity(GATHERED), at: 0, label: label.to_owned() }
    }

    pub fn is_file(&self) -> bool {
        self.file().is_some()
    }

    /// The file, where it is one; what was gathered is not in it yet.
    pub fn file(&self) -> Option<&File> {
        match &self.out {
            Out::File(file) => Some(file),
            Out::Pipe(_) | Out::Compressed(_) => None,
        }
    }

    /// Bytes written so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// A whole small entry.
    pub fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(&header::entry(name, bytes))
    }

    /// An entry's header; its data and `end` come next.
    pub fn begin(&mut self, name: &str, kind: Kind<'_>, size: u64) -> Result<()> {
        self.write(&header::write(name, kind, size))
    }

    /// Fills up the last block of `size` bytes of data.
    pub fn end(&mut self, size: u64) -> Result<()> {
        self.write(&END[..header::padding(size)])
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        if self.gathered.len() + bytes.len() <= GATHERED {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() < GATHERED {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        self.put(bytes)
    }

    /// Hands on what was gathered.
    pub fn flush(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let done = if gathered.is_empty() { Ok(()) } else { self.put(&gathered) };
        self.gathered = gathered;
        self.gathered.clear();
        done
    }

    /// Writes the header of an entry that began at `at` anew, now that its name and size are known. Its length stays.
    pub fn settle(&mut self, at: u64, name: &str, size: u64) -> Result<()> {
        self.flush()?;
        let header = header::write(name, Kind::File, size);
        match &self.out {
            Out::File(file) if header.len() == BLOCK => {
                file.write_all_at(&header, at).map_err(|e| Error::writing(&self.label, e))
            }
            _ => Err(Error::failed("only an entry of a file can be named after its data")),
        }
    }

    /// What messages call the destination.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Goes on at `at` of a file that was begun before; what is behind that stays until it is written over.
    pub fn go_on(&mut self, at: u64) -> Result<()> {
        self.flush()?;
        let Out::File(file) = &mut self.out else {
            return Err(Error::failed("what went into a pipe cannot be gone back to"));
        };
        std::io::Seek::seek(file, std::io::SeekFrom::Start(at)).map_err(|e| Error::writing(&self.label, e))?;
        self.at = at;
        Ok(())
    }

    /// Takes back everything from `at` on.
    pub fn cut(&mut self, at: u64) -> Result<()> {
        self.go_on(at)?;
        let cut = self.file().map_or(Ok(()), |file| file.set_len(at));
        cut.map_err(|e| Error::writing(&self.label, e))
    }

    /// The end mark; then the file, where it is one. A pipe is closed.
    pub fn finish(mut self) -> Result<Option<File>> {
        self.write(&END)?;
        self.close()
    }

    /// Without an end mark.
    pub fn close(mut self) -> Result<Option<File>> {
        self.flush()?;
        match self.out {
            Out::File(file) => Ok(Some(file)),
            Out::Compressed(compressed) => compressed.finish().map(Some),
            Out::Pipe(mut pipe) => {
                pipe.flush().map_err(|e| Error::writing(&self.label, e))?;
                Ok(None)
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.out {
            Out::Pipe(pipe) => pipe.write_all(bytes),
            Out::File(file) => file.write_all(bytes),
            Out::Compressed(compressed) => compressed.write_all(bytes),
        };
        done.map_err(|e| Error::writing(&self.label, e))
    }
}
