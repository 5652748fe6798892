//! A repository at several hosts: the mirrors in their order, then the registry itself. If a host fails in the middle
//! of a blob, the next host continues at the same byte. The bytes are hashed whichever host sent them.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Name};
use crate::progress::Watch;
use crate::source::{Profile, ReferrerList, Root, Selector, Store};
use crate::transport::registry::store::RepositoryStore;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The same repository at several hosts.
pub struct MirroredStore {
    /// The mirrors, then the registry itself.
    hosts: Vec<RepositoryStore>,
    /// Whether the tags of each host are trusted, in the order of `hosts`.
    trusts_tags: Vec<bool>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
    /// The number of reads of each blob. If a blob was wrong, the next read starts at the next host.
    opened: Mutex<HashMap<Digest, usize>>,
    /// The error of the registry, once it could not be reached for what only it knows.
    home_is_unreachable: OnceLock<Error>,
}

impl MirroredStore {
    /// Creates a store of `home`, the registry, and `mirrors`, each with whether its tags are trusted.
    pub fn new(
        home: RepositoryStore,
        mirrors: Vec<(RepositoryStore, bool)>,
        watch: Arc<dyn Watch>,
        cancel: Cancel,
    ) -> MirroredStore {
        let origin = home.origin().clone();
        let stand_in = |mirror: RepositoryStore| mirror.with_origin(&origin);
        let (mirrors, mut trusts_tags): (Vec<_>, Vec<_>) = mirrors.into_iter().unzip();
        trusts_tags.push(true);
        let hosts = mirrors.into_iter().map(stand_in).chain([home]).collect();
        MirroredStore {
            hosts,
            trusts_tags,
            watch,
            cancel,
            opened: Mutex::default(),
            home_is_unreachable: OnceLock::new(),
        }
    }

    fn home(&self) -> &RepositoryStore {
        self.hosts.last().expect("the registry is always in the list")
    }

    /// The mirrors whose tags are trusted.
    fn trusted_mirrors(&self) -> impl Iterator<Item = &RepositoryStore> {
        let mirrors = self.hosts.iter().zip(&self.trusts_tags).take(self.hosts.len() - 1);
        mirrors.filter(|(_, trusts_tags)| **trusts_tags).map(|(mirror, _)| mirror)
    }

    /// The answer of the registry. A copy can do without it, so `Failed` stands for no connection.
    fn ask_home<T>(&self, ask: impl FnOnce(&RepositoryStore) -> Result<T>) -> Result<T> {
        self.cancel.check()?;
        let unreachable = match self.home_is_unreachable.get() {
            Some(error) => error,
            None => match ask(self.home()) {
                Err(error) if error.kind() == Kind::Network => self.home_is_unreachable.get_or_init(|| error),
                answer => return answer,
            },
        };
        Err(Error::failed(unreachable.to_string()))
    }

    /// Returns the first success, starting at the host `at`, and the index of its host.
    fn first_success<'s, T>(
        &'s self,
        mut at: usize,
        ask: impl Fn(&'s RepositoryStore) -> Result<T>,
    ) -> Result<(usize, T)> {
        loop {
            match ask(&self.hosts[at]) {
                Ok(success) => return Ok((at, success)),
                Err(error) => at = self.next_host(at, error)?,
            }
        }
    }

    /// Returns the host after `at`, which failed with `error`. Returns `error` if `at` is the last host.
    fn next_host(&self, at: usize, error: Error) -> Result<usize> {
        self.cancel.check()?;
        if at + 1 >= self.hosts.len() || matches!(error.kind(), Kind::Interrupted | Kind::Usage) {
            return Err(error);
        }
        let (host, next) = (self.hosts[at].host(), self.hosts[at + 1].host());
        self.watch.say(&format!("mirror {host} failed, using {next} instead: {error}"));
        Ok(at + 1)
    }
}

impl Store for MirroredStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let by_tag = selectors.is_empty() || selectors.iter().any(|selector| matches!(selector, Selector::Name(_)));
        let mut at = 0;
        loop {
            if by_tag && !self.trusts_tags[at] {
                at += 1;
                continue;
            }
            match self.hosts[at].roots(selectors) {
                Ok(roots) => return Ok(roots),
                Err(error) => at = self.next_host(at, error)?,
            }
        }
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.first_success(0, |host| host.manifest(at)).map(|(_, bytes)| bytes)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let before = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            let opened = opened.entry(blob.digest).or_default();
            std::mem::replace(opened, *opened + 1)
        };
        let (at, bytes) = self.first_success(before.min(self.hosts.len() - 1), |host| host.open(blob, from))?;
        Ok(Box::new(FailoverReader { store: self, blob: blob.clone(), at, read: from, bytes }))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.home().find(digest)
    }

    fn names(&self) -> Result<Vec<Name>> {
        self.home().names()
    }

    /// The list of the first mirror that has referrers of `subject`, or that has the referrers API; else that of the
    /// registry, since a mirror without the API may not know them.
    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        for mirror in self.trusted_mirrors() {
            self.cancel.check()?;
            match mirror.referrers(subject) {
                Ok(list) if !list.entries.is_empty() || mirror.has_referrers_api() => return Ok(list),
                _ => {}
            }
        }
        self.ask_home(|home| home.referrers(subject))
    }

    /// The tags of the first mirror that responds, as for the tag of an image; else those of the registry.
    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        for mirror in self.trusted_mirrors() {
            self.cancel.check()?;
            if let Ok(tagged) = mirror.digest_tagged(subject) {
                return Ok(tagged);
            }
        }
        self.ask_home(|home| home.digest_tagged(subject))
    }

    fn profile(&self) -> Profile {
        let parallel_reads = self.hosts.iter().map(RepositoryStore::parallel_reads).max().unwrap_or(1);
        Profile { parallel_reads, ..self.home().profile() }
    }
}

/// Reads a blob, and continues at the next host when one fails.
struct FailoverReader<'a> {
    store: &'a MirroredStore,
    blob: Descriptor,
    /// The index of the current host.
    at: usize,
    /// The number of bytes read from the start of the blob.
    read: u64,
    bytes: Box<dyn Read + Send + 'a>,
}

impl Read for FailoverReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.bytes.read(buffer) {
                Ok(n) => {
                    self.read += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    let next = self.store.next_host(self.at, Error::from(error))?;
                    let store = self.store;
                    (self.at, self.bytes) = store.first_success(next, |host| host.open(&self.blob, self.read))?;
                }
            }
        }
    }
}
