//! Layers from files and tar-split. docker and containers-storage keep no layer: they extract it, and record in a
//! *tar-split* what the extraction loses. From both, the layer's tar is rebuilt bit for bit.
//!
//! A tar-split is a file of JSON lines, compressed with gzip (vbatts/tar-split, tar/storage/entry.go):
//!
//! | `type` | other fields | bytes of the tar |
//! |---|---|---|
//! | 2, a segment | `payload`: base64 | the payload: headers, padding, everything that is not a file's content |
//! | 1, a file | `name` or `name_raw` (base64), `size`, `payload`: its CRC-64 | the content of the file; none where `size` is missing or 0 |
//!
//! `position` counts the lines from 0. Names are of any bytes, and may be absolute or lead through links of the layer, so
//! the files are opened by [`Rooted`](crate::disk::rooted::Rooted).
//!
//! Use: [`measure`] reads the tar-split once, opens no file, checks every bound and returns the size of the tar, which a
//! descriptor needs and which is recorded nowhere in docker's directory. [`LayerTar`] then reads the tar. It compares
//! the size and the checksum of each file, so that an error names the damaged one. The digest decides at the end, in
//! `transfer/`: a checksum detects accidents only.
//!
//! [`ParkedReaders`] keeps the readers of a store that is read piece by piece, as `imgmv serve` does.
//!
//! Bounds, for hostile tar-splits: [`lines::MAX_LINE_BYTES`] for each line, which is never in memory as a whole,
//! [`lines::MAX_LINES`], [`lines::MAX_TEXT_RATIO`] for gzip, [`Recorded`] for the layer. One file is open at a time.

mod content;
mod lines;
mod long_line;
mod measure;
mod parked;
mod segment;
mod stored;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use content::Content;
use lines::{Entry, Lines};
use std::fs::File;
use std::io;
use std::io::Read;

pub use measure::{Measured, Recorded, measure};
pub use parked::ParkedReaders;
pub use stored::{MeasuredLayers, StoredLayer};

const SKIP_BUFFER_BYTES: usize = 64 << 10;

/// Opens the file of a layer by its name in the tar: any bytes. `None` if it does not exist.
pub type FileOpener<'a> = dyn FnMut(&[u8]) -> Result<Option<File>> + Send + 'a;

/// The tar of one layer, rebuilt while it is read.
///
/// Errors are this library's, inside an [`io::Error`]; see [`Error::carried`]. They begin with the layer's label.
pub struct LayerTar<'a> {
    label: String,
    diff_id: Digest,
    lines: Lines,
    open: Box<FileOpener<'a>>,
    piece: Piece,
    /// The bytes of the tar that are still to come.
    left: u64,
    /// Only for a layer with sparse files.
    hasher: Option<Hasher>,
}

/// The part of the tar that is read at the moment.
enum Piece {
    None,
    /// That of `lines`.
    Segment,
    File(Content),
}

impl Piece {
    fn new(entry: Entry, open: &mut FileOpener<'_>) -> Result<Piece> {
        Ok(match entry {
            Entry::Segment => Piece::Segment,
            Entry::File(file) if file.size == 0 => Piece::None,
            Entry::File(file) => Piece::File(Content::open(file, open)?),
        })
    }

    /// Reads the next bytes; 0 at the end.
    fn read(&mut self, lines: &mut Lines, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Piece::None => Ok(0),
            Piece::Segment => lines.read_segment(buffer),
            Piece::File(content) => content.read(buffer),
        }
    }
}

fn changed() -> Error {
    Error::invalid("its tar-split changed while it was read; run the same command again")
}

impl<'a> LayerTar<'a> {
    /// Starts to read the layer `diff_id` from its tar-split, with the files that `open` opens. `measured` is the answer
    /// of [`measure`] for the same tar-split, `label` the subject of every error (`layer sha256:… in DIR`).
    ///
    /// # Errors
    /// - `Failed`, `Denied`: `split` cannot be read.
    pub fn new(
        split: File,
        measured: &Measured,
        diff_id: Digest,
        label: impl Into<String>,
        open: impl FnMut(&[u8]) -> Result<Option<File>> + Send + 'a,
    ) -> Result<LayerTar<'a>> {
        let label = label.into();
        let lines = Lines::open(split).map_err(|error| error.at(&label))?;
        let hasher = measured.is_sparse.then(|| Hasher::new(diff_id.algorithm()));
        Ok(LayerTar { label, diff_id, lines, open: Box::new(open), piece: Piece::None, left: measured.bytes, hasher })
    }

    /// About the memory that the reader needs, in bytes.
    fn memory_bytes(&self) -> usize {
        self.lines.memory_bytes()
    }

    /// Passes over the first `bytes`, so that the tar is read from there. A tar-split has no index, so its lines are read,
    /// but no file that ends before `bytes` is opened.
    ///
    /// # Errors
    /// - `Invalid`: the tar has fewer bytes.
    /// - Those of reading.
    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // The whole layer cannot be hashed any more.
        self.hasher = None;
        let end = self.left.saturating_sub(bytes);
        if bytes > self.left {
            return Err(Error::invalid(format!("{}: offset {bytes} is behind its end at {}", self.label, self.left)));
        }
        let mut buffer = vec![0; SKIP_BUFFER_BYTES];
        while self.left > end {
            let skipped = self.skip_piece(self.left - end, &mut buffer).map_err(|error| error.at(&self.label))?;
            self.left -= skipped;
        }
        Ok(())
    }

    /// Passes over at most `wanted` bytes, with `buffer` for those that have to be read.
    fn skip_piece(&mut self, wanted: u64, buffer: &mut [u8]) -> Result<u64> {
        if let Piece::None = self.piece {
            match self.lines.next()? {
                None => return Err(changed()),
                Some(Entry::File(file)) if file.size <= wanted => return Ok(file.size),
                Some(entry) => self.piece = Piece::new(entry, &mut self.open)?,
            }
        }
        let wanted = buffer.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let read = self.piece.read(&mut self.lines, &mut buffer[..wanted])?;
        if read == 0 {
            self.piece = Piece::None;
        }
        Ok(read as u64)
    }

    /// Fills `buffer` from the current piece and those behind it, since most are small; less only at the end of the tar.
    fn read_pieces(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_piece(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    /// Reads from the current piece, or from the next one; 0 at the end of the tar.
    fn read_piece(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let read = self.piece.read(&mut self.lines, buffer)?;
            if read > 0 {
                return Ok(read);
            }
            match self.lines.next()? {
                None => return Ok(0),
                Some(entry) => self.piece = Piece::new(entry, &mut self.open)?,
            }
        }
    }

    /// Counts what was read, and hashes the layer where [`Piece`]s do not show that it is damaged.
    fn account(&mut self, bytes: &[u8]) -> Result<()> {
        let read = bytes.len() as u64;
        if read > self.left || bytes.is_empty() && self.left > 0 {
            return Err(changed());
        }
        self.left -= read;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
            if bytes.is_empty() && std::mem::take(hasher).finish() != self.diff_id {
                self.hasher = None;
                return Err(Error::invalid(
                    "the layer has sparse files of the PAX format, of which tar-split loses the map, so that it cannot \
                     be rebuilt (docker save fails too); pull or build the image again",
                ));
            }
        }
        Ok(())
    }
}

impl Read for LayerTar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.read_pieces(buffer).and_then(|read| self.account(&buffer[..read]).map(|()| read));
        read.map_err(|error| error.at(&self.label).into())
    }
}
