//! A repository that several hosts have: mirrors are asked in their order, the registry itself last. A host that fails
//! in the middle of a blob is left for the next one at the same byte; what is read is hashed whichever served it.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Name};
use crate::progress::Watch;
use crate::source::{Profile, Root, Selector, Store};
use crate::transport::registry::store::RepositoryStore;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// The same repository at several hosts.
pub struct MirroredStore {
    /// The registry itself is the last.
    places: Vec<RepositoryStore>,
    /// Of those, in their order, whether its tags are believed.
    resolving: Vec<bool>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
    /// How often each blob was begun: what came wrong from one host is asked of the next.
    begun: Mutex<HashMap<Digest, usize>>,
}

impl MirroredStore {
    /// `home`, of which `mirrors` have copies; with each, whether its tags are believed.
    pub fn new(
        home: RepositoryStore,
        mirrors: Vec<(RepositoryStore, bool)>,
        watch: Arc<dyn Watch>,
        cancel: Cancel,
    ) -> MirroredStore {
        let origin = home.origin().clone();
        let standing = |mirror: RepositoryStore| mirror.with_origin(&origin);
        let (mirrors, mut resolving): (Vec<_>, Vec<_>) = mirrors.into_iter().unzip();
        resolving.push(true);
        let places = mirrors.into_iter().map(standing).chain([home]).collect();
        MirroredStore { places, resolving, watch, cancel, begun: Mutex::default() }
    }

    fn home(&self) -> &RepositoryStore {
        self.places.last().expect("home was put there")
    }

    /// What the first host from `at` on that does not fail says, and which it was.
    fn first<'s, T>(&'s self, mut at: usize, ask: impl Fn(&'s RepositoryStore) -> Result<T>) -> Result<(usize, T)> {
        loop {
            match ask(&self.places[at]) {
                Ok(told) => return Ok((at, told)),
                Err(error) => at = self.after(at, error)?,
            }
        }
    }

    /// The host to ask after `at` has failed with `error`, which stands if there is none.
    fn after(&self, at: usize, error: Error) -> Result<usize> {
        self.cancel.check()?;
        if at + 1 >= self.places.len() || matches!(error.kind(), Kind::Interrupted | Kind::Usage) {
            return Err(error);
        }
        let (host, next) = (self.places[at].host(), self.places[at + 1].host());
        self.watch.say(&format!("mirror {host} is left for {next}: {error}"));
        Ok(at + 1)
    }
}

impl Store for MirroredStore {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        let by_tag = picks.is_empty() || picks.iter().any(|pick| matches!(pick, Selector::Name(_)));
        let mut at = 0;
        loop {
            if by_tag && !self.resolving[at] {
                at += 1;
                continue;
            }
            match self.places[at].roots(picks) {
                Ok(roots) => return Ok(roots),
                Err(error) => at = self.after(at, error)?,
            }
        }
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.first(0, |place| place.manifest(at)).map(|(_, bytes)| bytes)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let before = {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = begun.entry(blob.digest).or_default();
            std::mem::replace(begun, *begun + 1)
        };
        let (at, bytes) = self.first(before.min(self.places.len() - 1), |place| place.open(blob, from))?;
        Ok(Box::new(Relayed { store: self, blob: blob.clone(), at, read: from, bytes }))
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

    fn profile(&self) -> Profile {
        let parallel_reads = self.places.iter().map(RepositoryStore::parallel_reads).max().unwrap_or(1);
        Profile { parallel_reads, ..self.home().profile() }
    }
}

/// A blob's bytes, from one host after the other.
struct Relayed<'a> {
    store: &'a MirroredStore,
    blob: Descriptor,
    /// The host in hand.
    at: usize,
    /// Bytes from the blob's start that were read.
    read: u64,
    bytes: Box<dyn Read + Send + 'a>,
}

impl Read for Relayed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.bytes.read(buffer) {
                Ok(n) => {
                    self.read += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    let next = self.store.after(self.at, Error::from(error))?;
                    let store = self.store;
                    (self.at, self.bytes) = store.first(next, |place| place.open(&self.blob, self.read))?;
                }
            }
        }
    }
}
