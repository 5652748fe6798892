//! The content of one file of a layer, compared with its size and its checksum while it is read.

use super::FileOpener;
use super::lines::FileEntry;
use crate::error::{Error, Result};
use crate::message::shortened;
use crc::{CRC_64_GO_ISO, Crc, Digest, Table};
use std::fs::File;
use std::io::{ErrorKind, Read};

/// tar-split's checksum (Go's hash/crc64, polynomial ISO).
pub(super) static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// An open file of the layer.
pub(super) struct Content {
    entry: FileEntry,
    file: File,
    /// In bytes.
    left: u64,
    crc: Digest<'static, u64, Table<16>>,
}

impl Content {
    /// Opens the file of `entry`, which has content.
    pub fn open(entry: FileEntry, open: &mut FileOpener<'_>) -> Result<Content> {
        let file = open(&entry.name)?.ok_or_else(|| damaged(&entry, "it is missing"))?;
        let found = file.metadata().map_err(|error| reading(&entry, error))?.len();
        if found != entry.size {
            return Err(damaged(&entry, &format!("expected {} bytes, found {found}", entry.size)));
        }
        Ok(Content { left: entry.size, entry, file, crc: CRC.digest() })
    }

    /// Reads the next bytes; 0 at the end, where the checksum is right.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = loop {
            match self.file.read(&mut buffer[..wanted]) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(reading(&self.entry, error)),
            }
        };
        if read == 0 {
            let missing = self.left;
            return Err(damaged(&self.entry, &format!("its last {missing} bytes are missing")));
        }
        self.crc.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 {
            self.check()?;
        }
        Ok(read)
    }

    fn check(&mut self) -> Result<()> {
        let found = std::mem::replace(&mut self.crc, CRC.digest()).finalize().to_be_bytes();
        match self.entry.checksum {
            Some(expected) if expected != found => {
                let hex = |bytes: [u8; 8]| format!("{:016x}", u64::from_be_bytes(bytes));
                Err(damaged(
                    &self.entry,
                    &format!("its content changed: expected the checksum {}, found {}", hex(expected), hex(found)),
                ))
            }
            _ => Ok(()),
        }
    }
}

fn damaged(entry: &FileEntry, why: &str) -> Error {
    Error::invalid(format!("the layer's file {} is damaged: {why}", shown(entry)))
}

fn reading(entry: &FileEntry, error: std::io::Error) -> Error {
    Error::reading(format!("the layer's file {}", shown(entry)), error)
}

/// The name of the file for messages.
fn shown(entry: &FileEntry) -> String {
    shortened(&String::from_utf8_lossy(&entry.name))
}
