//! One repository of a mirrored registry, as one client may see it: where a tag, a manifest and a blob are looked for, and
//! what is given when nobody answers.

use super::cache::Cache;
use super::download::Around;
use super::peers::{Sought, Spot};
use super::upstreams::{Identity, Upstream};
use super::{Key, Proxy, Sized};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference};
use crate::serve::access_log::count;
use crate::serve::backend::catalog::{At, Known, Repository, Search, Settled};
use crate::serve::backend::upstream::pumped;
use crate::serve::backend::verified_reader::Checked;
use crate::source::{Selector, Store};
use crate::transport::registry::{MirroredStore, RepositoryStore};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Blobs whose sizes are remembered from the question to the answer, and how long.
const SIZES: usize = 4096;
const SIZE_LIFE: Duration = Duration::from_secs(60);
/// For a turn to fetch a manifest.
const PATIENCE: Duration = Duration::from_secs(10);

/// One repository of an upstream, for one client.
pub(crate) struct Mirrored {
    pub proxy: Arc<Proxy>,
    pub upstream: Option<usize>,
    pub spot: Spot,
    /// This client may have what needs credentials.
    pub trusted: bool,
    /// What upstream refuses is not there.
    pub modest: bool,
    pub search: Search,
}

impl Mirrored {
    fn upstream(&self) -> Option<&Upstream> {
        self.upstream.map(|at| &self.proxy.upstreams[at])
    }

    fn identity(&self) -> Identity {
        match self.upstream() {
            Some(upstream) if self.trusted => upstream.identity(&self.spot.repository),
            _ => Identity::Nobody,
        }
    }

    /// The caches that this client may have from.
    fn caches(&self) -> impl Iterator<Item = &Arc<Cache>> {
        let caches = self.proxy.caches.as_ref();
        let private = caches.filter(|_| self.trusted).map(|caches| &caches.private);
        caches.map(|caches| &caches.public).into_iter().chain(private)
    }

    /// The cache for what comes from upstream.
    fn cache(&self) -> Option<&Arc<Cache>> {
        self.proxy.caches.as_ref().map(|caches| caches.of(self.identity()))
    }

    fn key(&self, digest: &Digest) -> Key {
        (self.identity(), self.spot.clone(), *digest)
    }

    fn ask<T>(&self, question: impl Fn(&RepositoryStore) -> Result<Option<T>>) -> Result<Option<T>> {
        match self.upstream() {
            Some(upstream) => upstream.ask(self.identity(), &self.spot.repository, question),
            None => Ok(None),
        }
    }

    /// `told`, or nothing where upstream refuses or does not answer and that says nothing.
    fn modestly<T: Default>(&self, told: Result<T>) -> Result<T> {
        match told {
            Err(error) if self.modest && matches!(error.kind(), Kind::Denied | Kind::Network) => Ok(T::default()),
            told => told,
        }
    }

    fn name(&self, tag: &str) -> Option<Name> {
        let (host, repository) = (self.upstream()?.host().to_owned(), self.spot.repository.clone());
        Some(Name::from(&Reference { host, repository, tag: Some(tag.to_owned()), digest: None }))
    }

    fn cached(&self, digest: &Digest) -> Result<Option<Manifest>> {
        for cache in self.caches() {
            if let Some(manifest) = cache.manifest(digest)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// The manifest under `digest`, wherever it is. Where there is a cache, it is in there then.
    fn manifest_at(&self, digest: &Digest) -> Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.cached(digest)? {
            return Ok(Some(Arc::new(manifest)));
        }
        if self.search == Search::Here {
            return Ok(None);
        }
        self.proxy.fetching.ask(self.key(digest), || {
            if let Some(manifest) = self.cached(digest)? {
                return Ok(Some(Arc::new(manifest)));
            }
            let _seat = self.proxy.documents.take(PATIENCE)?;
            let found = match self.manifest_of_a_peer(digest) {
                None => self.ask(|store| fetched(store, digest))?,
                found => found,
            };
            if let (Some(cache), Some(manifest)) = (self.cache(), &found) {
                // A full disk is no reason to give nothing.
                self.told(cache.keep(manifest));
            }
            Ok(found.map(Arc::new))
        })
    }

    fn manifest_of_a_peer(&self, digest: &Digest) -> Option<Manifest> {
        let peers = &self.proxy.peers;
        let (peer, _) = peers.find(Sought::Manifest, digest, &self.spot)?;
        let found = fetched(&peers.store(&peer, &self.spot).ok()?, digest).ok()?;
        count(&self.proxy.figures.found_at_peers, found.is_some().into());
        found
    }

    /// What `tag` points at now, or did when upstream was asked last.
    fn resolve(&self, tag: &str) -> Result<Option<(Digest, Known)>> {
        let (Some(name), Some(cache)) = (self.name(tag), self.cache()) else { return Ok(None) };
        if self.search == Search::Here {
            return Ok(self.last(&name)?.map(|digest| (digest, Known::Last)));
        }
        let now = self.ask(|store| store.resolve_tag(tag)).and_then(|found| match found {
            Some(found) => self.manifest_at(&found.digest),
            None => Ok(None),
        });
        match now {
            Ok(Some(manifest)) => {
                self.told(cache.name(&name, &manifest));
                Ok(Some((manifest.digest(), Known::Now)))
            }
            Ok(None) => {
                self.told(cache.forget(&name));
                Ok(None)
            }
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) => Err(error),
            Err(error) => match self.last(&name)? {
                Some(digest) => {
                    count(&self.proxy.figures.last_known, 1);
                    self.proxy.watch.say(&format!("{name} is answered as it was known last: {error}"));
                    Ok(Some((digest, Known::Last)))
                }
                None => Err(error),
            },
        }
    }

    /// What `name` was last, if that is still here.
    fn last(&self, name: &Name) -> Result<Option<Digest>> {
        for cache in self.caches() {
            if let Some(last) = cache.last(name)?.filter(|last| cache.has(&last.digest)) {
                return Ok(Some(last.digest));
            }
        }
        Ok(None)
    }

    /// What goes wrong in the cache costs an answer at another time, and not this one.
    fn told(&self, done: Result<()>) {
        if let Err(error) = done {
            self.proxy.watch.say(&error.to_string());
        }
    }

    /// How large the blob is, by the first who has it.
    fn size_elsewhere(&self, digest: &Digest) -> Result<Option<u64>> {
        let key = self.key(digest);
        let fresh = |sized: &&Sized| sized.at.elapsed() < SIZE_LIFE;
        if let Some(sized) = self.proxy.sizes().get(&key).filter(fresh) {
            return Ok(Some(sized.size));
        }
        self.proxy.sizing.ask(key.clone(), || {
            let distrusted = self.proxy.wrong().contains_key(digest);
            let peer = if distrusted { None } else { self.proxy.peers.find(Sought::Blob, digest, &self.spot) };
            count(&self.proxy.figures.found_at_peers, peer.is_some().into());
            let (size, peer) = match peer {
                Some((peer, found)) => (Some(found.size), Some(peer)),
                None => (self.ask(|store| store.blob_size(digest))?, None),
            };
            if let Some(size) = size {
                let mut sizes = self.proxy.sizes();
                if sizes.len() >= SIZES {
                    sizes.clear();
                }
                sizes.insert(key, Sized { size, peer, at: Instant::now() });
            }
            Ok(size)
        })
    }

    /// Everybody who is to be asked for a blob's bytes, in their order.
    fn source(&self, digest: &Digest) -> Result<Arc<dyn Store>> {
        let peer = self.proxy.sizes().get(&self.key(digest)).and_then(|sized| sized.peer.clone());
        let mut stores = Vec::new();
        if let Some(peer) = peer {
            stores.push(self.proxy.peers.store(&peer, &self.spot)?);
        }
        stores.extend(self.upstream().into_iter().flat_map(|up| up.sources(self.identity(), &self.spot.repository)));
        let passed = self.proxy.wrong().get(digest).copied().unwrap_or_default();
        stores.drain(..passed.min(stores.len().saturating_sub(1)));
        let home = stores.pop().ok_or_else(|| Error::not_found(format!("nobody is known who has blob {digest}")))?;
        let (watch, cancel) = (self.proxy.watch.clone(), self.proxy.cancel.clone());
        // Only bytes that are known by their digest are asked of them.
        let stores = stores.into_iter().map(|store| (store, false)).collect();
        Ok(Arc::new(MirroredStore::new(home, stores, watch, cancel)))
    }
}

/// A manifest by digest, checked; its type as it was announced.
fn fetched(store: &RepositoryStore, digest: &Digest) -> Result<Option<Manifest>> {
    let Some(root) = store.roots(&[Selector::Digest(*digest)])?.pop() else { return Ok(None) };
    Manifest::parse(store.manifest(&root.descriptor)?, &root.descriptor).map(Some)
}

impl Repository for Mirrored {
    fn tags(&self) -> Result<Vec<String>> {
        let known = || -> Result<Vec<String>> {
            let mut tags = Vec::new();
            for cache in self.caches() {
                let own = |reference: &Reference| {
                    self.upstream().is_some_and(|up| up.host() == reference.host)
                        && reference.repository == self.spot.repository
                };
                let names = cache.names()?;
                tags.extend(names.iter().filter_map(Name::reference).filter(own).filter_map(|found| found.tag));
            }
            Ok(tags)
        };
        if self.search == Search::Here {
            return known();
        }
        match self.modestly(self.ask(|store| store.names().map(Some))) {
            Ok(names) => Ok(names.unwrap_or_default().iter().filter_map(Name::tag).collect()),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) => Err(error),
            Err(error) => match known()? {
                tags if tags.is_empty() => Err(error),
                tags => Ok(tags),
            },
        }
    }

    fn manifest(&self, at: &At) -> Result<Option<Manifest>> {
        let digest = match at {
            At::Digest(digest) => *digest,
            At::Tag(tag) => match self.modestly(self.resolve(tag))? {
                Some((digest, _)) => digest,
                None => return Ok(None),
            },
        };
        Ok(self.modestly(self.manifest_at(&digest))?.map(Arc::unwrap_or_clone))
    }

    fn settle(&self, at: &At) -> Result<Settled> {
        let found = match at {
            At::Tag(tag) => self.modestly(self.resolve(tag))?,
            At::Digest(digest) if self.caches().any(|cache| cache.has(digest)) => Some((*digest, Known::Now)),
            At::Digest(_) if self.proxy.caches.is_none() => return Ok(Settled::Here),
            At::Digest(digest) => self.modestly(self.manifest_at(digest))?.map(|_| (*digest, Known::Now)),
        };
        Ok(found.map_or(Settled::Nowhere, |(digest, known)| Settled::At(digest, known)))
    }

    fn weight(&self, at: &At) -> Result<Option<u64>> {
        match at {
            At::Tag(_) => Ok(None),
            At::Digest(digest) => Ok(self.caches().find_map(|cache| cache.blob(digest).ok().flatten())),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        for cache in self.caches() {
            if let Some(size) = cache.blob(digest)? {
                return Ok(Some(size));
            }
        }
        if self.search == Search::Here {
            return Ok(None);
        }
        match self.caches().find_map(|cache| cache.coming(digest)) {
            Some(size) => Ok(Some(size)),
            None => self.modestly(self.size_elsewhere(digest)),
        }
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        for cache in self.caches() {
            if let Some(bytes) = cache.open(digest, size, from)? {
                count(&self.proxy.figures.had, 1);
                return Ok(bytes);
            }
        }
        if self.search == Search::Here {
            return Err(Error::not_found(format!("blob {digest} is not here any more")));
        }
        let blob = Descriptor::new("", *digest, size);
        let Some(cache) = self.cache() else {
            let bytes = pumped(self.source(digest)?, blob, 0)?;
            return Ok(Box::new(Checked::new(bytes, *digest, size, from)));
        };
        let beside = self.source(digest)?;
        let around: Around = Box::new(move |from| pumped(beside.clone(), blob.clone(), from));
        let key = self.key(digest);
        cache.fetch((*digest, size), from, || Ok((self.source(digest)?, self.proxy.ended(key, size))), around)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        if self.search == Search::Here {
            return Ok(Vec::new());
        }
        match self.modestly(self.ask(|store| store.referrers(subject).map(Some))) {
            Ok(found) => Ok(found.unwrap_or_default()),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) => Err(error),
            Err(error) => {
                let mut known = Vec::new();
                for cache in self.caches() {
                    known.extend(cache.referrers(subject)?);
                }
                if known.is_empty() { Err(error) } else { Ok(known) }
            }
        }
    }
}
