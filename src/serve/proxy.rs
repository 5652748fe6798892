//! A mirror: repositories of other registries, their blobs kept in a cache. Tags are asked upstream each time; what goes
//! by a digest comes from the cache, from a peer, or from upstream, in this order.
//!
//! What needed credentials lies in a cache of its own, which clients reach who may have it: users of this server, or
//! everybody where its owner said so. What lies in the other one was handed to nobody in particular.

use super::cache::Cache;
use super::catalog::{At, Known, Repository, Search, Settled, Shelf, Wanted};
use super::checked::Checked;
use super::fill::{Around, Ended};
use super::journal::{Figures, count};
use super::once::Once;
use super::peers::{Peer, Peers, Sought, Spot};
use super::upstream::pumped;
use super::upstreams::{Identity, Seats, Upstream};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{DEFAULT_REGISTRY, Descriptor, Digest, Manifest, Name, Reference, is_host, is_repository};
use crate::progress::Watch;
use crate::source::{Pick, Store};
use crate::transport::registry::{MirroredStore, RepositoryStore};
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Blobs whose sizes are remembered from the question to the answer, and how long.
const SIZES: usize = 4096;
const SIZE_LIFE: Duration = Duration::from_secs(60);
/// Blobs that came wrong from somewhere.
const WRONG: usize = 256;
/// Manifests that are fetched at once, and how long one waits for its turn.
const DOCUMENTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
/// Other names of docker's registry.
const DOCKER: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// Who may have what this server needs credentials for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Those who are logged in here.
    Users,
    Everybody,
}

/// What a server does beside being a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// It is pushed to: a name that names no registry may be one that is being pushed. What upstream refuses, or does not
    /// answer, is not there.
    Pushes,
}

/// What a mirror keeps.
pub struct Caches {
    /// What anybody may have.
    pub public: Arc<Cache>,
    /// What needed credentials.
    pub private: Arc<Cache>,
}

impl Caches {
    fn of(&self, identity: Identity) -> &Arc<Cache> {
        match identity {
            Identity::Nobody => &self.public,
            Identity::Ours => &self.private,
        }
    }
}

/// Other registries as a shelf.
pub struct ProxyShelf(Arc<Proxy>);

struct Proxy {
    upstreams: Vec<Upstream>,
    caches: Option<Caches>,
    peers: Arc<Peers>,
    share: Share,
    beside: Beside,
    sizes: Mutex<HashMap<Key, Sized>>,
    /// How often each blob came wrong: then it is asked of the next source.
    wrong: Mutex<HashMap<Digest, usize>>,
    sizing: Once<Key, Option<u64>>,
    fetching: Once<Key, Option<Arc<Manifest>>>,
    /// Manifests may be large, and are held while they are looked into.
    documents: Arc<Seats>,
    figures: Arc<Figures>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// Something by digest, for whom, and where.
type Key = (Identity, Spot, Digest);

/// A size in bytes that somebody said.
struct Sized {
    size: u64,
    peer: Option<Arc<Peer>>,
    at: Instant,
}

impl ProxyShelf {
    /// A mirror of `upstreams`. Without `caches` there are only peers to ask, and nothing is kept.
    pub fn new(
        upstreams: Vec<Upstream>,
        caches: Option<Caches>,
        peers: Arc<Peers>,
        (share, beside): (Share, Beside),
        figures: Arc<Figures>,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> ProxyShelf {
        ProxyShelf(Arc::new(Proxy {
            upstreams,
            caches,
            peers,
            share,
            beside,
            sizes: Mutex::default(),
            wrong: Mutex::default(),
            sizing: Once::default(),
            fetching: Once::default(),
            documents: Seats::new(DOCUMENTS),
            figures,
            watch,
            cancel: cancel.clone(),
        }))
    }
}

impl Proxy {
    /// The upstream and the repository there that `wanted` means; `None` where it means none of those that were named.
    fn meant(&self, wanted: &Wanted) -> Option<(Option<usize>, Spot)> {
        let upstream = |host: &str| self.upstreams.iter().position(|upstream| upstream.host() == host);
        let host = |text: &str| {
            let host = text.to_ascii_lowercase();
            if DOCKER.contains(&&*host) { DEFAULT_REGISTRY.to_owned() } else { host }
        };
        let (ns, name) = match (&wanted.ns, host_and_rest(&wanted.name)) {
            (Some(ns), _) if !is_host(ns) => return None,
            (Some(ns), _) => (Some(host(ns)), &*wanted.name),
            (None, Some((first, rest))) => (Some(host(first)), rest),
            // docker says nothing, and means its own.
            (None, None) => {
                let named = upstream(DEFAULT_REGISTRY).or((!self.upstreams.is_empty()).then_some(0));
                (named.map(|at| self.upstreams[at].host().to_owned()), &*wanted.name)
            }
        };
        let at = ns.as_deref().and_then(upstream);
        if at.is_none() && self.peers.is_empty() {
            return None;
        }
        let official = ns.as_deref() == Some(DEFAULT_REGISTRY) && !name.contains('/');
        let repository = if official { format!("library/{name}") } else { name.to_owned() };
        Some((at, Spot { ns, repository }))
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<Key, Sized>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a fill's end teaches.
    fn ended(self: &Arc<Proxy>, key: Key, size: u64) -> Ended {
        let own = self.clone();
        Box::new(move |ended| {
            let digest = key.2;
            own.sizes().remove(&key);
            let Err(error) = ended else {
                own.wrong().remove(&digest);
                count(&own.figures.fetched, 1);
                count(&own.figures.fetched_bytes, size);
                return;
            };
            if error.kind() == Kind::Invalid {
                let mut wrong = own.wrong();
                if wrong.len() >= WRONG {
                    wrong.clear();
                }
                *wrong.entry(digest).or_default() += 1;
            }
            if error.kind() != Kind::Interrupted {
                own.watch.say(&format!("{}: {error}", key.1.repository));
            }
        })
    }
}

impl Shelf for ProxyShelf {
    /// What anybody may have and was asked for, under the upstream's name.
    fn repositories(&self) -> Result<Vec<String>> {
        let Some(caches) = &self.0.caches else { return Ok(Vec::new()) };
        let names = caches.public.names()?;
        let places = names.iter().filter_map(|name| Some(name.reference()?.place()));
        let mirrored = places.filter(|place| self.0.upstreams.iter().any(|up| place.starts_with(up.host())));
        Ok(mirrored.filter(|place| is_repository(place)).collect::<BTreeSet<String>>().into_iter().collect())
    }

    fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>> {
        let Some((upstream, spot)) = self.0.meant(wanted) else { return Ok(None) };
        let trusted = self.0.share == Share::Everybody || wanted.user.is_some();
        let proxy = self.0.clone();
        let names_one = wanted.ns.is_some() || host_and_rest(&wanted.name).is_some();
        let modest = proxy.beside == Beside::Pushes && !names_one;
        Ok(Some(Arc::new(Mirrored { proxy, upstream, spot, trusted, modest, search: wanted.search })))
    }
}

/// One repository of an upstream, for one client.
struct Mirrored {
    proxy: Arc<Proxy>,
    upstream: Option<usize>,
    spot: Spot,
    /// This client may have what needs credentials.
    trusted: bool,
    /// What upstream refuses is not there.
    modest: bool,
    search: Search,
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
        let now = self.ask(|store| store.tagged(tag)).and_then(|found| match found {
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

/// The host that a repository's name begins with, if it does, and the rest.
fn host_and_rest(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| first.contains('.') || *first == "localhost")
}

/// A manifest by digest, checked; its type as it was announced.
fn fetched(store: &RepositoryStore, digest: &Digest) -> Result<Option<Manifest>> {
    let Some(root) = store.roots(&[Pick::Digest(*digest)])?.pop() else { return Ok(None) };
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
