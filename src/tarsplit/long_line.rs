//! A line that is longer than others: padding between files can be one segment of megabytes. Its base64 is read piece by
//! piece, so that several layers that are read at the same time do not need megabytes each.

use super::lines::MAX_LINE_BYTES;
use super::segment::CHUNK_BYTES;
use crate::error::{Error, Result};
use std::io::{self, BufRead, Read};
use std::ops::Range;

/// The text before a payload. In the text of a JSON string, its quotation marks would have backslashes.
const BEFORE_PAYLOAD: &[u8] = b"\"payload\":\"";

/// A line whose payload is read piece by piece.
pub(super) struct LongLine {
    /// The number of lines before it.
    pub position: u64,
    /// The text before the payload.
    head: Vec<u8>,
    /// The length of the line so far.
    bytes: u64,
}

impl LongLine {
    /// The line that starts with `start`, and the part of `start` that belongs to its payload; `None` without a payload.
    pub fn new(start: &[u8], position: u64) -> Option<(LongLine, Range<usize>)> {
        let at = start.windows(BEFORE_PAYLOAD.len()).position(|window| window == BEFORE_PAYLOAD)?;
        let payload = at + BEFORE_PAYLOAD.len();
        let head = start.get(..payload)?.to_vec();
        Some((LongLine { position, head, bytes: start.len() as u64 }, payload..start.len()))
    }

    /// Adds the next part of the payload to `payload`. Returns the bytes that were read, and whether the payload ended.
    ///
    /// # Errors
    /// Those of `text`, and `UnexpectedEof`.
    pub fn read_payload(&mut self, text: &mut dyn BufRead, payload: &mut Vec<u8>) -> io::Result<(u64, bool)> {
        let read = text.take(CHUNK_BYTES as u64).read_until(b'"', payload)? as u64;
        self.bytes += read;
        let ended = payload.last() == Some(&b'"');
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {
                payload.pop_if(|last| *last == b'"');
                Ok((read, ended))
            }
        }
    }

    /// # Errors
    /// - `Invalid`: the line is too long.
    pub fn check_length(&self) -> Result<()> {
        match self.bytes <= MAX_LINE_BYTES {
            true => Ok(()),
            false => Err(Error::invalid(format!("its tar-split has a line of more than {MAX_LINE_BYTES} bytes"))),
        }
    }

    /// The line with an empty payload; `rest` is the text behind the payload's end.
    pub fn without_payload(&self, rest: &[u8]) -> Vec<u8> {
        [&self.head, &b"\""[..], rest].concat()
    }
}
