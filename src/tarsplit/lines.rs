//! The lines of a tar-split, decompressed, parsed and bounded while they are read.

use super::segment::Segment;
use crate::error::{Error, Result};
use crate::image::Coding;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// The maximum length of a line, in bytes: padding between files may be one segment.
pub const MAX_LINE_BYTES: u64 = 16 << 20;
/// The text of a tar-split has at most [`BASE_TEXT_BYTES`] and this number of bytes for each compressed byte. Headers
/// that hardly differ are compressed to a thirtieth, padding to a thousandth.
pub const MAX_TEXT_RATIO: u64 = 200;
const BASE_TEXT_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// A longer line buffer is released after its line.
const USUAL_LINE_BYTES: usize = 256 << 10;
/// The length of a name, in bytes: longer ones cannot be opened.
const MAX_NAME_BYTES: usize = 1 << 20;

/// The tar-split of one layer.
pub(super) struct Lines {
    text: Box<dyn BufRead + Send>,
    /// The bytes of text that may follow.
    left: u64,
    line: Vec<u8>,
    position: u64,
}

/// A line.
pub(super) enum Entry {
    Segment(Segment),
    File(FileEntry),
}

/// A file of the layer.
pub(super) struct FileEntry {
    /// The name in the tar: any bytes.
    pub name: Vec<u8>,
    /// In bytes.
    pub size: u64,
    /// CRC-64 of the content, as the tar-split has it; `None` for a file without content.
    pub checksum: Option<[u8; 8]>,
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: u64,
    #[serde(default, borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    name_raw: Option<Cow<'a, str>>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, borrow)]
    payload: Option<Cow<'a, str>>,
    position: u64,
}

impl Lines {
    /// Opens a tar-split: compressed with gzip, as docker and podman write it, or with zstd, or not compressed.
    pub fn open(file: File) -> Result<Lines> {
        let reading = |error| Error::reading("its tar-split", error);
        let size = file.metadata().map_err(reading)?.len();
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, file);
        let text: Box<dyn BufRead + Send> = match Coding::sniff(raw.fill_buf().map_err(reading)?) {
            Coding::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))),
            Coding::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(reading)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
            Coding::Raw => Box::new(raw),
        };
        let left = size.saturating_mul(MAX_TEXT_RATIO).saturating_add(BASE_TEXT_BYTES);
        Ok(Lines { text, left, line: Vec::new(), position: 0 })
    }

    /// Reads the next line; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.line.clear();
        self.line.shrink_to(USUAL_LINE_BYTES);
        let limit = MAX_LINE_BYTES.min(self.left);
        let read = self.text.by_ref().take(limit + 1).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| Error::invalid(format!("its tar-split is damaged ({error})")))? as u64;
        if read > limit {
            return Err(Error::invalid(match limit == MAX_LINE_BYTES {
                true => format!("its tar-split has a line of more than {MAX_LINE_BYTES} bytes"),
                false => format!(
                    "its tar-split expands to more than {MAX_TEXT_RATIO} times its size, as in a decompression bomb"
                ),
            }));
        }
        self.left -= read;
        if read == 0 {
            return Ok(None);
        }
        let entry = self
            .parse()
            .map_err(|why| Error::invalid(format!("its tar-split has an invalid line {}: {why}", self.position)))?;
        self.position += 1;
        Ok(Some(entry))
    }

    /// Parses the line. The error is the reason.
    fn parse(&mut self) -> Result<Entry, String> {
        let line: Line<'_> = serde_json::from_slice(&self.line).map_err(|error| error.to_string())?;
        if line.position != self.position {
            return Err(format!("its position is {}", line.position));
        }
        let payload = line.payload.unwrap_or_default();
        match line.r#type {
            1 => Ok(Entry::File(FileEntry {
                name: name(line.name, line.name_raw)?,
                size: line.size.unwrap_or(0),
                checksum: checksum(&payload)?,
            })),
            2 => Ok(Entry::Segment(match payload {
                // The text stays where it is: a segment may be large.
                Cow::Borrowed(payload) => {
                    let start = payload.as_ptr() as usize - self.line.as_ptr() as usize;
                    let end = start + payload.len();
                    Segment::new(std::mem::take(&mut self.line), start..end)
                }
                Cow::Owned(payload) => {
                    let text = payload.into_bytes();
                    let end = text.len();
                    Segment::new(text, 0..end)
                }
            })),
            other => Err(format!("its type is {other}")),
        }
    }
}

/// The name of a file. `name_raw` is for names that are not UTF-8.
fn name(name: Option<Cow<'_, str>>, raw: Option<Cow<'_, str>>) -> Result<Vec<u8>, String> {
    let name = match (name, raw) {
        (_, Some(raw)) if !raw.is_empty() => {
            BASE64.decode(raw.as_bytes()).map_err(|error| format!("name_raw: {error}"))?
        }
        (Some(name), _) => name.into_owned().into_bytes(),
        _ => return Err("a file without a name".to_owned()),
    };
    match name.len() {
        bytes if bytes <= MAX_NAME_BYTES => Ok(name),
        bytes => Err(format!("a name of {bytes} bytes; at most {MAX_NAME_BYTES} are allowed")),
    }
}

fn checksum(payload: &str) -> Result<Option<[u8; 8]>, String> {
    if payload.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64.decode(payload).map_err(|error| format!("payload: {error}"))?;
    <[u8; 8]>::try_from(bytes).map(Some).map_err(|bytes| format!("a checksum of {} bytes, expected 8", bytes.len()))
}
