//! One entry of a layer's tar: its header and the extension records before it.

use super::header::number;
use super::path::MAX_NAME_BYTES;
use crate::error::{Error, Result};

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerEntryKind {
    File,
    Directory,
    SymbolicLink,
    HardLink,
    CharacterDevice,
    BlockDevice,
    Pipe,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerEntry {
    /// Without a leading `/` or `./`; the root directory is empty. Bytes that are not UTF-8 are written as `\xNN`.
    pub path: String,
    pub kind: LayerEntryKind,
    /// In bytes; 0 unless it is a file.
    pub size: u64,
    /// The permission bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// The target of a symbolic link as written, of a hard link as a path; the numbers of a device.
    pub link: String,
}

/// Values of the extension records before an entry, which replace those of its header.
#[derive(Default)]
pub(super) struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    /// The size of a sparse file when it is read.
    real_size: Option<u64>,
}

impl Extensions {
    /// Parses PAX records (`LENGTH KEY=VALUE\n`).
    pub fn read(&mut self, mut records: &[u8]) -> Result<()> {
        let wrong = || Error::invalid("a PAX record in a layer is damaged");
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let digits = std::str::from_utf8(&records[..space]).map_err(|_| wrong())?;
            let length: usize = digits.parse().map_err(|_| wrong())?;
            let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let decimal = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            match key {
                b"path" | b"GNU.sparse.name" if !value.is_empty() => self.path = Some(value.to_vec()),
                b"linkpath" if !value.is_empty() => self.link = Some(value.to_vec()),
                b"size" if !value.is_empty() => self.size = Some(decimal().ok_or_else(wrong)?),
                b"uid" => self.uid = decimal(),
                b"gid" => self.gid = decimal(),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = decimal(),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// The type of an entry by its flag; `None` for an unknown one.
pub(super) fn kind_of(flag: u8) -> Option<LayerEntryKind> {
    Some(match flag {
        b'0' | 0 | b'7' | b'S' => LayerEntryKind::File,
        b'1' => LayerEntryKind::HardLink,
        b'2' => LayerEntryKind::SymbolicLink,
        b'3' => LayerEntryKind::CharacterDevice,
        b'4' => LayerEntryKind::BlockDevice,
        b'5' => LayerEntryKind::Directory,
        b'6' => LayerEntryKind::Pipe,
        _ => return None,
    })
}

/// The entry of the header `block`.
pub(super) fn entry(block: &[u8], kind: LayerEntryKind, extensions: Extensions, size: u64) -> Result<LayerEntry> {
    let name = extensions.path.unwrap_or_else(|| header_name(block));
    let link = extensions.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
    if name.len().max(link.len()) > MAX_NAME_BYTES {
        return Err(Error::invalid(format!("a name in a layer has more than {MAX_NAME_BYTES} bytes")));
    }
    let short = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default();
    let owner = |own: Option<u64>, at: std::ops::Range<usize>| short(own.or_else(|| number(&block[at])));
    // Old tars write directories in this way.
    let is_directory = kind == LayerEntryKind::File && name.ends_with(b"/");
    let kind = if is_directory { LayerEntryKind::Directory } else { kind };
    let link = match kind {
        LayerEntryKind::SymbolicLink => readable(&link),
        LayerEntryKind::HardLink => path(&link),
        LayerEntryKind::CharacterDevice | LayerEntryKind::BlockDevice => {
            format!("{}:{}", short(number(&block[329..337])), short(number(&block[337..345])))
        }
        _ => String::new(),
    };
    Ok(LayerEntry {
        path: path(&name),
        kind,
        size: extensions.real_size.unwrap_or(size),
        // Only the permission bits are kept, so the number fits.
        mode: number(&block[100..108]).and_then(|mode| u16::try_from(mode & 0o7777).ok()).unwrap_or_default(),
        uid: owner(extensions.uid, 108..116),
        gid: owner(extensions.gid, 116..124),
        link,
    })
}

fn header_name(block: &[u8]) -> Vec<u8> {
    let name = text(&block[..100]);
    match (&block[257..263], text(&block[345..500])) {
        (b"ustar\0", prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

/// Removes empty parts and `.` from a path.
fn path(name: &[u8]) -> String {
    let name = readable(name);
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

/// `bytes` as text; bytes that are not UTF-8 are written as `\xNN`.
fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// A text field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// `text` up to its first NUL.
pub(super) fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_records_are_refused_and_strange_bytes_are_shown() {
        assert_eq!(readable(b"a\xff/b"), "a\\xff/b");
        for wrong in
            [&b"6 a=bc"[..], b"5 a=\n99 b=c\n", b"0 a=b\n", b"1 a=b\n", b"x a=b\n", b"7 size=\n", b"11 size=12x\n"]
        {
            assert!(Extensions::default().read(wrong).is_err(), "{wrong:?}");
        }
        let mut large = Extensions::default();
        large.read(b"20 size=12345678901\n").unwrap();
        assert_eq!(large.size, Some(12_345_678_901));
    }
}
