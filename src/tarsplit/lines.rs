//! The lines of a tar-split, decompressed, parsed and bounded while they are read.

use super::long_line::LongLine;
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::image::Coding;
use crate::message::shortened;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// The maximum length of a line, in bytes: padding between files may be one segment.
pub const MAX_LINE_BYTES: u64 = 16 << 20;
/// The maximum number of lines: a layer of eight million files.
pub const MAX_LINES: u64 = 1 << 24;
/// The text of a tar-split has at most [`BASE_TEXT_BYTES`] and this number of bytes for each compressed byte. Headers
/// that hardly differ are compressed to a thirtieth, padding to a thousandth.
pub const MAX_TEXT_RATIO: u64 = 200;
const BASE_TEXT_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// A longer line is read piece by piece ([`LongLine`]).
pub(super) const WHOLE_LINE_BYTES: u64 = 256 << 10;
/// log2 of the window of zstd, in bytes: what its usual levels use. A frame may ask for 16 times as much memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;
/// The length of a name, in bytes: longer ones cannot be opened.
const MAX_NAME_BYTES: usize = 64 << 10;

/// The tar-split of one layer.
pub(super) struct Lines {
    text: Box<dyn BufRead + Send>,
    /// The bytes of text that may follow.
    left: u64,
    /// The line, or the part of a long one around its payload.
    line: Vec<u8>,
    /// The number of lines before the next one.
    position: u64,
    segment: Segment,
    /// The line of the segment, as long as text of it follows.
    long: Option<LongLine>,
    /// That of the decompression, in bytes.
    decoder_bytes: usize,
}

/// A line.
pub(super) enum Entry {
    /// A segment, which [`Lines::read_segment`] reads.
    Segment,
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
        let coding = Coding::sniff(raw.fill_buf().map_err(reading)?);
        let text: Box<dyn BufRead + Send> = match coding {
            Coding::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(reading)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(reading)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
            Coding::Raw => Box::new(raw),
        };
        let decoder_bytes = match coding {
            Coding::Zstd => 2 * BUFFER_BYTES + (1 << MAX_ZSTD_WINDOW_LOG),
            Coding::Gzip | Coding::Raw => 3 * BUFFER_BYTES,
        };
        let left = size.saturating_mul(MAX_TEXT_RATIO).saturating_add(BASE_TEXT_BYTES);
        Ok(Lines { text, left, line: Vec::new(), position: 0, segment: Segment::default(), long: None, decoder_bytes })
    }

    /// About the memory that reading needs, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.decoder_bytes + self.line.capacity() + self.segment.memory_bytes()
    }

    /// Reads the next line; `None` at the end. What was not read of a segment before is passed over.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        while self.long.is_some() {
            self.segment.clear();
            self.continue_segment()?;
        }
        self.line.clear();
        let is_whole = self.read_line(WHOLE_LINE_BYTES)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        let position = self.position;
        if position == MAX_LINES {
            return Err(Error::invalid(format!("its tar-split has more than {MAX_LINES} lines")));
        }
        self.position += 1;
        let entry = if is_whole { self.parse(position) } else { self.start_long(position) };
        entry.map(Some).map_err(|why| invalid_line(position, &why))
    }

    /// Reads the next bytes of the segment; 0 at its end.
    pub fn read_segment(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let read = self.segment.read(buffer)?;
            if read > 0 || self.long.is_none() {
                return Ok(read);
            }
            self.continue_segment()?;
        }
    }

    /// Passes over the segment. Returns its bytes, and whether it has `text`, for which only segments of at most
    /// `searched` bytes are searched.
    pub fn pass_segment(&mut self, text: &[u8], searched: u64) -> Result<(u64, bool)> {
        if self.long.is_none() {
            let bytes = self.segment.bytes();
            return Ok((bytes, bytes <= searched && self.segment.contains(text)?));
        }
        let mut bytes = self.segment.pass()?;
        while self.long.is_some() {
            self.continue_segment()?;
            bytes += self.segment.pass()?;
        }
        Ok((bytes, false))
    }

    /// Adds text to `line` up to the end of the line, at most `limit` bytes and one. Returns whether the line ended.
    fn read_line(&mut self, limit: u64) -> Result<bool> {
        let limit = limit.min(self.left);
        let read = self.text.by_ref().take(limit + 1).read_until(b'\n', &mut self.line).map_err(damaged)? as u64;
        self.count(read)?;
        Ok(read <= limit)
    }

    fn count(&mut self, read: u64) -> Result<()> {
        self.left = self.left.checked_sub(read).ok_or_else(|| {
            Error::invalid(format!(
                "its tar-split expands to more than {MAX_TEXT_RATIO} times its size, as in a decompression bomb"
            ))
        })?;
        Ok(())
    }

    /// Parses the line. The error is the reason.
    fn parse(&mut self, position: u64) -> Result<Entry, String> {
        let line: Line<'_> = serde_json::from_slice(&self.line).map_err(|error| error.to_string())?;
        check_position(&line, position)?;
        let payload = line.payload.unwrap_or_default();
        match line.r#type {
            1 => Ok(Entry::File(FileEntry {
                name: name(line.name, line.name_raw)?,
                size: line.size.unwrap_or(0),
                checksum: checksum(&payload)?,
            })),
            2 => {
                match payload {
                    // The text stays where it is: a segment may be large.
                    Cow::Borrowed(payload) => {
                        let start = payload.as_ptr() as usize - self.line.as_ptr() as usize;
                        let end = start + payload.len();
                        self.segment.start(&mut self.line, start..end, false);
                    }
                    Cow::Owned(payload) => {
                        let end = payload.len();
                        self.segment.start(&mut payload.into_bytes(), 0..end, false);
                    }
                }
                Ok(Entry::Segment)
            }
            other => Err(format!("its type is {other}")),
        }
    }

    /// Starts the segment of a long line, of which `line` has the start. The error is the reason.
    fn start_long(&mut self, position: u64) -> Result<Entry, String> {
        let (long, payload) = LongLine::new(&self.line, position)
            .ok_or_else(|| format!("a line of more than {WHOLE_LINE_BYTES} bytes that is not a segment"))?;
        let text = self.line.get(payload.clone()).unwrap_or_default();
        match text.iter().position(|byte| *byte == b'"') {
            None => {
                self.segment.start(&mut self.line, payload, true);
                self.long = Some(long);
            }
            // Only the end of the line is not here yet.
            Some(length) => {
                let payload = payload.start..payload.start + length;
                let mut line = self.line.clone();
                self.line.drain(..=payload.end);
                self.segment.start(&mut line, payload, false);
                self.end_long(&long).map_err(|error| error.to_string())?;
            }
        }
        Ok(Entry::Segment)
    }

    /// Reads the next part of a long line's segment.
    fn continue_segment(&mut self) -> Result<()> {
        let Some(mut long) = self.long.take() else { return Ok(()) };
        let (mut read, mut ended) = (0, false);
        let text = &mut self.text;
        self.segment.append(|payload| {
            (read, ended) = long.read_payload(text, payload).map_err(damaged)?;
            Ok(!ended)
        })?;
        self.count(read)?;
        long.check_length()?;
        match ended {
            true => {
                self.line.clear();
                self.end_long(&long)
            }
            false => {
                self.long = Some(long);
                Ok(())
            }
        }
    }

    /// Reads the end of a long line, of which `line` has the part behind its payload, and parses the line without its
    /// payload.
    fn end_long(&mut self, long: &LongLine) -> Result<()> {
        let is_whole = self.line.ends_with(b"\n") || self.read_line(WHOLE_LINE_BYTES)?;
        let check = || {
            if !is_whole {
                return Err(format!("more than {WHOLE_LINE_BYTES} bytes behind its payload"));
            }
            let text = long.without_payload(&self.line);
            let line: Line<'_> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            check_position(&line, long.position)?;
            match line.r#type {
                2 => Ok(()),
                other => Err(format!("its type is {other}")),
            }
        };
        check().map_err(|why: String| invalid_line(long.position, &why))
    }
}

fn invalid_line(position: u64, why: &str) -> Error {
    Error::invalid(format!("its tar-split has an invalid line {position}: {}", shortened(why)))
}

fn damaged(error: std::io::Error) -> Error {
    Error::invalid(format!("its tar-split is damaged ({error})"))
}

fn check_position(line: &Line<'_>, expected: u64) -> Result<(), String> {
    if line.position == expected { Ok(()) } else { Err(format!("its position is {}", line.position)) }
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
