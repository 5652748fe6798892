//! A repository that several hosts have: mirrors are asked in their order, the registry itself last. A host that fails
//! in the middle of a blob is left for the next one at the same byte; what is read is hashed whichever served it.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Name};
use crate::progress::Watch;
use crate::source::{Origin, Root, Selector, Store};
use crate::transport::registry::store::RepositoryStore;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// The same repository at several hosts.
pub struct MirroredStore {
    /// The registry itself is the last.
    hosts: Vec<RepositoryStore>,
    /// Of those, in their order, whether its tags are believed.
    trusts_tags: Vec<bool>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
    /// How often each blob was begun: what came wrong from one host is asked of the next.
    opened: Mutex<HashMap<Digest, usize>>,
}

impl MirroredStore {
    /// `home`, of which `mirrors` have copies; with each, whether its tags are believed.
    pub fn new(
        home: RepositoryStore,
        mirrors: Vec<(RepositoryStore, bool)>,
        watch: Arc<dyn Watch>,
        cancel: Cancel,
    ) -> MirroredStore {
        let origin = home.origin().cloned();
        let stand_in = |mirror: RepositoryStore| match &origin {
            Some(origin) => mirror.standing_for(origin),
            None => mirror,
        };
        let (mirrors, mut trusts_tags): (Vec<_>, Vec<_>) = mirrors.into_iter().unzip();
        trusts_tags.push(true);
        let hosts = mirrors.into_iter().map(stand_in).chain([home]).collect();
        MirroredStore { hosts, trusts_tags, watch, cancel, opened: Mutex::default() }
    }

    fn home(&self) -> &RepositoryStore {
        self.hosts.last().expect("home was put there")
    }

    /// What the first host from `at` on that does not fail says, and which it was.
    fn first_success<'s, T>(
        &'s self,
        mut at: usize,
        ask: impl Fn(&'s RepositoryStore) -> Result<T>,
    ) -> Result<(usize, T)> {
        loop {
            match ask(&self.hosts[at]) {
                Ok(told) => return Ok((at, told)),
                Err(error) => at = self.next_host(at, error)?,
            }
        }
    }

    /// The host to ask after `at` has failed with `error`, which stands if there is none.
    fn next_host(&self, at: usize, error: Error) -> Result<usize> {
        self.cancel.check()?;
        if at + 1 >= self.hosts.len() || matches!(error.kind(), Kind::Interrupted | Kind::Usage) {
            return Err(error);
        }
        let (host, next) = (self.hosts[at].host(), self.hosts[at + 1].host());
        self.watch.say(&format!("mirror {host} is left for {next}: {error}"));
        Ok(at + 1)
    }
}

impl Store for MirroredStore {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        let by_tag = picks.is_empty() || picks.iter().any(|pick| matches!(pick, Selector::Name(_)));
        let mut at = 0;
        loop {
            if by_tag && !self.trusts_tags[at] {
                at += 1;
                continue;
            }
            match self.hosts[at].roots(picks) {
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

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.home().referrers(subject)
    }

    fn origin(&self) -> Option<&Origin> {
        self.home().origin()
    }

    fn lanes(&self) -> usize {
        self.hosts.iter().map(|host| host.lanes()).max().unwrap_or(1)
    }
}

/// A blob's bytes, from one host after the other.
struct FailoverReader<'a> {
    store: &'a MirroredStore,
    blob: Descriptor,
    /// The host in hand.
    at: usize,
    /// Bytes from the blob's start that were read.
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
