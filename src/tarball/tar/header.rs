//! Reads and writes one tar header block (POSIX.1-2001 "pax", and GNU's variants). Names are not interpreted here.

use crate::error::{Error, Result};

/// The size of a tar block in bytes.
pub(crate) const BLOCK_BYTES: usize = 512;
/// From this size on, the octal field is too short, so the number is written in base 256.
const MIN_BASE256_BYTES: u64 = 1 << 33;

/// The type flag of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    File,
    Directory,
    HardLink,
    SymbolicLink,
    /// GNU: the name of the next entry (`L`).
    LongName,
    /// GNU: the link target of the next entry (`K`).
    LongLink,
    /// PAX records for the next entry (`x`).
    Records,
    /// PAX records for all following entries (`g`).
    GlobalRecords,
    /// A type that no image archive has.
    Other(u8),
}

/// The fields of a header that are used, not interpreted.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    /// The size of the following data in bytes.
    pub size: u64,
    pub flag: Flag,
}

/// Whether `block` is a tar header: its checksum is correct.
pub(crate) fn is_header(block: &[u8]) -> bool {
    block.len() >= BLOCK_BYTES && checksum_fits(&block[..BLOCK_BYTES])
}

impl Header {
    /// Parses one block; `None` for a block of zeros (an end mark).
    pub fn parse(block: &[u8; BLOCK_BYTES]) -> Result<Option<Header>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !checksum_fits(block) {
            return Err(Error::invalid("a tar header has a wrong checksum: the archive is damaged or is not a tar"));
        }
        let mut name = text(&block[..100]).to_vec();
        let magic = &block[257..263];
        let prefix = match magic {
            b"ustar\0" if &block[508..512] == b"tar\0" => text(&block[345..476]),
            b"ustar\0" => text(&block[345..500]),
            _ => b"",
        };
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let flag = match block[156] {
            b'0' | 0 | b'7' => Flag::File,
            b'1' => Flag::HardLink,
            b'2' => Flag::SymbolicLink,
            b'5' => Flag::Directory,
            b'L' => Flag::LongName,
            b'K' => Flag::LongLink,
            b'x' => Flag::Records,
            b'g' => Flag::GlobalRecords,
            other => Flag::Other(other),
        };
        let size = number(&block[124..136]).ok_or_else(|| Error::invalid("a tar header's size is not a number"))?;
        Ok(Some(Header { name, link: text(&block[157..257]).to_vec(), size, flag }))
    }
}

/// Returns a text field up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Parses a number field: octal, or base 256 if the first bit is set (GNU; star).
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return None;
        }
        // The checksum field is shorter than a u64.
        let (high, low) = field[1..].split_at(field.len().saturating_sub(9));
        let value = low.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        return (high.iter().all(|byte| *byte == 0) && value <= i64::MAX as u64).then_some(value);
    }
    let digits: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Checks the checksum. Old writers added signed bytes, so both sums are accepted, as in other readers.
fn checksum_fits(block: &[u8]) -> bool {
    let Some(stated) = number(&block[148..156]) else { return false };
    let blanked = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = || block.iter().enumerate().map(|(at, byte)| blanked(at, *byte));
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    let stated = i64::try_from(stated).unwrap_or(-1);
    stated != 0 && (stated == unsigned || stated == signed)
}

/// The kind of an entry to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderKind<'a> {
    File,
    Directory,
    SymbolicLink(&'a str),
    HardLink(&'a str),
}

/// Returns the header of an entry. It has no owner and no time, so that the same content gives the same bytes. Names and
/// targets that are too long for ustar get a GNU long-name entry before the header. Sizes from 8 GiB on are in base 256,
/// which every loader reads (all use Go's `archive/tar`).
pub(crate) fn encode(name: &str, kind: HeaderKind<'_>, size: u64) -> Vec<u8> {
    let target = match kind {
        HeaderKind::SymbolicLink(target) | HeaderKind::HardLink(target) => target,
        _ => "",
    };
    let mut out = Vec::with_capacity(BLOCK_BYTES);
    for (text, flag) in [(name, b'L'), (target, b'K')] {
        if text.len() > 100 {
            out.extend(encode_block(b"././@LongLink", b"", flag, text.len() as u64 + 1));
            out.extend(text.as_bytes());
            out.push(0);
            out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        }
    }
    let flag = match kind {
        HeaderKind::File => b'0',
        HeaderKind::HardLink(_) => b'1',
        HeaderKind::SymbolicLink(_) => b'2',
        HeaderKind::Directory => b'5',
    };
    out.extend(encode_block(name.as_bytes(), target.as_bytes(), flag, size));
    out
}

fn encode_block(name: &[u8], link: &[u8], flag: u8, size: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, if flag == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match size < MIN_BASE256_BYTES {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        false => {
            put(124, &[0x80]);
            put(128, &size.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(157, &link[..link.len().min(100)]);
    let gnu = size >= MIN_BASE256_BYTES || matches!(flag, b'L' | b'K');
    put(257, if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Returns the complete entry of a small file.
pub(crate) fn encode_entry(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = encode(name, HeaderKind::File, bytes.len() as u64);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    out
}

/// Returns the number of zeros that fill the last block of `size` bytes of data.
pub(crate) fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK_BYTES as u64) - size) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(bytes: &[u8]) -> Header {
        let last = bytes.len() - BLOCK_BYTES;
        Header::parse(bytes[last..].try_into().unwrap()).unwrap().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for size in [0, 1, MIN_BASE256_BYTES - 1, MIN_BASE256_BYTES, 9 << 30, i64::MAX as u64] {
            let header = read_back(&encode("blobs/sha256/ab", HeaderKind::File, size));
            assert_eq!((header.size, header.flag, &header.name[..]), (size, Flag::File, &b"blobs/sha256/ab"[..]));
        }
        let link = read_back(&encode("a/layer.tar", HeaderKind::SymbolicLink("../b/layer.tar"), 0));
        assert_eq!((link.flag, &link.link[..]), (Flag::SymbolicLink, &b"../b/layer.tar"[..]));
    }

    #[test]
    fn a_changed_header_is_refused() {
        let mut block: [u8; BLOCK_BYTES] = encode("a", HeaderKind::File, 7)[..].try_into().unwrap();
        block[0] = b'b';
        assert!(Header::parse(&block).is_err());
        assert!(!is_header(&block));
    }

    #[test]
    fn a_checksum_in_base_256_is_a_number_like_any_other() {
        let mut block: [u8; BLOCK_BYTES] = encode("a", HeaderKind::File, 1)[..].try_into().unwrap();
        block[148..156].copy_from_slice(b"        ");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(&sum.to_be_bytes());
        block[148] = 0x80;
        assert!(is_header(&block));
        block[155] ^= 1;
        assert!(!is_header(&block));
    }

    #[test]
    fn sizes_that_are_no_number_are_refused() {
        for field in [&b"0000000009\0\0"[..], &[0xff; 12], b"-0000000001\0", &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(number(field), None, "{field:?}");
        }
        assert_eq!(number(b"00000000012\0"), Some(10));
        assert_eq!(number(b"       12  \0"), Some(10));
    }
}
