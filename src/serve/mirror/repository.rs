//! One repository of a mirrored registry, with the permissions of one client: the search for tags, manifests and blobs,
//! and the fallback if upstream does not respond.

use super::cache::MirrorCache;
use super::download::OpenDirect;
use super::peers::{ContentKind, RepositoryId};
use super::upstreams::{Identity, Upstream};
use super::{ContentKey, KnownSize, MirrorState};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference, is_referrers_tag};
use crate::serve::access_log::add;
use crate::serve::backend::catalog::{Freshness, Prefetched, Repository, Search, TagOrDigest};
use crate::serve::backend::upstream::spawn_reader;
use crate::serve::backend::verified_reader::VerifiedReader;
use crate::source::{Selector, Store};
use crate::transport::registry::{MirroredStore, RepositoryStore};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of remembered blob sizes.
const MAX_SIZES: usize = 4096;
/// The time for which a blob's size is remembered, between its lookup and its download.
const SIZE_LIFETIME: Duration = Duration::from_secs(60);
/// The time to wait for a permit to fetch a manifest.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// One repository of an upstream, for one client.
pub(crate) struct MirroredRepository {
    pub state: Arc<MirrorState>,
    pub upstream: Option<usize>,
    pub repository_id: RepositoryId,
    /// The client may read content that needs this server's credentials.
    pub may_use_credentials: bool,
    /// If upstream denies a request or does not respond, the content counts as not found.
    pub hide_upstream_errors: bool,
    pub search: Search,
}

impl MirroredRepository {
    fn upstream(&self) -> Option<&Upstream> {
        self.upstream.map(|at| &self.state.upstreams[at])
    }

    fn identity(&self) -> Identity {
        match self.upstream() {
            Some(upstream) if self.may_use_credentials => upstream.identity(&self.repository_id.repository),
            _ => Identity::Anonymous,
        }
    }

    /// The caches that this client may read.
    fn caches(&self) -> impl Iterator<Item = &Arc<MirrorCache>> {
        let caches = self.state.caches.as_ref();
        let private = caches.filter(|_| self.may_use_credentials).map(|caches| &caches.private);
        caches.map(|caches| &caches.public).into_iter().chain(private)
    }

    /// The cache for new content from upstream.
    pub(super) fn cache(&self) -> Option<&Arc<MirrorCache>> {
        self.state.caches.as_ref().map(|caches| caches.for_identity(self.identity()))
    }

    fn key(&self, digest: &Digest) -> ContentKey {
        (self.identity(), self.repository_id.clone(), *digest)
    }

    pub(super) fn lookup_upstream<T>(
        &self,
        lookup: impl Fn(&RepositoryStore) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        match self.upstream() {
            Some(upstream) => upstream.lookup_in_order(self.identity(), &self.repository_id.repository, lookup),
            None => Ok(None),
        }
    }

    /// As [`Upstream::lookup_all`].
    pub(super) fn lookup_all<T>(
        &self,
        lookup: impl Fn(&RepositoryStore) -> Result<T>,
    ) -> Result<(Vec<T>, Option<Error>)> {
        match self.upstream() {
            Some(upstream) => upstream.lookup_all(self.identity(), &self.repository_id.repository, lookup),
            None => Ok((Vec::new(), None)),
        }
    }

    /// Returns `result`, or an empty result for a denial or network error if those count as not found.
    fn hide_errors<T: Default>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if self.hide_upstream_errors && matches!(error.kind(), Kind::Denied | Kind::Network) => {
                Ok(T::default())
            }
            result => result,
        }
    }

    pub(super) fn full_name(&self, tag: &str) -> Option<Name> {
        let (host, repository) = (self.upstream()?.host().to_owned(), self.repository_id.repository.clone());
        Some(Name::from(&Reference { host, repository, tag: Some(tag.to_owned()), digest: None }))
    }

    pub(super) fn cached(&self, digest: &Digest) -> Result<Option<Manifest>> {
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
        self.state.manifest_lookups.run(self.key(digest), || {
            if let Some(manifest) = self.cached(digest)? {
                return Ok(Some(Arc::new(manifest)));
            }
            let _permit = self.state.manifest_permits.acquire(PERMIT_TIMEOUT)?;
            let found = match self.peer_manifest(digest) {
                None => self.lookup_upstream(|store| fetch_manifest(store, digest))?,
                found => found,
            };
            if let (Some(cache), Some(manifest)) = (self.cache(), &found) {
                // The client gets the manifest even if the disk is full.
                self.warn_on_error(cache.put_manifest(manifest));
            }
            Ok(found.map(Arc::new))
        })
    }

    fn peer_manifest(&self, digest: &Digest) -> Option<Manifest> {
        let peers = &self.state.peers;
        let (peer, _) = peers.find(ContentKind::Manifest, digest, &self.repository_id)?;
        let found = fetch_manifest(&peers.store(&peer, &self.repository_id).ok()?, digest).ok()?;
        add(&self.state.metrics.peer_hits, found.is_some().into());
        found
    }

    /// Resolves `tag` upstream; falls back to the last known digest.
    fn resolve(&self, tag: &str) -> Result<Option<(Digest, Freshness)>> {
        let (Some(name), Some(cache)) = (self.full_name(tag), self.cache()) else { return Ok(None) };
        if self.search == Search::Local {
            return Ok(self.last_known_target(tag, &name)?.map(|digest| (digest, Freshness::LastKnown)));
        }
        let resolved = self.lookup_upstream(|store| store.resolve_tag(tag)).and_then(|found| match found {
            Some(found) => self.manifest_at(&found.digest),
            None => Ok(None),
        });
        match resolved {
            Ok(Some(manifest)) => {
                self.warn_on_error(cache.set_name(&name, &manifest));
                self.remember_digest_tag(tag, true);
                Ok(Some((manifest.digest(), Freshness::Current)))
            }
            // A list of referrers stays under its tag, which upstream does not need to have.
            Ok(None) if is_referrers_tag(tag) => Ok(None),
            Ok(None) => {
                self.warn_on_error(cache.forget(&name));
                self.remember_digest_tag(tag, false);
                Ok(None)
            }
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) => Err(error),
            Err(error) => self.resolve_without_upstream(tag, &name, error),
        }
    }

    /// The last known answer about `tag`, or `error` if there is none.
    fn resolve_without_upstream(&self, tag: &str, name: &Name, error: Error) -> Result<Option<(Digest, Freshness)>> {
        let known = self.last_known_target(tag, name)?;
        let served = match known {
            Some(_) => "serving the last known digest",
            None if self.is_known_missing(tag)? => "it did not exist when upstream answered last",
            None => return Err(error),
        };
        add(&self.state.metrics.stale_tags, 1);
        self.state.watch.say(&format!("{name}: cannot resolve the tag upstream; {served}: {error}"));
        Ok(known.map(|digest| (digest, Freshness::LastKnown)))
    }

    /// The last known digest of `name`, if its manifest is still stored.
    pub(super) fn last_known(&self, name: &Name) -> Result<Option<Digest>> {
        for cache in self.caches() {
            if let Some(last) = cache.last_known(name)?.filter(|last| cache.has(&last.digest)) {
                return Ok(Some(last.digest));
            }
        }
        Ok(None)
    }

    /// Reports an error of the cache; the current response does not depend on it.
    pub(super) fn warn_on_error(&self, result: Result<()>) {
        if let Err(error) = result {
            self.state.watch.say(&error.to_string());
        }
    }

    /// The size of a blob at the first peer or upstream that has it.
    fn lookup_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let key = self.key(digest);
        let fresh = |known_size: &&KnownSize| known_size.at.elapsed() < SIZE_LIFETIME;
        if let Some(known_size) = self.state.sizes().get(&key).filter(fresh) {
            return Ok(Some(known_size.size));
        }
        self.state.size_lookups.run(key.clone(), || {
            let had_mismatch = self.state.mismatches().contains_key(digest);
            let peer =
                if had_mismatch { None } else { self.state.peers.find(ContentKind::Blob, digest, &self.repository_id) };
            add(&self.state.metrics.peer_hits, peer.is_some().into());
            let (size, peer) = match peer {
                Some((peer, found)) => (Some(found.size), Some(peer)),
                None => (self.lookup_upstream(|store| store.blob_size(digest))?, None),
            };
            if let Some(size) = size {
                let mut sizes = self.state.sizes();
                if sizes.len() >= MAX_SIZES {
                    sizes.clear();
                }
                sizes.insert(key, KnownSize { size, peer, at: Instant::now() });
            }
            Ok(size)
        })
    }

    /// The sources of a blob's bytes: the peer that has it, then the hosts of the upstream.
    fn source(&self, digest: &Digest) -> Result<Arc<dyn Store>> {
        let peer = self.state.sizes().get(&self.key(digest)).and_then(|known_size| known_size.peer.clone());
        let mut stores = Vec::new();
        if let Some(peer) = peer {
            stores.push(self.state.peers.store(&peer, &self.repository_id)?);
        }
        stores.extend(
            self.upstream().into_iter().flat_map(|up| up.sources(self.identity(), &self.repository_id.repository)),
        );
        let skipped = self.state.mismatches().get(digest).copied().unwrap_or_default();
        stores.drain(..skipped.min(stores.len().saturating_sub(1)));
        let last = stores
            .pop()
            .ok_or_else(|| Error::not_found(format!("blob {digest} was not found upstream or at any peer")))?;
        let (watch, cancel) = (self.state.watch.clone(), self.state.cancel.clone());
        // The others are only used for content by digest.
        let stores = stores.into_iter().map(|store| (store, false)).collect();
        Ok(Arc::new(MirroredStore::new(last, stores, watch, cancel)))
    }
}

/// Fetches a manifest by digest, and verifies it; its media type is the one in the response.
fn fetch_manifest(store: &RepositoryStore, digest: &Digest) -> Result<Option<Manifest>> {
    let Some(root) = store.roots(&[Selector::Digest(*digest)])?.pop() else { return Ok(None) };
    root.read(store).map(Some)
}

impl Repository for MirroredRepository {
    fn tags(&self) -> Result<Vec<String>> {
        let known = || -> Result<Vec<String>> {
            let mut tags = Vec::new();
            for cache in self.caches() {
                let own = |reference: &Reference| {
                    self.upstream().is_some_and(|up| up.host() == reference.host)
                        && reference.repository == self.repository_id.repository
                };
                let names = cache.names()?;
                let own_tags = names.iter().filter_map(Name::reference).filter(own).filter_map(|found| found.tag);
                tags.extend(own_tags.filter(|tag| !is_referrers_tag(tag)));
            }
            Ok(tags)
        };
        if self.search == Search::Local {
            return known();
        }
        // A host may have an image without the tags that cosign made for it, so the list of one host is not complete.
        let (lists, error) = self.lookup_all(|store| store.names())?;
        let mut tags: BTreeSet<String> = lists.iter().flatten().filter_map(Name::tag).collect();
        match error.map_or(Ok(()), |error| self.hide_errors(Err(error))) {
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) && tags.is_empty() => Err(error),
            Err(error) => {
                tags.extend(known()?);
                if tags.is_empty() { Err(error) } else { Ok(tags.into_iter().collect()) }
            }
            Ok(()) => Ok(tags.into_iter().collect()),
        }
    }

    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>> {
        let digest = match at {
            TagOrDigest::Digest(digest) => *digest,
            TagOrDigest::Tag(tag) => match self.hide_errors(self.resolve(tag))? {
                Some((digest, _)) => digest,
                None => return Ok(None),
            },
        };
        Ok(self.hide_errors(self.manifest_at(&digest))?.map(Arc::unwrap_or_clone))
    }

    fn prefetch(&self, at: &TagOrDigest) -> Result<Prefetched> {
        let found = match at {
            TagOrDigest::Tag(tag) => self.hide_errors(self.resolve(tag))?,
            TagOrDigest::Digest(digest) if self.caches().any(|cache| cache.has(digest)) => {
                Some((*digest, Freshness::Current))
            }
            TagOrDigest::Digest(_) if self.state.caches.is_none() => return Ok(Prefetched::NotNeeded),
            TagOrDigest::Digest(digest) => {
                self.hide_errors(self.manifest_at(digest))?.map(|_| (*digest, Freshness::Current))
            }
        };
        Ok(found.map_or(Prefetched::NotFound, |(digest, freshness)| Prefetched::Found(digest, freshness)))
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
        match self.caches().find_map(|cache| cache.downloading_size(digest)) {
            Some(size) => Ok(Some(size)),
            None => self.hide_errors(self.lookup_size(digest)),
        }
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        for cache in self.caches() {
            if let Some(bytes) = cache.open(digest, size, from)? {
                add(&self.state.metrics.cache_hits, 1);
                return Ok(bytes);
            }
        }
        if self.search == Search::Local {
            return Err(Error::not_found(format!("blob {digest} was removed from the cache")));
        }
        let blob = Descriptor::new("", *digest, size);
        let Some(cache) = self.cache() else {
            let bytes = spawn_reader(self.source(digest)?, blob, 0)?;
            return Ok(Box::new(VerifiedReader::new(bytes, *digest, size, from)));
        };
        let direct = self.source(digest)?;
        let open_direct: OpenDirect = Box::new(move |from| spawn_reader(direct.clone(), blob.clone(), from));
        let key = self.key(digest);
        cache.fetch(
            (*digest, size),
            from,
            || Ok((self.source(digest)?, self.state.on_download_end(key, size))),
            open_direct,
        )
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.find_referrers(subject)
    }
}
