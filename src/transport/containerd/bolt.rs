//! The file format of bolt (go.etcd.io/bbolt), as far as reading needs it: the newest state, and the tree of pages of a
//! bucket. Every field is checked before use. The free list is not read, since containerd 2 writes none.

use super::page::{
    BRANCH, HEADER_BYTES, LEAF, branch, count, damaged, elements_fit, find_in, flags, leaf, u32_at, u64_at,
};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub use super::page::{Bucket, Item};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// The size of a meta: magic, version, page size, flags, root bucket, free list, pages, txid. Their checksum follows.
const META_BYTES: usize = 56;
const MAX_DEPTH: u32 = 24;
/// The limit for a page with its overflow; containerd's pages have a few KiB.
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// The valid page sizes, as powers of two.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 10..=16;

/// The bytes of a database.
pub trait Pages {
    /// In bytes.
    fn size(&self) -> io::Result<u64>;
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Pages for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

impl Pages for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(at).ok().and_then(|at| self.get(at..at.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// One state of the database, after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub txid: u64,
    page_size: u32,
    root: u64,
    /// The number of pages; all page ids are below it.
    end: u64,
}

impl Meta {
    /// The newest valid state. A database has two meta pages, of which one may be incomplete.
    pub fn newest(pages: &dyn Pages) -> Result<Meta> {
        let first = Meta::at(pages, 0);
        let sizes = PAGE_SIZES.map(|shift| 1u32 << shift);
        let second = match first {
            Some(first) => Meta::at(pages, first.page_size),
            None => sizes.filter_map(|size| Meta::at(pages, size).filter(|meta| meta.page_size == size)).next(),
        };
        let newest = first.into_iter().chain(second).max_by_key(|meta| meta.txid);
        newest.ok_or_else(|| Error::invalid("it is not a bolt database, or both of its meta pages are damaged"))
    }

    fn at(pages: &dyn Pages, at: u32) -> Option<Meta> {
        let mut bytes = [0; HEADER_BYTES + META_BYTES + 8];
        pages.read(at.into(), &mut bytes).ok()?;
        let meta = &bytes[HEADER_BYTES..];
        let is_valid = u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64_at(meta, META_BYTES)? == fnv1a(&meta[..META_BYTES])
            && PAGE_SIZES.contains(&u32_at(meta, 8)?.trailing_zeros())
            && u32_at(meta, 8)?.is_power_of_two();
        is_valid.then_some(Meta {
            page_size: u32_at(meta, 8)?,
            root: u64_at(meta, 16)?,
            end: u64_at(meta, 40)?,
            txid: u64_at(meta, 48)?,
        })
    }
}

/// A database in the state of a [`Meta`].
pub struct Bolt<'p> {
    pages: &'p dyn Pages,
    meta: Meta,
    /// The number of pages that may still be read, since the pages of a damaged file may form a loop.
    left: Cell<u64>,
}

/// A callback with each key and its item.
type Each<'f> = dyn FnMut(&[u8], Item) -> Result<()> + 'f;

impl<'p> Bolt<'p> {
    pub fn new(pages: &'p dyn Pages, meta: Meta) -> Result<Bolt<'p>> {
        let size = pages.size().map_err(|e| Error::reading("the database", e))?;
        let existing = meta.end.min(size / u64::from(meta.page_size));
        Ok(Bolt { pages, meta, left: Cell::new(4 * existing + 16) })
    }

    pub fn root(&self) -> Bucket {
        Bucket::At(self.meta.root)
    }

    /// Calls `then` for every item of `bucket`, in the order of the keys.
    pub fn each(&self, bucket: &Bucket, then: &mut Each<'_>) -> Result<()> {
        match bucket {
            Bucket::Inline(page) => self.each_leaf(page, then),
            Bucket::At(id) => self.each_below(*id, 0, then),
        }
    }

    fn each_below(&self, id: u64, depth: u32, then: &mut Each<'_>) -> Result<()> {
        let page = self.page(id, depth)?;
        if flags(&page) == LEAF {
            return self.each_leaf(&page, then);
        }
        for at in 0..count(&page) {
            self.each_below(branch(&page, at)?.1, depth + 1, then)?;
        }
        Ok(())
    }

    fn each_leaf(&self, page: &[u8], then: &mut Each<'_>) -> Result<()> {
        elements_fit(page)?;
        for at in 0..count(page) {
            let (key, item) = leaf(page, at)?;
            then(key, item()?)?;
        }
        Ok(())
    }

    /// The item of `key` in `bucket`.
    pub fn find(&self, bucket: &Bucket, key: &[u8]) -> Result<Option<Item>> {
        let mut id = match bucket {
            Bucket::Inline(page) => return find_in(page, key),
            Bucket::At(id) => *id,
        };
        for depth in 0.. {
            let page = self.page(id, depth)?;
            if flags(&page) == LEAF {
                return find_in(&page, key);
            }
            let mut below = None;
            for at in 0..count(&page) {
                let (first, child) = branch(&page, at)?;
                if below.is_some() && first > key {
                    break;
                }
                below = Some(child);
            }
            id = below.ok_or_else(|| damaged("a branch is empty"))?;
        }
        Ok(None)
    }

    pub fn bucket(&self, bucket: &Bucket, key: &[u8]) -> Result<Option<Bucket>> {
        match self.find(bucket, key)? {
            Some(Item::Bucket(bucket)) => Ok(Some(bucket)),
            _ => Ok(None),
        }
    }

    pub fn value(&self, bucket: &Bucket, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.find(bucket, key)? {
            Some(Item::Value(value)) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// Reads a branch or a leaf, with its overflow.
    fn page(&self, id: u64, depth: u32) -> Result<Vec<u8>> {
        let in_a_loop = || damaged("its pages form a loop");
        let spend = |pages| self.left.get().checked_sub(pages).map(|left| self.left.set(left)).ok_or_else(in_a_loop);
        spend(if depth <= MAX_DEPTH { 1 } else { u64::MAX })?;
        let size = u64::from(self.meta.page_size);
        let mut page = self.bytes(id, size)?;
        let overflow = u64::from(u32_at(&page, 12).unwrap_or(0));
        if u64_at(&page, 0) != Some(id) || !matches!(flags(&page), BRANCH | LEAF) {
            return Err(damaged(&format!("page {id} is not a branch or a leaf")));
        }
        if overflow > 0 {
            spend(overflow)?;
            page = self.bytes(id, size * (overflow + 1))?;
        }
        Ok(page)
    }

    fn bytes(&self, id: u64, length: u64) -> Result<Vec<u8>> {
        let size = u64::from(self.meta.page_size);
        // The first two pages are the metas.
        if id < 2 || id >= self.meta.end || length > MAX_PAGE_BYTES || length / size > self.meta.end - id {
            return Err(damaged(&format!("page {id} with {length} bytes is outside its page range")));
        }
        let mut page = vec![0; length as usize];
        let at = id.checked_mul(size).ok_or_else(|| damaged(&format!("page {id} is beyond the end of the file")))?;
        self.pages.read(at, &mut page).map_err(|_| damaged(&format!("page {id} is beyond the end of the file")))?;
        Ok(page)
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::transport::containerd::page::ELEMENT_BYTES;
    use proptest::prelude::*;
    use std::io::Read;

    /// A database written by containerd; see `fixtures/README.md`.
    pub fn fixture(name: &str) -> Vec<u8> {
        let compressed = std::fs::File::open(format!("fixtures/bolt/{name}.meta.db.gz")).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(compressed).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Makes the first meta of `bytes` the newest, with the given `txid`.
    pub fn commit(bytes: &mut [u8], txid: u64) {
        bytes[HEADER_BYTES + 48..HEADER_BYTES + META_BYTES].copy_from_slice(&txid.to_le_bytes());
        let sum = fnv1a(&bytes[HEADER_BYTES..HEADER_BYTES + META_BYTES]);
        bytes[HEADER_BYTES + META_BYTES..HEADER_BYTES + META_BYTES + 8].copy_from_slice(&sum.to_le_bytes());
    }

    /// Collects every key in the tree down to `depth`, and whether it is a bucket.
    fn all(bolt: &Bolt<'_>, bucket: &Bucket, depth: u32, found: &mut Vec<(Vec<u8>, bool)>) -> Result<()> {
        bolt.each(bucket, &mut |key, item| {
            found.push((key.to_vec(), matches!(item, Item::Bucket(_))));
            match item {
                Item::Bucket(inner) if depth > 0 => all(bolt, &inner, depth - 1, found),
                _ => Ok(()),
            }
        })
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<(Vec<u8>, bool)>> {
        let bolt_pages = &bytes;
        let bolt = Bolt::new(bolt_pages, Meta::newest(bolt_pages)?)?;
        let mut found = Vec::new();
        all(&bolt, &bolt.root(), 12, &mut found)?;
        Ok(found)
    }

    #[test]
    fn what_is_listed_is_found() {
        for name in ["ctr16", "ctr21", "ctr16-many", "ctr21-many"] {
            let bytes = fixture(name);
            let pages = &&bytes[..];
            let bolt = Bolt::new(pages, Meta::newest(pages).unwrap()).unwrap();
            let mut ahead = vec![bolt.root()];
            let mut keys = 0;
            while let Some(bucket) = ahead.pop() {
                bolt.left.set(1000);
                bolt.each(&bucket, &mut |key, item| {
                    keys += 1;
                    let found = bolt.find(&bucket, key)?;
                    match (item, found) {
                        (Item::Value(listed), Some(Item::Value(found))) => assert_eq!(listed, found),
                        (Item::Bucket(listed), Some(Item::Bucket(_))) => ahead.push(listed),
                        _ => panic!("{:?} is listed and not found", String::from_utf8_lossy(key)),
                    }
                    Ok(())
                })
                .unwrap();
                assert!(bolt.find(&bucket, b"\0absent").unwrap().is_none());
                assert!(bolt.find(&bucket, b"\xffabsent").unwrap().is_none());
            }
            assert!(keys > 100, "{keys}");
        }
    }

    #[test]
    fn the_other_meta_serves_when_one_is_damaged() {
        let bytes = fixture("ctr16");
        let newest = Meta::newest(&&bytes[..]).unwrap();
        for at in [0, 4096] {
            let mut damaged = bytes.clone();
            damaged[at + 40] ^= 1;
            let other = Meta::newest(&&damaged[..]).unwrap();
            assert!(other.txid == newest.txid || other.txid + 1 == newest.txid);
        }
        let mut damaged = bytes;
        damaged[40] ^= 1;
        damaged[4096 + 40] ^= 1;
        assert!(Meta::newest(&&damaged[..]).is_err());
    }

    #[test]
    fn a_page_that_leads_back_to_itself_ends() {
        let bytes = fixture("ctr16-many");
        let size = 4096;
        let branch = (2..bytes.len() / size).find(|page| flags(&bytes[page * size..]) == BRANCH).unwrap();
        let mut circle = bytes;
        for element in 0..count(&circle[branch * size..]) {
            let child = branch * size + HEADER_BYTES + element * ELEMENT_BYTES + 8;
            circle[child..child + 8].copy_from_slice(&(branch as u64).to_le_bytes());
        }
        let error = read_all(&circle).unwrap_err();
        assert!(error.to_string().contains("form a loop"), "{error}");
    }

    #[test]
    fn a_few_pages_never_stand_for_many_bytes() {
        let mut bytes = fixture("ctr16-many");
        let size = 4096;
        let many = |page: &[u8]| flags(page) == LEAF && count(page) > 4;
        for page in bytes.chunks_mut(size).skip(2).filter(|page| many(page)) {
            for element in 0..count(page) {
                // Each value ends with the page.
                let start = HEADER_BYTES + element * ELEMENT_BYTES;
                let key_ends = start as u32 + u32_at(page, start + 4).unwrap() + u32_at(page, start + 8).unwrap();
                page[start + 12..start + 16].copy_from_slice(&(size as u32 - key_ends).to_le_bytes());
            }
        }
        let error = read_all(&bytes).unwrap_err();
        assert!(error.to_string().contains("of a leaf overlap"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damage_never_panics_or_runs_on(
            which in 0..2usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            pages in prop::collection::vec((2..64usize, 0..64usize, any::<u8>()), 0..40),
            length in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = [fixture("ctr16"), fixture("ctr21")][which].clone();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            // The headers and first elements of pages.
            for (page, at, byte) in &pages {
                bytes[page * 4096 + at] = *byte;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            let _ = read_all(&bytes);
            let _ = crate::transport::containerd::images_in(&bytes);
        }
    }
}
