//! A mirror: repositories of other registries, with their blobs in a cache. A tag is resolved upstream at each request.
//! Content by digest comes from the cache, a peer, or upstream, in this order.
//!
//! **Words.** The *mirror* is this server's backend over other registries; `--proxy HOST` names a registry that it
//! mirrors. An *upstream* is such a registry, and an *endpoint* is one host that serves it. A *peer* is a server that
//! `--peer` names; the program at the other end of a connection is the *client*. To *evict* is to remove blobs from the
//! cache to make room; to *prune* is to remove files that are older than their lifetime. A *reverse proxy* or an
//! *HTTP proxy* is named in full.
//!
//! - `repository` does slow upstream work (HEAD a tag, fetch a missing manifest) before it takes a memory permit;
//!   `single_flight` coalesces identical concurrent requests.
//! - `download` fills the cache: a thread of a small `pool` runs `transfer` into the layout's partial file. Clients
//!   read that file up to its written length; the last byte is held back until the digest is verified. So a download
//!   has the locks, checkpoints and resumption of any copy, and is independent of its clients.
//! - `cache` and `evict`: file times record the order of use, and a shared lock protects blobs that are being read. Two
//!   processes may share a cache.
//! - `upstreams` has two identities: content that upstream serves anonymously is in one layout, content that needed
//!   this server's credentials in another. An anonymous client reaches only the first.
//! - `peers` marks its requests with a header (`Imgmv-Peer`); a server responds to a marked request only from its own
//!   disk.
//!
//! Blobs are hard links into a pool next to the layouts: every tool can read a complete layout, and the link count
//! shows when space is free. When a tag moves, its old manifest stays available by digest, but is unlisted (the list is
//! limited to 8 MiB). `referrers` keeps the last list of an image's referrers under a tag, so that a signed image is
//! signed while upstream does not respond, and which of cosign's tags an image does not have.

pub(super) mod cache;
pub mod client_config;
pub(super) mod download;
pub(super) mod evict;
pub(super) mod peers;
pub(super) mod pool;
mod referrers;
pub(super) mod repository;
pub(super) mod single_flight;
pub(super) mod upstreams;

use super::access_log::{Metrics, add};
use super::backend::catalog::{Backend, Repository, RepositoryRequest};
use crate::cancel::Cancel;
use crate::error::{Kind, Result};
use crate::image::{DEFAULT_REGISTRY, Digest, Manifest, is_host, is_repository};
use crate::progress::Watch;
use cache::MirrorCache;
use download::OnEnd;
use peers::{Peer, Peers, RepositoryId};
use repository::MirroredRepository;
use single_flight::SingleFlight;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use upstreams::{Identity, Permits, Upstream};

/// The maximum number of remembered blobs whose bytes did not match their digest.
const MAX_MISMATCHES: usize = 256;
/// The maximum number of simultaneous manifest requests.
const MAX_MANIFEST_REQUESTS: usize = 8;
/// Other host names of docker.io.
const DOCKER_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// The clients that may read content for which this server used its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialSharing {
    /// Authenticated users of this server.
    Users,
    Everyone,
}

/// The functions of a server in addition to the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorMode {
    PullOnly,
    /// The server also accepts pushes: a name without a registry may be a pushed one. If upstream denies a request or
    /// does not respond, the content counts as not found.
    WithPushes,
}

/// The caches of a mirror.
pub struct Caches {
    /// Content that upstream serves anonymously.
    pub public: Arc<MirrorCache>,
    /// Content that needed credentials.
    pub private: Arc<MirrorCache>,
}

impl Caches {
    pub fn for_identity(&self, identity: Identity) -> &Arc<MirrorCache> {
        match identity {
            Identity::Anonymous => &self.public,
            Identity::Own => &self.private,
        }
    }
}

/// Other registries as a backend.
pub struct MirrorBackend(Arc<MirrorState>);

/// The state that all repositories of a mirror share.
pub(super) struct MirrorState {
    pub upstreams: Vec<Upstream>,
    pub caches: Option<Caches>,
    pub peers: Arc<Peers>,
    pub sharing: CredentialSharing,
    pub mode: MirrorMode,
    pub sizes: Mutex<HashMap<ContentKey, KnownSize>>,
    /// The number of digest mismatches of each blob; that many sources are skipped for its next download.
    pub mismatches: Mutex<HashMap<Digest, usize>>,
    pub size_lookups: SingleFlight<ContentKey, Option<u64>>,
    pub manifest_lookups: SingleFlight<ContentKey, Option<Arc<Manifest>>>,
    /// Held while what is known about a subject is changed.
    pub known_lists: Mutex<()>,
    /// Limits simultaneous manifest requests, since manifests may be large and are parsed in memory.
    pub manifest_permits: Arc<Permits>,
    pub metrics: Arc<Metrics>,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
}

/// Content by digest in a repository, for one identity.
pub(super) type ContentKey = (Identity, RepositoryId, Digest);

/// The size of a blob in bytes, as a peer or upstream reported it.
pub(super) struct KnownSize {
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
        (sharing, mode): (CredentialSharing, MirrorMode),
        metrics: Arc<Metrics>,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> MirrorBackend {
        MirrorBackend(Arc::new(MirrorState {
            upstreams,
            caches,
            peers,
            sharing,
            mode,
            sizes: Mutex::default(),
            mismatches: Mutex::default(),
            size_lookups: SingleFlight::default(),
            manifest_lookups: SingleFlight::default(),
            known_lists: Mutex::default(),
            manifest_permits: Permits::new(MAX_MANIFEST_REQUESTS),
            metrics,
            watch,
            cancel: cancel.clone(),
        }))
    }
}

impl MirrorState {
    /// The upstream and the repository that a request names; `None` if neither an upstream nor a peer can have it.
    fn resolve(&self, request: &RepositoryRequest) -> Option<(Option<usize>, RepositoryId)> {
        let upstream = |host: &str| self.upstreams.iter().position(|upstream| upstream.host() == host);
        let host = |text: &str| {
            let host = text.to_ascii_lowercase();
            if DOCKER_ALIASES.contains(&&*host) { DEFAULT_REGISTRY.to_owned() } else { host }
        };
        let (ns, name) = match (&request.ns, split_host(&request.name)) {
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
        let is_official = ns.as_deref() == Some(DEFAULT_REGISTRY) && !name.contains('/');
        let repository = if is_official { format!("library/{name}") } else { name.to_owned() };
        Some((at, RepositoryId { ns, repository }))
    }

    pub fn sizes(&self) -> MutexGuard<'_, HashMap<ContentKey, KnownSize>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mismatches(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.mismatches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the callback that evaluates the result of a download.
    pub fn on_download_end(self: &Arc<MirrorState>, key: ContentKey, size: u64) -> OnEnd {
        let state = self.clone();
        Box::new(move |result| {
            let digest = key.2;
            state.sizes().remove(&key);
            let Err(error) = result else {
                state.mismatches().remove(&digest);
                add(&state.metrics.downloaded, 1);
                add(&state.metrics.downloaded_bytes, size);
                return;
            };
            if error.kind() == Kind::Invalid {
                let mut mismatches = state.mismatches();
                if mismatches.len() >= MAX_MISMATCHES {
                    mismatches.clear();
                }
                *mismatches.entry(digest).or_default() += 1;
            }
            if error.kind() != Kind::Interrupted {
                state.watch.say(&format!("{}: {error}", key.1.repository));
            }
        })
    }
}

impl Backend for MirrorBackend {
    /// The repositories with tags in the public cache, with the upstream's host.
    fn repositories(&self) -> Result<Vec<String>> {
        let Some(caches) = &self.0.caches else { return Ok(Vec::new()) };
        let names = caches.public.names()?;
        let places = names.iter().filter_map(|name| Some(name.reference()?.full_repository()));
        let mirrored = places.filter(|place| self.0.upstreams.iter().any(|up| place.starts_with(up.host())));
        Ok(mirrored.filter(|place| is_repository(place)).collect::<BTreeSet<String>>().into_iter().collect())
    }

    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let Some((upstream, repository_id)) = self.0.resolve(request) else { return Ok(None) };
        let may_use_credentials = self.0.sharing == CredentialSharing::Everyone || request.user.is_some();
        let state = self.0.clone();
        let names_registry = request.ns.is_some() || split_host(&request.name).is_some();
        let hide_upstream_errors = state.mode == MirrorMode::WithPushes && !names_registry;
        Ok(Some(Arc::new(MirroredRepository {
            state,
            upstream,
            repository_id,
            may_use_credentials,
            hide_upstream_errors,
            search: request.search,
        })))
    }
}

/// Splits a repository name into its leading host and the rest, if it starts with a host.
fn split_host(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| first.contains('.') || *first == "localhost")
}
