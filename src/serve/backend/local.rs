//! A local store (a layout, an archive, containerd's directory) as a backend.

use super::catalog::{Backend, Repository, RepositoryRequest, TagOrDigest, parse_if_manifest};
use super::digest_tags;
use super::reload::Reloading;
use super::repository_names::{RepositoryTable, Tags};
use super::upstream::spawn_reader;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::progress::Watch;
use crate::source::{Root, Selector, Store, ambiguous};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

/// A backend over a store whose blobs can be opened at any offset, without a network.
pub struct LocalBackend {
    open_store: Reloading<OpenStore>,
}

/// An open store and the repositories in it.
struct OpenStore {
    store: Arc<dyn Store>,
    table: RepositoryTable,
}

impl LocalBackend {
    /// Opens a store, and reopens it when one of `files` changes, at most once in `min_interval`. Images without a full name
    /// are served in the repository `default_repository`.
    ///
    /// Fails if the store cannot be opened, or its images cannot be listed.
    pub fn reloading(
        files: Vec<PathBuf>,
        min_interval: Duration,
        default_repository: String,
        open: impl Fn() -> Result<Arc<dyn Store>> + Send + Sync + 'static,
        watch: Arc<dyn Watch>,
    ) -> Result<LocalBackend> {
        let warned = Once::new();
        let open_store = Reloading::new(files, min_interval, move || {
            load(open()?, &default_repository, |ambiguous_name| {
                warned
                    .call_once(|| watch.say(&format!("{ambiguous_name}; until then it is not served under that name")));
            })
        });
        open_store.current()?;
        Ok(LocalBackend { open_store })
    }
}

fn load(store: Arc<dyn Store>, default_repository: &str, ambiguous_name: impl Fn(&Error)) -> Result<OpenStore> {
    let roots = match store.roots(&[]) {
        Ok(roots) => match ambiguous(&roots) {
            None => roots,
            Some(error) => {
                ambiguous_name(&error);
                unambiguous_roots(&*store)?
            }
        },
        // An ambiguous name hides only the images of that name.
        Err(error) if matches!(error.kind(), Kind::Usage | Kind::Invalid) => {
            ambiguous_name(&error);
            unambiguous_roots(&*store)?
        }
        Err(error) => return Err(error),
    };
    let roots = digest_tags::as_in_a_layout(&*store, roots)?;
    Ok(OpenStore { table: RepositoryTable::new(roots, default_repository), store })
}

fn unambiguous_roots(store: &dyn Store) -> Result<Vec<Root>> {
    let mut roots = Vec::new();
    for name in store.names()? {
        roots.extend(store.roots(&[Selector::Name(name.to_string())]).unwrap_or_default());
    }
    Ok(roots)
}

impl Backend for LocalBackend {
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.open_store.current()?.table.repositories().cloned().collect())
    }

    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let opened = self.open_store.current()?;
        let Some(tags) = opened.table.tags(request) else { return Ok(None) };
        Ok(Some(Arc::new(StoreRepository { store: opened.store.clone(), tags })))
    }
}

/// One repository of a store. It serves every blob of the store: a client must know the digest to get one.
struct StoreRepository {
    store: Arc<dyn Store>,
    tags: Arc<Tags>,
}

impl Repository for StoreRepository {
    fn tags(&self) -> Result<Vec<String>> {
        Ok(self.tags.names().cloned().collect())
    }

    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>> {
        match at {
            TagOrDigest::Tag(tag) => match self.tags.get(tag) {
                Some(entry) => Manifest::parse(self.store.manifest(entry)?, entry).map(Some),
                None => Ok(None),
            },
            TagOrDigest::Digest(digest) => {
                let listed = self.tags.by_digest(digest).cloned();
                let descriptor = match listed.map_or_else(|| self.store.find(digest), |entry| Ok(Some(entry)))? {
                    Some(descriptor) if descriptor.size <= MAX_MANIFEST_BYTES => descriptor,
                    _ => return Ok(None),
                };
                match self.store.manifest(&descriptor) {
                    Ok(bytes) => Ok(parse_if_manifest(bytes, &descriptor)),
                    Err(error) if error.kind() == Kind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn manifest_size(&self, at: &TagOrDigest) -> Result<Option<u64>> {
        match at {
            TagOrDigest::Tag(tag) => Ok(self.tags.get(tag).map(|entry| entry.size)),
            TagOrDigest::Digest(digest) => self.blob(digest),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.store.find(digest)?.map(|found| found.size))
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        let (store, blob) = (self.store.clone(), Descriptor::new("", *digest, size));
        // Each opening of a remote blob sends bytes ahead, so such a blob is opened once.
        let open = if store.profile().is_remote { spawn_reader } else { reopening_reader };
        open(store, blob, from)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.store.referrers(subject)?.entries)
    }
}

/// Reads `blob` from offset `from`, without an open file between two buffers.
///
/// Fails if the blob cannot be opened.
pub(super) fn reopening_reader(store: Arc<dyn Store>, blob: Descriptor, from: u64) -> Result<Box<dyn Read + Send>> {
    // An error of the first open is reported before the response starts.
    store.open(&blob, from)?;
    Ok(Box::new(ReopeningReader { store, blob, at: from }))
}

/// Reads a blob by reopening it for each buffer: a store's reader borrows the store, and a slow client must not keep a
/// file open.
struct ReopeningReader {
    store: Arc<dyn Store>,
    blob: Descriptor,
    at: u64,
}

impl Read for ReopeningReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.store.open(&self.blob, self.at).map_err(io::Error::from)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match bytes.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }
}
