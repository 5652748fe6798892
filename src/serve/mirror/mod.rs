//! A mirror: repositories of other registries, with their blobs in a cache. A tag is resolved upstream at each request.
//! Content by digest comes from the cache, a peer, or upstream, in this order.
//!
//! - `repository` does slow upstream work (HEAD a tag, fetch a missing manifest) before it takes a memory permit;
//!   `single_flight` coalesces identical concurrent requests.
//! - `download` fills the cache: a thread of a small `pool` runs `transfer` into the layout's partial file. Clients
//!   read that file up to its written length, less one byte until the digest is verified. So a download has the locks,
//!   checkpoints and resumption of any copy, and is independent of its clients.
//! - `cache` and `evict`: file times record the order of use, and a shared lock protects blobs that are being read, so
//!   two processes may share a cache.
//! - `upstreams` has two identities: content that upstream serves anonymously is in one layout, content that needed
//!   this server's credentials in another. An anonymous client reaches only the first.
//! - `peers` marks its requests with a header (`Imgmv-Peer`); a server answers a marked request only from its own disk.
//!
//! Blobs are hard links into a pool next to the layouts: every tool can read a complete layout, and the link count
//! shows when space is free. When a tag moves, its old manifest stays available by digest, but is unlisted (the list is
//! limited to 8 MiB). A manifest with a subject stays listed: an unlisted referrer would not be found.

pub(super) mod cache;
pub mod client_config;
pub(super) mod download;
pub(super) mod evict;
pub(super) mod peers;
pub(super) mod pool;
pub(super) mod repository;
pub(super) mod single_flight;
pub(super) mod upstreams;

use super::access_log::{Metrics, add};
use super::backend::catalog::{Backend, Repository, RepositoryRequest};
use crate::cancel::Cancel;
use crate::error::{Kind, Result};
use crate::image::{DEFAULT_REGISTRY, Digest, Manifest, is_host, is_repository};
use crate::progress::Watch;
use cache::Cache;
use download::Ended;
use peers::{Peer, Peers, Spot};
use repository::Mirrored;
use single_flight::Once;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use upstreams::{Identity, Seats, Upstream};

/// The maximum number of remembered blobs whose bytes did not match their digest.
const WRONG: usize = 256;
/// The maximum number of simultaneous manifest requests.
const DOCUMENTS: usize = 8;
/// Other host names of docker.io.
const DOCKER: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// The clients that may read content for which this server used its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Authenticated users of this server.
    Users,
    Everybody,
}

/// The functions of a server in addition to the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// The server also accepts pushes: a name without a registry may be a pushed one. If upstream denies a request or
    /// does not answer, the content counts as not found.
    Pushes,
}

/// The caches of a mirror.
pub struct Caches {
    /// Content that upstream serves anonymously.
    pub public: Arc<Cache>,
    /// Content that needed credentials.
    pub private: Arc<Cache>,
}

impl Caches {
    pub fn of(&self, identity: Identity) -> &Arc<Cache> {
        match identity {
            Identity::Nobody => &self.public,
            Identity::Acquired => &self.private,
        }
    }
}

/// Other registries as a backend.
pub struct MirrorBackend(Arc<Proxy>);

/// The state that all repositories of a mirror share.
pub(super) struct Proxy {
    pub upstreams: Vec<Upstream>,
    pub caches: Option<Caches>,
    pub peers: Arc<Peers>,
    pub share: Share,
    pub beside: Beside,
    pub sizes: Mutex<HashMap<Key, Sized>>,
    /// The number of digest mismatches of each blob; that many sources are skipped for its next download.
    pub wrong: Mutex<HashMap<Digest, usize>>,
    pub sizing: Once<Key, Option<u64>>,
    pub fetching: Once<Key, Option<Arc<Manifest>>>,
    /// Limits simultaneous manifest requests, since manifests may be large and are parsed in memory.
    pub documents: Arc<Seats>,
    pub metrics: Arc<Metrics>,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
}

/// Content by digest in a repository, for one identity.
pub(super) type Key = (Identity, Spot, Digest);

/// The size of a blob in bytes, as a peer or upstream reported it.
pub(super) struct Sized {
    pub size: u64,
    pub peer: Option<Arc<Peer>>,
    pub at: Instant,
}

impl MirrorBackend {
    /// Creates a mirror of `upstreams`. Without `caches` it only forwards to peers, and stores nothing.
    pub fn new(
        upstreams: Vec<Upstream>,
        caches: Option<Caches>,
        peers: Arc<Peers>,
        (share, beside): (Share, Beside),
        metrics: Arc<Metrics>,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> MirrorBackend {
        MirrorBackend(Arc::new(Proxy {
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
            metrics,
            watch,
            cancel: cancel.clone(),
        }))
    }
}

impl Proxy {
    /// The upstream and the repository that a request names; `None` if neither an upstream nor a peer can have it.
    fn meant(&self, request: &RepositoryRequest) -> Option<(Option<usize>, Spot)> {
        let upstream = |host: &str| self.upstreams.iter().position(|upstream| upstream.host() == host);
        let host = |text: &str| {
            let host = text.to_ascii_lowercase();
            if DOCKER.contains(&&*host) { DEFAULT_REGISTRY.to_owned() } else { host }
        };
        let (ns, name) = match (&request.ns, host_and_rest(&request.name)) {
            (Some(ns), _) if !is_host(ns) => return None,
            (Some(ns), _) => (Some(host(ns)), &*request.name),
            (None, Some((first, rest))) => (Some(host(first)), rest),
            // docker sends no registry name when it means docker.io.
            (None, None) => {
                let named = upstream(DEFAULT_REGISTRY).or((!self.upstreams.is_empty()).then_some(0));
                (named.map(|at| self.upstreams[at].host().to_owned()), &*request.name)
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

    pub fn sizes(&self) -> MutexGuard<'_, HashMap<Key, Sized>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wrong(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the callback that evaluates the result of a download.
    pub fn ended(self: &Arc<Proxy>, key: Key, size: u64) -> Ended {
        let own = self.clone();
        Box::new(move |ended| {
            let digest = key.2;
            own.sizes().remove(&key);
            let Err(error) = ended else {
                own.wrong().remove(&digest);
                add(&own.metrics.downloaded, 1);
                add(&own.metrics.downloaded_bytes, size);
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

impl Backend for MirrorBackend {
    /// The repositories with tags in the public cache, with the upstream's host.
    fn repositories(&self) -> Result<Vec<String>> {
        let Some(caches) = &self.0.caches else { return Ok(Vec::new()) };
        let names = caches.public.names()?;
        let places = names.iter().filter_map(|name| Some(name.reference()?.place()));
        let mirrored = places.filter(|place| self.0.upstreams.iter().any(|up| place.starts_with(up.host())));
        Ok(mirrored.filter(|place| is_repository(place)).collect::<BTreeSet<String>>().into_iter().collect())
    }

    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let Some((upstream, spot)) = self.0.meant(request) else { return Ok(None) };
        let trusted = self.0.share == Share::Everybody || request.user.is_some();
        let proxy = self.0.clone();
        let names_one = request.ns.is_some() || host_and_rest(&request.name).is_some();
        let modest = proxy.beside == Beside::Pushes && !names_one;
        Ok(Some(Arc::new(Mirrored { proxy, upstream, spot, trusted, modest, search: request.search })))
    }
}

/// Splits a repository name into its leading host and the rest, if it starts with a host.
fn host_and_rest(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| first.contains('.') || *first == "localhost")
}
