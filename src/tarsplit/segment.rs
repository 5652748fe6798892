//! A segment of a tar: bytes that the tar-split has as base64, decoded while they are read.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::ops::Range;

/// The text that is decoded at once, in bytes: a multiple of 4.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// The segment that is read at the moment. Its buffers are used again for the next one.
#[derive(Default)]
pub(super) struct Segment {
    text: Vec<u8>,
    /// The part of `text` that is not decoded yet.
    coded: Range<usize>,
    /// More of the segment's text follows.
    continues: bool,
    decoded: Vec<u8>,
    /// The number of bytes of `decoded` that were read.
    read: usize,
}

impl Segment {
    /// The memory of its buffers, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.decoded.capacity()
    }

    /// Starts the segment whose base64 is the part `coded` of `text`, or begins with it. `text` gets an old buffer.
    pub fn start(&mut self, text: &mut Vec<u8>, coded: Range<usize>, continues: bool) {
        std::mem::swap(&mut self.text, text);
        (self.coded, self.continues) = (coded, continues);
        self.decoded.clear();
        self.read = 0;
    }

    /// Ends the segment, with all that was not read of it.
    pub fn clear(&mut self) {
        self.start(&mut Vec::new(), 0..0, false);
    }

    /// Adds text with `more`, which says whether another part follows. What was not decoded before stays in front of it.
    pub fn append(&mut self, more: impl FnOnce(&mut Vec<u8>) -> Result<bool>) -> Result<()> {
        self.text.truncate(self.coded.end);
        self.text.drain(..self.coded.start.min(self.coded.end));
        self.continues = more(&mut self.text)?;
        self.coded = 0..self.text.len();
        Ok(())
    }

    /// The number of bytes of a segment without another part, from the length of its text. Invalid base64 shows when it
    /// is read.
    pub fn bytes(&self) -> u64 {
        let text = self.coded();
        let padding = text.iter().rev().take(2).filter(|byte| **byte == b'=').count();
        (text.len() as u64 / 4 * 3).saturating_sub(padding as u64)
    }

    /// Whether the segment has `text`, in one of its chunks.
    pub fn contains(&mut self, text: &[u8]) -> Result<bool> {
        while self.decode()? {
            if self.decoded.windows(text.len()).any(|window| window == text) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Decodes the text that is here, and returns the number of its bytes.
    pub fn pass(&mut self) -> Result<u64> {
        let mut bytes = 0;
        while self.decode()? {
            bytes += self.decoded.len() as u64;
        }
        Ok(bytes)
    }

    /// Reads the next bytes; 0 at the end of the text that is here.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.read == self.decoded.len() && !self.decode()? {
            return Ok(0);
        }
        let rest = self.decoded.get(self.read..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.read += read;
        Ok(read)
    }

    fn coded(&self) -> &[u8] {
        self.text.get(self.coded.clone()).unwrap_or_default()
    }

    /// Decodes the next chunk into `decoded`. Returns false at the end.
    fn decode(&mut self) -> Result<bool> {
        self.decoded.clear();
        self.read = 0;
        // Four characters stand for three bytes.
        let whole = if self.continues { self.coded.len() / 4 * 4 } else { self.coded.len() };
        let end = self.coded.start + whole.min(CHUNK_BYTES);
        let text = self.text.get(self.coded.start..end).unwrap_or_default();
        BASE64
            .decode_vec(text, &mut self.decoded)
            .map_err(|error| Error::invalid(format!("its tar-split has a segment that is not base64 ({error})")))?;
        self.coded.start = end;
        Ok(!self.decoded.is_empty())
    }
}
