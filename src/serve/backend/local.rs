//! A local store (a layout, an archive, containerd's directory) as a shelf.

use super::catalog::{At, Backend, Repository, Wanted, as_manifest};
use super::reload::Live;
use super::repository_names::{Table, Tags};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::progress::Watch;
use crate::source::{Root, Selector, Store, ambiguous};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

/// A store whose blobs can be opened at any offset at once, with no server in between.
pub struct LocalBackend {
    live: Live<Stocked>,
}

/// A store with the names of what is in it.
struct Stocked {
    store: Arc<dyn Store>,
    table: Table,
}

impl LocalBackend {
    /// A store that is opened anew when `file` changes, but not more often than every `rest`. What has no full name is
    /// served as `own`.
    ///
    /// Fails where it cannot be opened now, or its images cannot be listed.
    pub fn following(
        file: PathBuf,
        rest: Duration,
        own: String,
        open: impl Fn() -> Result<Arc<dyn Store>> + Send + Sync + 'static,
        watch: Arc<dyn Watch>,
    ) -> Result<LocalBackend> {
        let told = Once::new();
        let live = Live::following(file, rest, move || {
            stocked(open()?, &own, |hidden| {
                told.call_once(|| watch.say(&format!("{hidden}; until then it is not served by that name")));
            })
        });
        live.now()?;
        Ok(LocalBackend { live })
    }
}

fn stocked(store: Arc<dyn Store>, own: &str, hidden: impl Fn(&Error)) -> Result<Stocked> {
    let roots = match store.roots(&[]) {
        Ok(roots) => match ambiguous(&roots) {
            None => roots,
            Some(error) => {
                hidden(&error);
                unambiguous(&*store)?
            }
        },
        // A name that stands for two images hides only itself.
        Err(error) if matches!(error.kind(), Kind::Usage | Kind::Invalid) => {
            hidden(&error);
            unambiguous(&*store)?
        }
        Err(error) => return Err(error),
    };
    Ok(Stocked { table: Table::new(roots, own), store })
}

fn unambiguous(store: &dyn Store) -> Result<Vec<Root>> {
    let mut roots = Vec::new();
    for name in store.names()? {
        roots.extend(store.roots(&[Selector::Name(name.to_string())]).unwrap_or_default());
    }
    Ok(roots)
}

impl Backend for LocalBackend {
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.live.now()?.table.repositories().cloned().collect())
    }

    fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>> {
        let now = self.live.now()?;
        let Some(tags) = now.table.tags(wanted) else { return Ok(None) };
        Ok(Some(Arc::new(StoreRepository { store: now.store.clone(), tags })))
    }
}

/// One repository of a store. Its blobs are all of the store's: they are found only by who knows their digest.
struct StoreRepository {
    store: Arc<dyn Store>,
    tags: Arc<Tags>,
}

impl Repository for StoreRepository {
    fn tags(&self) -> Result<Vec<String>> {
        Ok(self.tags.names().cloned().collect())
    }

    fn manifest(&self, at: &At) -> Result<Option<Manifest>> {
        match at {
            At::Tag(tag) => match self.tags.at(tag) {
                Some(entry) => Manifest::parse(self.store.manifest(entry)?, entry).map(Some),
                None => Ok(None),
            },
            At::Digest(digest) => {
                let listed = self.tags.listed(digest).cloned();
                let claim = match listed.map_or_else(|| self.store.find(digest), |entry| Ok(Some(entry)))? {
                    Some(claim) if claim.size <= MAX_MANIFEST_BYTES => claim,
                    _ => return Ok(None),
                };
                match self.store.manifest(&claim) {
                    Ok(bytes) => Ok(as_manifest(bytes, &claim)),
                    Err(error) if error.kind() == Kind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn weight(&self, at: &At) -> Result<Option<u64>> {
        match at {
            At::Tag(tag) => Ok(self.tags.at(tag).map(|entry| entry.size)),
            At::Digest(digest) => self.blob(digest),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.store.find(digest)?.map(|found| found.size))
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        let reopened = Reopened { store: self.store.clone(), blob: Descriptor::new("", *digest, size), at: from };
        // What cannot be opened is told before the answer begins.
        reopened.store.open(&reopened.blob, from)?;
        Ok(Box::new(reopened))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.store.referrers(subject)
    }
}

/// Reads a blob by opening it anew for each buffer: a store's readers live only as long as a borrow of it, and a client
/// that is slow holds nothing meanwhile.
struct Reopened {
    store: Arc<dyn Store>,
    blob: Descriptor,
    at: u64,
}

impl Read for Reopened {
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
