//! A mirror: repositories of other registries, with their blobs in a cache. A tag is resolved upstream at each request;
//! content by digest comes from the cache, from a peer, or from upstream, in this order.
//!
//! - `repository` does slow upstream work (HEAD a tag, fetch a missing manifest) before memory is promised;
//!   `single_flight` joins identical requests that run at the same time.
//! - `download` fills the cache: a thread of a small `pool` runs `transfer` into the layout's partial file, and clients
//!   read that file up to its written length, less one byte until the digest is known. So a download has the locks,
//!   checkpoints and resumption of any copy, and does not know its clients.
//! - `cache` and `evict`: files' times hold the order of use, and a shared lock keeps what is being read, so two
//!   processes may share a cache.
//! - `upstreams` has two identities: one layout for content that upstream gave anonymously, one for content that it
//!   gave to this server's credentials. A client without a user reaches only the first.
//! - `peers` sends a mark in the request's head (`Imgmv-Peer`); a server that sees the mark looks only on its own disk.
//!
//! Blobs are hard links into a pool beside the layouts: every tool can read a whole layout, and the link count says
//! when space is free. A tag that moves leaves its old manifest reachable by digest, but unlisted (the list is limited
//! to 8 MiB), unless that manifest has a subject: an unlisted referrer would not be found.

pub(super) mod cache;
pub mod client_config;
pub(super) mod download;
pub(super) mod evict;
pub(super) mod peers;
pub(super) mod pool;
pub(super) mod repository;
pub(super) mod single_flight;
pub(super) mod upstreams;

use super::access_log::{Metrics, count};
use super::backend::catalog::{Backend, Repository, Wanted};
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

/// Blobs that came wrong from somewhere.
const WRONG: usize = 256;
/// Manifests that are fetched at once.
const DOCUMENTS: usize = 8;
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
    pub fn of(&self, identity: Identity) -> &Arc<Cache> {
        match identity {
            Identity::Nobody => &self.public,
            Identity::Acquired => &self.private,
        }
    }
}

/// Other registries as a shelf.
pub struct MirrorBackend(Arc<Proxy>);

/// What its repositories share.
pub(super) struct Proxy {
    pub upstreams: Vec<Upstream>,
    pub caches: Option<Caches>,
    pub peers: Arc<Peers>,
    pub share: Share,
    pub beside: Beside,
    pub sizes: Mutex<HashMap<Key, Sized>>,
    /// How often each blob came wrong: then it is asked of the next source.
    pub wrong: Mutex<HashMap<Digest, usize>>,
    pub sizing: Once<Key, Option<u64>>,
    pub fetching: Once<Key, Option<Arc<Manifest>>>,
    /// Manifests may be large, and are held while they are looked into.
    pub documents: Arc<Seats>,
    pub figures: Arc<Metrics>,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
}

/// Something by digest, for whom, and where.
pub(super) type Key = (Identity, Spot, Digest);

/// A size in bytes that somebody said.
pub(super) struct Sized {
    pub size: u64,
    pub peer: Option<Arc<Peer>>,
    pub at: Instant,
}

impl MirrorBackend {
    /// A mirror of `upstreams`. Without `caches` there are only peers to ask, and nothing is kept.
    pub fn new(
        upstreams: Vec<Upstream>,
        caches: Option<Caches>,
        peers: Arc<Peers>,
        (share, beside): (Share, Beside),
        figures: Arc<Metrics>,
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

    pub fn sizes(&self) -> MutexGuard<'_, HashMap<Key, Sized>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wrong(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a fill's end teaches.
    pub fn ended(self: &Arc<Proxy>, key: Key, size: u64) -> Ended {
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

impl Backend for MirrorBackend {
    /// What anybody may have and was asked for, under the upstream's name.
    fn repositories(&self) -> Result<Vec<String>> {
        let Some(caches) = &self.0.caches else { return Ok(Vec::new()) };
        let names = caches.public.names()?;
        let places = names.iter().filter_map(|name| Some(name.reference()?.full_repository()));
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

/// The host that a repository's name begins with, if it does, and the rest.
fn host_and_rest(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| first.contains('.') || *first == "localhost")
}
