//! A tar's entries, one after the other: extension records (PAX, GNU) applied, names cleaned and seen once, counts
//! and lengths bounded. Whatever has no business in an archive of images is refused here.

use super::header::{BLOCK, Flag, Header, padding};
use super::path::{LONGEST, clean, shown};
use crate::error::{Error, Result};
use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
};

/// More entries than this are refused.
const MAX_ENTRIES: usize = 200_000;
/// Bytes of all names and link targets together, at most.
const MAX_NAMES: usize = 16 << 20;
/// Bytes of one extension record, at most (as Go's `archive/tar`).
const MAX_RECORD: u64 = 1 << 20;
/// The last byte of an archive lies before this.
const MAX_LENGTH: u64 = 1 << 60;

/// The bytes of a tar, read forward.
pub(crate) trait TarBytes {
    /// Some bytes; 0 only at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
    /// Passes over `bytes`; an archive that ends before is `Invalid`.
    fn skip(&mut self, bytes: u64) -> Result<()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Directory,
    /// Its target as written.
    SymbolicLink(String),
    /// Its target, cleaned: a name of an entry.
    HardLink(String),
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Cleaned.
    pub name: String,
    pub what: What,
    /// Of its data, in bytes.
    pub size: u64,
    /// Where its headers begin, in bytes from the archive's beginning.
    pub from: u64,
    /// Where its data begins, in bytes from the archive's beginning.
    pub at: u64,
}

/// What precedes an entry and changes it.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

pub(crate) struct Walk<T> {
    tape: T,
    at: u64,
    /// Data of the current entry that was not read yet.
    left: u64,
    pad: usize,
    seen: HashSet<u64>,
    keys: RandomState,
    entries: usize,
    names: usize,
}

impl<T: TarBytes> Walk<T> {
    pub fn new(tape: T) -> Walk<T> {
        Walk { tape, at: 0, left: 0, pad: 0, seen: HashSet::new(), keys: RandomState::new(), entries: 0, names: 0 }
    }

    /// The next entry; `None` at the archive's end mark. Data of the one before that was not read is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.pass(self.left)?;
        let mut extensions = Extensions::default();
        let from = self.at;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::invalid(format!("the archive has more than the {MAX_ENTRIES} entries allowed")));
            }
            match header.flag {
                Flag::LongName => once(&mut extensions.name, until_nul(self.record(header.size)?))?,
                Flag::LongLink => once(&mut extensions.link, until_nul(self.record(header.size)?))?,
                Flag::Records => extensions.read(&self.record(header.size)?)?,
                Flag::GlobalRecords => {
                    let mut all = Extensions::default();
                    all.read(&self.record(header.size)?)?;
                    if all.name.is_some() || all.link.is_some() || all.size.is_some() {
                        return Err(Error::invalid("a global record gives every entry one name or size"));
                    }
                }
                _ => return self.entry(from, header, extensions).map(Some),
            }
        }
    }

    /// Data of the current entry; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.tape.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(cut());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }

    /// The bytes behind the end mark, once it was reached.
    pub fn tape(&mut self) -> &mut T {
        &mut self.tape
    }

    fn entry(&mut self, from: u64, header: Header, extensions: Extensions) -> Result<Entry> {
        let written = extensions.name.as_deref().unwrap_or(&header.name);
        let name = clean(written)?;
        let link = extensions.link.unwrap_or(header.link);
        if link.len() > LONGEST {
            return Err(Error::invalid(format!(
                "the link {} has a target of {} bytes, more than the {LONGEST} allowed",
                shown(&name),
                link.len()
            )));
        }
        let what = match header.flag {
            // As old tars write directories.
            Flag::File if written.ends_with(b"/") => What::Directory,
            Flag::File => What::File,
            Flag::Directory => What::Directory,
            Flag::SymbolicLink => What::SymbolicLink(String::from_utf8_lossy(&link).into_owned()),
            Flag::HardLink => What::HardLink(clean(&link)?),
            Flag::Other(flag) => return Err(refused(&name, flag)),
            _ => return Err(Error::invalid("a tar header is out of place")),
        };
        let size = match what {
            What::File => extensions.size.unwrap_or(header.size),
            // By every reader's rule links and directories have no data, whatever their header says.
            _ => 0,
        };
        // Some readers take a file whose name ends like a directory's for a file.
        if what == What::Directory && extensions.size.unwrap_or(header.size) != 0 {
            return Err(Error::invalid(format!("the directory {} has data", shown(&name))));
        }
        if self.at.checked_add(size).is_none_or(|end| end > MAX_LENGTH) {
            return Err(Error::invalid(format!("the entry {} has an impossible size, {size}", shown(&name))));
        }
        self.names += name.len() + link.len();
        if self.names > MAX_NAMES {
            return Err(Error::invalid(format!(
                "the archive's names and links have more than the {MAX_NAMES} bytes allowed"
            )));
        }
        if what != What::Directory {
            if name.is_empty() {
                return Err(Error::invalid("an entry without a name is refused"));
            }
            if !self.seen.insert(self.keys.hash_one(&name)) {
                return Err(Error::invalid(format!(
                    "the name {} stands twice in the archive, and tools differ in which they take",
                    shown(&name)
                )));
            }
        }
        self.left = size;
        self.pad = padding(size);
        Ok(Entry { name, what, size, from, at: self.at })
    }

    /// The next header; `None` at the end mark, of which one block is enough.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Header::parse(&block)
    }

    fn record(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_RECORD {
            return Err(Error::invalid(format!("an extension record has {size} bytes, more than {MAX_RECORD}")));
        }
        let mut record = vec![0; size as usize];
        self.fill(&mut record)?;
        let mut rest = [0; BLOCK];
        self.fill(&mut rest[..padding(size)])?;
        Ok(record)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.tape.read(&mut buffer[filled..])? {
                0 => return Err(cut()),
                n => filled += n,
            }
        }
        self.at += filled as u64;
        Ok(())
    }

    /// Passes over what is left of an entry, with its padding.
    fn pass(&mut self, left: u64) -> Result<()> {
        let bytes = left + self.pad as u64;
        if bytes > 0 {
            self.tape.skip(bytes)?;
        }
        self.at += bytes;
        (self.left, self.pad) = (0, 0);
        Ok(())
    }
}

impl Extensions {
    /// PAX records: `LENGTH KEY=VALUE\n`, of which only those that change what is read matter.
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
                b"path" if !value.is_empty() => once(&mut self.name, value.to_vec())?,
                b"linkpath" if !value.is_empty() => once(&mut self.link, value.to_vec())?,
                b"size" if !value.is_empty() => {
                    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
                    once(&mut self.size, text.parse().map_err(|_| wrong())?)?;
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(Error::invalid("a sparse entry is refused; make the archive without --sparse"));
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// Readers differ in which of two names counts.
fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("an entry is given its name or size twice over")),
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
    Error::invalid(format!("the entry {} is refused: it is {what}, which no archive of images has", shown(name)))
}

/// Ends too early.
pub(crate) fn cut() -> Error {
    Error::invalid("the archive ends too early; it was cut short")
}
