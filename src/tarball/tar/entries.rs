//! Reads the entries of a tar in order: applies extension records (PAX, GNU), cleans names, and limits counts and
//! lengths. Duplicate names and entries that no image archive has are refused.

use super::header::{BLOCK_BYTES, Flag, Header, padding};
use super::path::{MAX_NAME_BYTES, clean, shown};
use crate::error::{Error, Result};
use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
};

const MAX_ENTRIES: usize = 200_000;
/// The limit of all names and link targets together.
const MAX_ALL_NAMES_BYTES: usize = 16 << 20;
/// The limit of one extension record, as in Go's `archive/tar`.
const MAX_RECORD_BYTES: u64 = 1 << 20;
/// The limit of the complete archive.
const MAX_ARCHIVE_BYTES: u64 = 1 << 60;

/// The bytes of a tar, read forward.
pub(crate) trait TarBytes {
    /// Reads some bytes; 0 only at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
    /// Skips `bytes`. Fails with `Invalid` if the archive ends before.
    fn skip(&mut self, bytes: u64) -> Result<()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    /// The target as written.
    SymbolicLink(String),
    /// The target: the cleaned name of an entry.
    HardLink(String),
}

/// One entry of a tar. Offsets count from the start of the archive.
#[derive(Debug, Clone)]
pub(crate) struct TarEntry {
    /// The cleaned name.
    pub name: String,
    pub kind: EntryKind,
    /// The size of the data in bytes.
    pub size: u64,
    /// The offset of the first header, including extensions.
    pub header_at: u64,
    /// The offset of the data.
    pub data_at: u64,
}

/// Values of the extension records before an entry, which replace those of its header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Reads the entries of a tar.
pub(crate) struct TarReader<T> {
    input: T,
    at: u64,
    /// The unread data of the current entry, in bytes.
    left: u64,
    padding: usize,
    /// Hashes of the names so far.
    seen: HashSet<u64>,
    hash_keys: RandomState,
    entries: usize,
    /// The length of all names and link targets so far.
    name_bytes: usize,
}

impl<T: TarBytes> TarReader<T> {
    pub fn new(input: T) -> TarReader<T> {
        let (seen, hash_keys) = (HashSet::new(), RandomState::new());
        TarReader { input, at: 0, left: 0, padding: 0, seen, hash_keys, entries: 0, name_bytes: 0 }
    }

    /// Returns the next entry; `None` at the end mark. Unread data of the previous entry is skipped.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        let from = self.at;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::invalid(format!(
                    "the archive has too many entries; at most {MAX_ENTRIES} are allowed"
                )));
            }
            match header.flag {
                Flag::LongName => set_once(&mut extensions.name, until_nul(self.record(header.size)?))?,
                Flag::LongLink => set_once(&mut extensions.link, until_nul(self.record(header.size)?))?,
                Flag::Records => extensions.read(&self.record(header.size)?)?,
                Flag::GlobalRecords => {
                    let mut all = Extensions::default();
                    all.read(&self.record(header.size)?)?;
                    if all.name.is_some() || all.link.is_some() || all.size.is_some() {
                        return Err(Error::invalid("a global PAX record sets one name or size for every entry"));
                    }
                }
                _ => return self.entry(from, header, extensions).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.input.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(truncated());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }

    /// Returns the input; behind the end mark, it contains the bytes after the archive.
    pub fn input(&mut self) -> &mut T {
        &mut self.input
    }

    fn entry(&mut self, header_at: u64, header: Header, extensions: Extensions) -> Result<TarEntry> {
        let written = extensions.name.as_deref().unwrap_or(&header.name);
        let name = clean(written)?;
        let link = extensions.link.unwrap_or(header.link);
        if link.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!(
                "the link {} is refused: its target has {} bytes, at most {MAX_NAME_BYTES} are allowed",
                shown(&name),
                link.len()
            )));
        }
        let kind = match header.flag {
            // Old tars write directories in this way.
            Flag::File if written.ends_with(b"/") => EntryKind::Directory,
            Flag::File => EntryKind::File,
            Flag::Directory => EntryKind::Directory,
            Flag::SymbolicLink => EntryKind::SymbolicLink(String::from_utf8_lossy(&link).into_owned()),
            Flag::HardLink => EntryKind::HardLink(clean(&link)?),
            Flag::Other(flag) => return Err(refused(&name, flag)),
            _ => return Err(Error::invalid("a tar header is at a wrong position")),
        };
        let size = match kind {
            EntryKind::File => extensions.size.unwrap_or(header.size),
            // For every reader, links and directories have no data, whatever size their header has.
            _ => 0,
        };
        // Some readers treat an entry with data as a file even if its name ends with a slash.
        if kind == EntryKind::Directory && extensions.size.unwrap_or(header.size) != 0 {
            return Err(Error::invalid(format!("the directory {} is refused: it has data", shown(&name))));
        }
        if self.at.checked_add(size).is_none_or(|end| end > MAX_ARCHIVE_BYTES) {
            return Err(Error::invalid(format!(
                "the entry {} is refused: its size {size} is impossible",
                shown(&name)
            )));
        }
        self.name_bytes += name.len() + link.len();
        if self.name_bytes > MAX_ALL_NAMES_BYTES {
            return Err(Error::invalid(format!(
                "the names and links in the archive are too long; at most {MAX_ALL_NAMES_BYTES} bytes are allowed"
            )));
        }
        if kind != EntryKind::Directory {
            if name.is_empty() {
                return Err(Error::invalid("an entry without a name is refused"));
            }
            if !self.seen.insert(self.hash_keys.hash_one(&name)) {
                return Err(Error::invalid(format!(
                    "the archive has two entries named {}, so tools would read it differently",
                    shown(&name)
                )));
            }
        }
        self.left = size;
        self.padding = padding(size);
        Ok(TarEntry { name, kind, size, header_at, data_at: self.at })
    }

    /// Reads the next header; `None` at the end mark, for which one block of zeros is enough.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block)?;
        Header::parse(&block)
    }

    fn record(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_RECORD_BYTES {
            return Err(Error::invalid(format!(
                "an extension record has {size} bytes; at most {MAX_RECORD_BYTES} are allowed"
            )));
        }
        let mut record = vec![0; size as usize];
        self.fill(&mut record)?;
        let mut rest = [0; BLOCK_BYTES];
        self.fill(&mut rest[..padding(size)])?;
        Ok(record)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..])? {
                0 => return Err(truncated()),
                n => filled += n,
            }
        }
        self.at += filled as u64;
        Ok(())
    }

    /// Skips the unread data of the current entry and its padding.
    fn skip_rest(&mut self) -> Result<()> {
        let bytes = self.left + self.padding as u64;
        if bytes > 0 {
            self.input.skip(bytes)?;
        }
        self.at += bytes;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl Extensions {
    /// Parses PAX records (`LENGTH KEY=VALUE\n`) and uses those that change name, link or size.
    fn read(&mut self, mut records: &[u8]) -> Result<()> {
        let wrong = || Error::invalid("a PAX record is damaged");
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let digits = std::str::from_utf8(&records[..space]).map_err(|_| wrong())?;
            let length: usize = digits.parse().map_err(|_| wrong())?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" if !value.is_empty() => set_once(&mut self.name, value.to_vec())?,
                b"linkpath" if !value.is_empty() => set_once(&mut self.link, value.to_vec())?,
                b"size" if !value.is_empty() => {
                    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
                    set_once(&mut self.size, text.parse().map_err(|_| wrong())?)?;
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(Error::invalid("a sparse entry is refused; create the archive without --sparse"));
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// Sets a value that must occur only once, since readers differ in which of two values they use.
fn set_once<T>(field: &mut Option<T>, value: T) -> Result<()> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("an entry has two records for its name or size")),
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

fn refused(name: &str, flag: u8) -> Error {
    let what = match flag {
        b'3' | b'4' => "a device node",
        b'6' => "a named pipe",
        b'S' => "a sparse file",
        b'M' | b'V' => "part of a multi-volume archive",
        _ => return Error::invalid(format!("the entry {} is refused: its kind {flag:#04x} is unknown", shown(name))),
    };
    Error::invalid(format!("the entry {} is refused: it is {what}, which image archives never contain", shown(name)))
}

pub(crate) fn truncated() -> Error {
    Error::invalid("the archive is truncated; create or fetch it again")
}
