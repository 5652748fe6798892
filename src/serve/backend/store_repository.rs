//! A store of one repository as a repository of the server: each request asks the store.

use super::catalog::{Repository, TagOrDigest};
use crate::error::{Kind, Result};
use crate::image::{Descriptor, Digest, Manifest};
use crate::source::{Root, Selector, Store};
use std::io::Read;
use std::sync::Arc;

/// Opens a blob of a store at an offset; the reader has its own share of the store.
pub(super) type OpenReader = fn(Arc<dyn Store>, Descriptor, u64) -> Result<Box<dyn Read + Send>>;

/// A store whose selectors by name are tags.
pub(super) struct StoreRepository {
    pub store: Arc<dyn Store>,
    pub open: OpenReader,
}

impl StoreRepository {
    fn root(&self, at: &TagOrDigest) -> Result<Option<Root>> {
        let selector = match at {
            TagOrDigest::Tag(tag) => Selector::Name(tag.clone()),
            TagOrDigest::Digest(digest) => Selector::Digest(*digest),
        };
        Ok(none_if_not_found(self.store.roots(&[selector]))?.and_then(|mut roots| roots.pop()))
    }
}

fn none_if_not_found<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Repository for StoreRepository {
    fn tags(&self) -> Result<Vec<String>> {
        let names = none_if_not_found(self.store.names())?.unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.tag()).collect())
    }

    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>> {
        let Some(root) = self.root(at)? else { return Ok(None) };
        root.read(&*self.store).map(Some)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.store.find(digest)?.map(|found| found.size))
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        (self.open)(self.store.clone(), Descriptor::new("", *digest, size), from)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(none_if_not_found(self.store.referrers(subject))?.unwrap_or_default().entries)
    }
}
