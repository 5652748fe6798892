//! A segment of a tar: bytes that the tar-split has as base64, decoded while they are read.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::ops::Range;

/// The text that is decoded at once, in bytes: a multiple of 4.
const CHUNK_BYTES: usize = 64 << 10;

/// A segment.
pub(super) struct Segment {
    text: Vec<u8>,
    /// The part of `text` that is not decoded yet.
    coded: Range<usize>,
    decoded: Vec<u8>,
    /// The number of bytes of `decoded` that were read.
    read: usize,
}

impl Segment {
    /// The segment whose base64 is the part `coded` of `text`.
    pub fn new(text: Vec<u8>, coded: Range<usize>) -> Segment {
        Segment { text, coded, decoded: Vec::new(), read: 0 }
    }

    /// The number of bytes of the segment, from the length of its text. Invalid base64 shows when it is read.
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

    /// Reads the next bytes; 0 at the end.
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
        let taken = self.coded.len().min(CHUNK_BYTES);
        if taken == 0 {
            return Ok(false);
        }
        let end = self.coded.start + taken;
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        let text = self.text.get(self.coded.start..end).unwrap_or_default();
        BASE64
            .decode_vec(text, &mut decoded)
            .map_err(|error| Error::invalid(format!("its tar-split has a segment that is not base64 ({error})")))?;
        (self.decoded, self.read, self.coded.start) = (decoded, 0, end);
        Ok(!self.decoded.is_empty())
    }
}
