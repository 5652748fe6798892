//! One repository of a mirrored registry, with the permissions of one client: the search for tags, manifests and blobs,
//! and the fallback if upstream does not answer.

use super::cache::Cache;
use super::download::Around;
use super::peers::{Sought, Spot};
use super::upstreams::{Identity, Upstream};
use super::{Key, Proxy, Sized};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference};
use crate::serve::access_log::add;
use crate::serve::backend::catalog::{Freshness, Prefetched, Repository, Search, TagOrDigest};
use crate::serve::backend::upstream::pumped;
use crate::serve::backend::verified_reader::Checked;
use crate::source::{Selector, Store};
use crate::transport::registry::{MirroredStore, RepositoryStore};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of remembered blob sizes.
const SIZES: usize = 4096;
/// The time for which a blob's size is remembered, between its lookup and its download.
const SIZE_LIFE: Duration = Duration::from_secs(60);
/// The time to wait for a permit to fetch a manifest.
const PATIENCE: Duration = Duration::from_secs(10);

/// One repository of an upstream, for one client.
pub(crate) struct Mirrored {
    pub proxy: Arc<Proxy>,
    pub upstream: Option<usize>,
    pub spot: Spot,
    /// The client may read content that needs this server's credentials.
    pub trusted: bool,
    /// If upstream denies a request or does not answer, the content counts as not found.
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

    /// The caches that this client may read.
    fn caches(&self) -> impl Iterator<Item = &Arc<Cache>> {
        let caches = self.proxy.caches.as_ref();
        let private = caches.filter(|_| self.trusted).map(|caches| &caches.private);
        caches.map(|caches| &caches.public).into_iter().chain(private)
    }

    /// The cache for new content from upstream.
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

    /// Returns `told`, or an empty result for a denial or network error if those count as not found.
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

    /// Returns the manifest `digest` from the cache, a peer or upstream. Stores it in the cache, if one exists.
    fn manifest_at(&self, digest: &Digest) -> Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.cached(digest)? {
            return Ok(Some(Arc::new(manifest)));
        }
        if self.search == Search::Local {
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
                // The client gets the manifest even if the disk is full.
                self.told(cache.keep(manifest));
            }
            Ok(found.map(Arc::new))
        })
    }

    fn manifest_of_a_peer(&self, digest: &Digest) -> Option<Manifest> {
        let peers = &self.proxy.peers;
        let (peer, _) = peers.find(Sought::Manifest, digest, &self.spot)?;
        let found = fetched(&peers.store(&peer, &self.spot).ok()?, digest).ok()?;
        add(&self.proxy.metrics.peer_hits, found.is_some().into());
        found
    }

    /// Resolves `tag` upstream; falls back to the last known digest.
    fn resolve(&self, tag: &str) -> Result<Option<(Digest, Freshness)>> {
        let (Some(name), Some(cache)) = (self.name(tag), self.cache()) else { return Ok(None) };
        if self.search == Search::Local {
            return Ok(self.last(&name)?.map(|digest| (digest, Freshness::LastKnown)));
        }
        let now = self.ask(|store| store.tagged(tag)).and_then(|found| match found {
            Some(found) => self.manifest_at(&found.digest),
            None => Ok(None),
        });
        match now {
            Ok(Some(manifest)) => {
                self.told(cache.name(&name, &manifest));
                Ok(Some((manifest.digest(), Freshness::Current)))
            }
            Ok(None) => {
                self.told(cache.forget(&name));
                Ok(None)
            }
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) => Err(error),
            Err(error) => match self.last(&name)? {
                Some(digest) => {
                    add(&self.proxy.metrics.stale_tags, 1);
                    self.proxy.watch.say(&format!(
                        "{name}: cannot resolve the tag upstream; serving the last known digest: {error}"
                    ));
                    Ok(Some((digest, Freshness::LastKnown)))
                }
                None => Err(error),
            },
        }
    }

    /// The last known digest of `name`, if its manifest is still stored.
    fn last(&self, name: &Name) -> Result<Option<Digest>> {
        for cache in self.caches() {
            if let Some(last) = cache.last(name)?.filter(|last| cache.has(&last.digest)) {
                return Ok(Some(last.digest));
            }
        }
        Ok(None)
    }

    /// Reports an error of the cache; the current response does not depend on it.
    fn told(&self, done: Result<()>) {
        if let Err(error) = done {
            self.proxy.watch.say(&error.to_string());
        }
    }

    /// The size of a blob at the first peer or upstream that has it.
    fn size_elsewhere(&self, digest: &Digest) -> Result<Option<u64>> {
        let key = self.key(digest);
        let fresh = |sized: &&Sized| sized.at.elapsed() < SIZE_LIFE;
        if let Some(sized) = self.proxy.sizes().get(&key).filter(fresh) {
            return Ok(Some(sized.size));
        }
        self.proxy.sizing.ask(key.clone(), || {
            let distrusted = self.proxy.wrong().contains_key(digest);
            let peer = if distrusted { None } else { self.proxy.peers.find(Sought::Blob, digest, &self.spot) };
            add(&self.proxy.metrics.peer_hits, peer.is_some().into());
            let (size, peer) = match peer {
                Some((peer, found)) => (Some(found.size), Some(peer)),
                None => (self.ask(|store| store.blob_at(digest))?, None),
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

    /// The sources of a blob's bytes: the peer that has it, then the hosts of the upstream.
    fn source(&self, digest: &Digest) -> Result<Arc<dyn Store>> {
        let peer = self.proxy.sizes().get(&self.key(digest)).and_then(|sized| sized.peer.clone());
        let mut stores = Vec::new();
        if let Some(peer) = peer {
            stores.push(self.proxy.peers.store(&peer, &self.spot)?);
        }
        stores.extend(self.upstream().into_iter().flat_map(|up| up.sources(self.identity(), &self.spot.repository)));
        let passed = self.proxy.wrong().get(digest).copied().unwrap_or_default();
        stores.drain(..passed.min(stores.len().saturating_sub(1)));
        let home = stores
            .pop()
            .ok_or_else(|| Error::not_found(format!("blob {digest} was not found upstream or at any peer")))?;
        let (watch, cancel) = (self.proxy.watch.clone(), self.proxy.cancel.clone());
        // The others are only used for content by digest.
        let stores = stores.into_iter().map(|store| (store, false)).collect();
        Ok(Arc::new(MirroredStore::new(home, stores, watch, cancel)))
    }
}

/// Fetches a manifest by digest, and verifies it; its media type is the one in the response.
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
        if self.search == Search::Local {
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

    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>> {
        let digest = match at {
            TagOrDigest::Digest(digest) => *digest,
            TagOrDigest::Tag(tag) => match self.modestly(self.resolve(tag))? {
                Some((digest, _)) => digest,
                None => return Ok(None),
            },
        };
        Ok(self.modestly(self.manifest_at(&digest))?.map(Arc::unwrap_or_clone))
    }

    fn prefetch(&self, at: &TagOrDigest) -> Result<Prefetched> {
        let found = match at {
            TagOrDigest::Tag(tag) => self.modestly(self.resolve(tag))?,
            TagOrDigest::Digest(digest) if self.caches().any(|cache| cache.has(digest)) => {
                Some((*digest, Freshness::Current))
            }
            TagOrDigest::Digest(_) if self.proxy.caches.is_none() => return Ok(Prefetched::NotNeeded),
            TagOrDigest::Digest(digest) => {
                self.modestly(self.manifest_at(digest))?.map(|_| (*digest, Freshness::Current))
            }
        };
        Ok(found.map_or(Prefetched::NotFound, |(digest, known)| Prefetched::Found(digest, known)))
    }

    fn manifest_size(&self, at: &TagOrDigest) -> Result<Option<u64>> {
        match at {
            TagOrDigest::Tag(_) => Ok(None),
            TagOrDigest::Digest(digest) => Ok(self.caches().find_map(|cache| cache.blob(digest).ok().flatten())),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        for cache in self.caches() {
            if let Some(size) = cache.blob(digest)? {
                return Ok(Some(size));
            }
        }
        if self.search == Search::Local {
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
                add(&self.proxy.metrics.cache_hits, 1);
                return Ok(bytes);
            }
        }
        if self.search == Search::Local {
            return Err(Error::not_found(format!("blob {digest} was removed from the cache")));
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
        if self.search == Search::Local {
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
