//! A repository at several hosts: the mirrors in their order, then the registry itself. If a host fails in the middle
//! of a blob, the next host continues at the same byte. The bytes are hashed whichever host sent them.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Name};
use crate::parallel;
use crate::progress::Watch;
use crate::source::{Profile, ReferrerList, Root, Selector, Store, TagListing};
use crate::transport::registry::store::RepositoryStore;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The answers of the hosts of a repository to one question.
struct Answers<T> {
    /// The answers of the mirrors that have one.
    mirrors: Vec<T>,
    /// The answer of the registry itself.
    home: Result<T>,
}

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
    /// The registry itself, for what a copy can do without.
    brief: Option<RepositoryStore>,
    /// For each of `hosts`, the error with which it could not be reached for what belongs to an image.
    unreachable: Vec<OnceLock<Error>>,
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
        let hosts: Vec<RepositoryStore> = mirrors.into_iter().map(stand_in).chain([home]).collect();
        let unreachable = hosts.iter().map(|_| OnceLock::new()).collect();
        MirroredStore { hosts, trusts_tags, watch, cancel, opened: Mutex::default(), brief: None, unreachable }
    }

    /// This store, where `brief` asks the registry for what a copy can do without: it gives up soon, since mirrors are
    /// used where the registry cannot be reached.
    pub(in crate::transport::registry) fn with_brief_questions(self, brief: RepositoryStore) -> MirroredStore {
        MirroredStore { brief: Some(brief), ..self }
    }

    fn home(&self) -> &RepositoryStore {
        self.hosts.last().expect("the registry is always in the list")
    }

    /// The answers of the mirrors whose tags are trusted and of the registry, which are asked at the same time.
    ///
    /// # Errors
    /// `Interrupted`.
    fn ask_all<T: Send>(&self, ask: impl Fn(&RepositoryStore) -> Result<T> + Sync) -> Result<Answers<T>> {
        let home = self.brief.as_ref().unwrap_or(self.home());
        let hosts = self.hosts.iter().take(self.hosts.len() - 1).chain([home]);
        let asked: Vec<_> = hosts.zip(&self.unreachable).collect();
        let trusted = asked.into_iter().zip(&self.trusts_tags).filter(|(_, trusts_tags)| **trusts_tags);
        let trusted: Vec<_> = trusted.map(|(asked, _)| asked).collect();
        let mut answers = parallel::try_map(&trusted, trusted.len(), |(host, unreachable)| {
            self.cancel.check()?;
            match unreachable.get() {
                Some(error) => Ok(Err(error.clone())),
                None => match ask(host) {
                    Err(error) if error.kind() == Kind::Interrupted => Err(error),
                    // A copy can do without the answer, so `Failed` stands for no connection.
                    Err(error) if error.kind() == Kind::Network => {
                        Ok(Err(unreachable.get_or_init(|| Error::failed(error.to_string())).clone()))
                    }
                    answer => Ok(answer),
                },
            }
        })?;
        let home = answers.pop().unwrap_or_else(|| Err(Error::failed("the registry was not asked")));
        Ok(Answers { mirrors: answers.into_iter().flatten().collect(), home })
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

    /// As [`Self::first_success`], without the hosts whose tags are not trusted where the question is `by_tag`.
    fn first_trusted<T>(&self, by_tag: bool, ask: impl Fn(&RepositoryStore) -> Result<T>) -> Result<T> {
        let mut at = 0;
        loop {
            if by_tag && !self.trusts_tags[at] {
                at += 1;
                continue;
            }
            match ask(&self.hosts[at]) {
                Ok(success) => return Ok(success),
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
        self.first_trusted(by_tag, |host| host.roots(selectors))
    }

    fn resolve(&self, selector: &Selector) -> Result<Option<Descriptor>> {
        let by_tag = matches!(selector, Selector::Name(_));
        let found = |host: &RepositoryStore| {
            let missing = || Error::not_found(format!("{selector} does not exist at {}", host.host()));
            host.resolve(selector)?.ok_or_else(missing)
        };
        match self.first_trusted(by_tag, found) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
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

    fn visit_tags(&self, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<TagListing> {
        self.home().visit_tags(visit)
    }

    /// All that the mirrors or the registry list. Without an answer of the registry, the list is not complete.
    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        let Answers { mirrors, home } = self.ask_all(|host| host.referrers(subject))?;
        let mut list = home.unwrap_or_else(|error| {
            let host = self.home().host();
            let why = format!("{host} cannot be asked for more referrers of {subject} than its mirrors list: {error}");
            ReferrerList { entries: Vec::new(), incomplete: Some(why) }
        });
        // What a mirror cannot list is at the registry.
        mirrors.into_iter().for_each(|found| list.merge(ReferrerList { incomplete: None, ..found }));
        Ok(list)
    }

    /// The tags of the mirrors and of the registry; of a tag that both have, the registry's.
    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        let Answers { mirrors, home } = self.ask_all(|host| host.digest_tagged(subject))?;
        let mirrors: Vec<(String, Descriptor)> = mirrors.into_iter().flatten().collect();
        let mut tagged = match home {
            Err(error) if mirrors.is_empty() => return Err(error),
            Err(error) => {
                // The list of referrers names an unreachable host.
                if self.unreachable.last().is_none_or(|unreachable| unreachable.get().is_none()) {
                    let host = self.home().host();
                    self.watch.say(&format!("{host} cannot be asked for cosign's tags, only its mirrors: {error}"));
                }
                Vec::new()
            }
            Ok(tagged) => tagged,
        };
        for (tag, entry) in mirrors {
            if tagged.iter().all(|(known, _)| *known != tag) {
                tagged.push((tag, entry));
            }
        }
        Ok(tagged)
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
