//! One page of a bolt file: `{id u64, flags u16, count u16, overflow u32}`, then its elements, then their keys and
//! values. All numbers are little-endian and checked before use.

use crate::error::{Error, Result};

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const ELEMENT_BYTES: usize = 16;
/// A flag of a leaf's element: its value is a bucket.
const IS_BUCKET: u32 = 0x01;
/// The size of the header before an inline bucket's page: root page and sequence.
const BUCKET_BYTES: usize = 16;

#[derive(Debug, Clone)]
pub enum Bucket {
    /// At this page.
    At(u64),
    /// Within its parent's page.
    Inline(Vec<u8>),
}

pub enum Item {
    Value(Vec<u8>),
    Bucket(Bucket),
}

/// The item of `key` in a leaf.
pub(super) fn find_in(page: &[u8], key: &[u8]) -> Result<Option<Item>> {
    for at in 0..count(page) {
        let (found, item) = leaf(page, at)?;
        if found == key {
            return item().map(Some);
        }
    }
    Ok(None)
}

/// The key and child page of a branch's element: `{pos u32, ksize u32, page u64}`.
pub(super) fn branch(page: &[u8], at: usize) -> Result<(&[u8], u64)> {
    let start = HEADER_BYTES + at * ELEMENT_BYTES;
    let read = || {
        let key = part(page, start, u32_at(page, start)?, u32_at(page, start + 4)?)?;
        Some((key, u64_at(page, start + 8)?))
    };
    read().ok_or_else(|| damaged("a branch is truncated"))
}

/// The key and value of a leaf's element: `{flags u32, pos u32, ksize u32, vsize u32}`.
pub(super) fn leaf(page: &[u8], at: usize) -> Result<(&[u8], impl FnOnce() -> Result<Item>)> {
    let start = HEADER_BYTES + at * ELEMENT_BYTES;
    let read = || {
        let (pos, key_size) = (u32_at(page, start + 4)?, u32_at(page, start + 8)?);
        let key = part(page, start, pos, key_size)?;
        let value = part(page, start, pos.checked_add(key_size)?, u32_at(page, start + 12)?)?;
        Some((key, value, u32_at(page, start)? & IS_BUCKET != 0))
    };
    let (key, value, is_bucket) = read().ok_or_else(|| damaged("a leaf is truncated"))?;
    let item = move || {
        if !is_bucket {
            return Ok(Item::Value(value.to_vec()));
        }
        match (u64_at(value, 0), value.get(BUCKET_BYTES..)) {
            (Some(0), Some(page)) if page.len() >= HEADER_BYTES && flags(page) == LEAF => {
                Ok(Item::Bucket(Bucket::Inline(page.to_vec())))
            }
            (Some(0), _) | (_, None) | (None, _) => Err(damaged("a bucket is truncated")),
            (Some(root), _) => Ok(Item::Bucket(Bucket::At(root))),
        }
    };
    Ok((key, item))
}

/// Fails if the elements of a leaf have more bytes than the page. They then overlap, and a few pages could expand to
/// any number of bytes.
pub(super) fn elements_fit(page: &[u8]) -> Result<()> {
    let size = |at| {
        let start = HEADER_BYTES + at * ELEMENT_BYTES;
        Some(u64::from(u32_at(page, start + 8)?) + u64::from(u32_at(page, start + 12)?))
    };
    let bytes: u64 = (0..count(page)).filter_map(size).sum();
    match bytes <= page.len() as u64 {
        true => Ok(()),
        false => Err(damaged("the elements of a leaf overlap")),
    }
}

/// The `length` bytes at `start + pos`.
fn part(page: &[u8], start: usize, pos: u32, length: u32) -> Option<&[u8]> {
    let from = start.checked_add(pos as usize)?;
    page.get(from..from.checked_add(length as usize)?)
}

pub(super) fn flags(page: &[u8]) -> u16 {
    page.get(8..10).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

pub(super) fn count(page: &[u8]) -> usize {
    page.get(10..12).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]).into())
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

pub(super) fn damaged(how: &str) -> Error {
    Error::invalid(format!("the database is damaged: {how}"))
}
