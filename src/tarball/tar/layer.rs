//! Reads the entries of a layer's tar while its bytes arrive. A layer has entries that no image archive has: devices,
//! pipes, sparse files, names that are not UTF-8, names twice.

use super::header::{BLOCK_BYTES, is_header, number, padding};
use super::layer_entry::{Extensions, LayerEntry, LayerEntryKind, entry, kind_of, until_nul};
use crate::error::{Error, Result};

/// The limit of one extension record, as in Go's `archive/tar`.
const MAX_RECORD_BYTES: u64 = 1 << 20;
const MAX_ENTRIES: u64 = 5_000_000;
const MAX_FILE_BYTES: u64 = 1 << 60;

/// Receives the entries of a layer.
pub(crate) trait LayerVisitor {
    /// Receives an entry; returns whether its content is wanted. `content` and `end` follow only then.
    fn entry(&mut self, entry: LayerEntry) -> Result<bool>;
    /// Receives the next bytes of a file.
    fn content(&mut self, bytes: &[u8]);
    /// The content of the file is complete.
    fn end(&mut self) -> Result<()>;
}

/// The position in the tar.
enum State {
    /// In a header, of which some bytes are in `block`.
    Header,
    /// In the data of an extension record.
    Record {
        flag: u8,
        bytes: Vec<u8>,
        left: u64,
        padding: u64,
    },
    /// In the extended map of GNU's sparse file, before its content.
    SparseMap {
        content: u64,
        wanted: bool,
    },
    Content {
        left: u64,
        padding: u64,
        wanted: bool,
    },
    /// Behind the end mark.
    End,
}

/// Reads a layer's tar from pieces of any size.
pub(crate) struct LayerTar {
    state: State,
    block: Vec<u8>,
    extensions: Extensions,
    entries: u64,
}

impl LayerTar {
    pub fn new() -> LayerTar {
        let (block, extensions) = (Vec::with_capacity(BLOCK_BYTES), Extensions::default());
        LayerTar { state: State::Header, block, extensions, entries: 0 }
    }

    /// Reads the next `bytes` of the tar.
    ///
    /// Fails with `Invalid` for bytes that are not a tar, and with the errors of `visitor`.
    pub fn feed(&mut self, mut bytes: &[u8], visitor: &mut dyn LayerVisitor) -> Result<()> {
        while !bytes.is_empty() {
            let used = match &mut self.state {
                State::End => return Ok(()),
                State::Header | State::SparseMap { .. } => self.feed_block(bytes, visitor)?,
                State::Record { .. } => self.feed_record(bytes)?,
                State::Content { left, padding, wanted } => {
                    let data = taken(bytes, *left);
                    if *wanted && data > 0 {
                        visitor.content(&bytes[..data]);
                    }
                    *left -= data as u64;
                    let pad = taken(&bytes[data..], *padding);
                    *padding -= pad as u64;
                    if *left + *padding == 0 {
                        if *wanted {
                            visitor.end()?;
                        }
                        self.state = State::Header;
                    }
                    data + pad
                }
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Fails with `Invalid` if the tar ends within an entry.
    pub fn finish(self) -> Result<()> {
        match self.state {
            State::End => Ok(()),
            // Some tools write no end mark.
            State::Header if self.block.is_empty() => Ok(()),
            _ => Err(Error::invalid("the tar of a layer is truncated")),
        }
    }

    fn feed_block(&mut self, bytes: &[u8], visitor: &mut dyn LayerVisitor) -> Result<usize> {
        let used = (BLOCK_BYTES - self.block.len()).min(bytes.len());
        self.block.extend_from_slice(&bytes[..used]);
        if self.block.len() < BLOCK_BYTES {
            return Ok(used);
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        match self.state {
            State::SparseMap { content, wanted } if block[504] == 0 => self.begin_content(content, wanted, visitor)?,
            State::SparseMap { .. } => {}
            _ => self.header(&block, visitor)?,
        }
        Ok(used)
    }

    fn header(&mut self, block: &[u8], visitor: &mut dyn LayerVisitor) -> Result<()> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::End;
            return Ok(());
        }
        if !is_header(block) {
            return Err(Error::invalid("the tar of a layer is damaged: a header has a wrong checksum"));
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(Error::invalid(format!("a layer has more than {MAX_ENTRIES} entries")));
        }
        let size = number(&block[124..136]).ok_or_else(|| Error::invalid("a size in a layer's tar is not a number"))?;
        let flag = block[156];
        if matches!(flag, b'L' | b'K' | b'x' | b'g') {
            if size > MAX_RECORD_BYTES {
                return Err(Error::invalid(format!(
                    "an extension record in a layer has {size} bytes; at most {MAX_RECORD_BYTES} are allowed"
                )));
            }
            self.state = State::Record { flag, bytes: Vec::new(), left: size, padding: padding(size) as u64 };
            return self.end_empty_record();
        }
        let extensions = std::mem::take(&mut self.extensions);
        let stored = extensions.size.unwrap_or(size);
        if stored > MAX_FILE_BYTES {
            return Err(Error::invalid(format!("an entry in a layer has the impossible size {stored}")));
        }
        let Some(kind) = kind_of(flag) else {
            // An unknown type is skipped with its data, as other readers do.
            return self.begin_content(stored, false, visitor);
        };
        let content = if kind == LayerEntryKind::File { stored } else { 0 };
        let sparse_size = (flag == b'S').then(|| number(&block[483..495])).flatten();
        let entry = entry(block, kind, extensions, sparse_size.unwrap_or(content))?;
        let is_file = entry.kind == LayerEntryKind::File;
        let wanted = visitor.entry(entry)? && is_file;
        match flag == b'S' && block[482] != 0 {
            true => self.state = State::SparseMap { content, wanted },
            false => self.begin_content(content, wanted, visitor)?,
        }
        Ok(())
    }

    fn begin_content(&mut self, size: u64, wanted: bool, visitor: &mut dyn LayerVisitor) -> Result<()> {
        if size > 0 {
            self.state = State::Content { left: size, padding: padding(size) as u64, wanted };
            return Ok(());
        }
        self.state = State::Header;
        if wanted { visitor.end() } else { Ok(()) }
    }

    fn feed_record(&mut self, input: &[u8]) -> Result<usize> {
        let State::Record { bytes, left, padding, .. } = &mut self.state else { return Ok(0) };
        let data = taken(input, *left);
        bytes.extend_from_slice(&input[..data]);
        *left -= data as u64;
        let pad = taken(&input[data..], *padding);
        *padding -= pad as u64;
        self.end_empty_record()?;
        Ok(data + pad)
    }

    /// Uses the record if all its bytes were read.
    fn end_empty_record(&mut self) -> Result<()> {
        let State::Record { flag, bytes, left: 0, padding: 0 } = &mut self.state else { return Ok(()) };
        let (flag, bytes) = (*flag, std::mem::take(bytes));
        self.state = State::Header;
        match flag {
            b'L' => self.extensions.path = Some(until_nul(bytes)),
            b'K' => self.extensions.link = Some(until_nul(bytes)),
            b'x' => self.extensions.read(&bytes)?,
            // Global records of layers have comments and times only.
            _ => {}
        }
        Ok(())
    }
}

/// The number of bytes of `bytes` that are taken, at most `most`.
fn taken(bytes: &[u8], most: u64) -> usize {
    bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<LayerEntry>, Vec<u8>, usize);

    impl LayerVisitor for Seen {
        fn entry(&mut self, entry: LayerEntry) -> Result<bool> {
            self.0.push(entry);
            Ok(true)
        }
        fn content(&mut self, bytes: &[u8]) {
            self.1.extend_from_slice(bytes);
        }
        fn end(&mut self) -> Result<()> {
            self.2 += 1;
            Ok(())
        }
    }

    fn read(tar: &[u8], step: usize) -> Result<Seen> {
        let (mut layer, mut seen) = (LayerTar::new(), Seen::default());
        tar.chunks(step).try_for_each(|piece| layer.feed(piece, &mut seen))?;
        layer.finish().map(|()| seen)
    }

    fn sample() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_gid(8);
            match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    header.set_path(name).unwrap();
                    header.set_link_name_literal("usr/./bin/x").unwrap();
                    header.set_cksum();
                    tar.append(&header, content).unwrap();
                }
                _ => tar.append_data(&mut header, name, content).unwrap(),
            }
        };
        add("./usr/bin/x", tar::EntryType::Regular, &[b'x'; 700]);
        add(&"deep/".repeat(60), tar::EntryType::Directory, b"");
        add("empty", tar::EntryType::Regular, b"");
        add("dev/null", tar::EntryType::Char, b"");
        add("hard", tar::EntryType::Link, b"");
        add("soft", tar::EntryType::Symlink, b"");
        tar.into_inner().unwrap()
    }

    #[test]
    fn pieces_of_any_size_give_the_same_entries() {
        let tar = sample();
        let whole = read(&tar, tar.len()).unwrap();
        let paths: Vec<&str> = whole.0.iter().map(|entry| entry.path.as_str()).collect();
        let deep = vec!["deep"; 60].join("/");
        assert_eq!(paths, ["usr/bin/x", &deep, "empty", "dev/null", "hard", "soft"]);
        assert_eq!((whole.0[0].size, whole.0[0].mode, whole.0[0].uid, whole.0[0].gid), (700, 0o4755, 7, 8));
        let links: Vec<&str> = whole.0[4..].iter().map(|entry| entry.link.as_str()).collect();
        assert_eq!(links, ["usr/bin/x", "usr/./bin/x"]);
        assert_eq!((whole.1.len(), whole.2), (700, 2));
        for step in [1, 511, 512, 513] {
            let pieces = read(&tar, step).unwrap();
            assert_eq!((&pieces.0, &pieces.1, pieces.2), (&whole.0, &whole.1, whole.2), "{step}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let tar = sample();
        assert!(read(&tar[..1000], 512).is_err());
        let mut damaged = tar.clone();
        damaged[0] ^= 1;
        assert!(read(&damaged, 512).is_err());
    }
}
