//! Peers: other servers of this kind that may have missing content. Requests to them are by digest only, in parallel
//! and with short timeouts, and a peer does not forward them. A peer may be this server itself.

use super::upstreams::{COOLDOWN_PAUSE, Cooldown, Permits};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest};
use crate::progress::Watch;
use crate::serve::http::request::PEER;
use crate::transport::registry::mirrors;
use crate::transport::registry::mirrors::MirrorServer;
use crate::transport::registry::{Access, Credentials, Insecure, Registry, RepositoryStore};
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// The interval between two DNS lookups of the peers.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);
/// The maximum number of peer addresses.
const MAX_PEERS: usize = 256;
/// The number of peers that are queried in parallel for one digest.
const MAX_PARALLEL_QUERIES: usize = 8;
/// The maximum number of simultaneous queries to peers; above it, a lookup continues without peers.
const MAX_QUERIES: usize = 64;
/// If a peer sends no bytes for this time, the next source is used.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The buffer of a connection to a peer.
const BUFFER_BYTES: usize = 64 << 10;
/// The maximum number of open registries (`?ns=`) for each peer.
const MAX_REGISTRIES: usize = 64;

/// The kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentKind {
    Manifest,
    Blob,
}

/// A repository, as requests to peers name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryId {
    /// The registry (`?ns=`), if the request names one.
    pub ns: Option<String>,
    pub repository: String,
}

/// The peers of a mirror.
pub struct Peers {
    urls: Vec<MirrorServer>,
    /// The time in which a response must start.
    timeout: Duration,
    access: Access,
    known: Mutex<Vec<Arc<Peer>>>,
    resolved_at: Mutex<Instant>,
    resolving: AtomicBool,
    permits: Arc<Permits>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One peer address.
pub struct Peer {
    host: String,
    insecure: bool,
    cooldown: Cooldown,
    registries: Mutex<HashMap<Option<String>, Arc<Registry>>>,
}

impl Peers {
    /// Creates the peers at `urls` (`http://HOST:PORT` or `https://`). A name with `http://` stands for all of its
    /// addresses. `access` has the trusted certificates. A response must start within `timeout`, and a connection must
    /// be open within a quarter of it.
    ///
    /// Fails with `Usage` if a URL is invalid.
    pub fn new(
        urls: &[String],
        timeout: Duration,
        access: &Access,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Result<Arc<Peers>> {
        let parse = |url: &String| {
            let wrong =
                || Error::usage(format!("--peer {url:?} is not a server URL; expected http://HOST:PORT or https://…"));
            mirrors::parse_server(url, false).ok_or_else(wrong)
        };
        let marks = vec![(PEER, "1".to_owned())];
        let access = Access {
            credentials: Credentials::Anonymous,
            timeout: STALL_TIMEOUT,
            connect_timeout: Some(timeout / 4),
            response_timeout: Some(timeout),
            retries: 0,
            buffer_bytes: BUFFER_BYTES,
            headers: marks,
            ..access.clone()
        };
        let peers = Arc::new(Peers {
            urls: urls.iter().map(parse).collect::<Result<_>>()?,
            timeout,
            access,
            known: Mutex::default(),
            resolved_at: Mutex::new(Instant::now()),
            resolving: AtomicBool::new(false),
            permits: Permits::new(MAX_QUERIES),
            watch,
            cancel: cancel.clone(),
        });
        peers.resolve_all();
        Ok(peers)
    }

    pub fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// The first peer that has `digest`, with the descriptor that it reported.
    pub fn find(
        self: &Arc<Peers>,
        kind: ContentKind,
        digest: &Digest,
        repository_id: &RepositoryId,
    ) -> Option<(Arc<Peer>, Descriptor)> {
        let until = Instant::now() + 2 * self.timeout;
        let mut available = self.current().into_iter().filter(|peer| !peer.cooldown.is_active());
        let (sender, results) = mpsc::channel();
        let mut running = 0;
        loop {
            while running < MAX_PARALLEL_QUERIES
                && let Some(peer) = available.next()
            {
                let (own, sender, digest, repository_id) =
                    (self.clone(), sender.clone(), *digest, repository_id.clone());
                let query = move || drop(sender.send(own.query(peer, kind, &digest, &repository_id)));
                if std::thread::Builder::new().name("peer".into()).stack_size(256 << 10).spawn(query).is_err() {
                    break;
                }
                running += 1;
            }
            if running == 0 {
                return None;
            }
            match results.recv_timeout(until.saturating_duration_since(Instant::now())).ok()? {
                Some(found) => return Some(found),
                None => running -= 1,
            }
        }
    }

    fn query(
        &self,
        peer: Arc<Peer>,
        kind: ContentKind,
        digest: &Digest,
        repository_id: &RepositoryId,
    ) -> Option<(Arc<Peer>, Descriptor)> {
        let _permit = self.permits.acquire(Duration::ZERO).ok()?;
        let store = self.store(&peer, repository_id).ok()?;
        let found = match kind {
            ContentKind::Manifest => store.find_manifest(digest),
            ContentKind::Blob => {
                store.blob_size(digest).map(|size| size.map(|size| Descriptor::new("", *digest, size)))
            }
        };
        match found {
            Ok(found) => found.map(|found| (peer, found)),
            Err(error) => {
                if error.kind() == Kind::Network && !self.cancel.raised() {
                    let pause = COOLDOWN_PAUSE.as_secs();
                    self.watch.say(&format!("peer {} is skipped for {pause} s: {error}", peer.host));
                    peer.cooldown.start();
                }
                None
            }
        }
    }

    /// The repository `repository_id` at `peer`.
    pub fn store(&self, peer: &Peer, repository_id: &RepositoryId) -> Result<RepositoryStore> {
        let mut registries = peer.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if registries.len() >= MAX_REGISTRIES && !registries.contains_key(&repository_id.ns) {
            registries.clear();
        }
        let registry = match registries.get(&repository_id.ns) {
            Some(registry) => registry.clone(),
            None => {
                let insecure = if peer.insecure { Insecure::ByUser } else { Insecure::No };
                let access = Access { namespace: repository_id.ns.clone(), insecure, ..self.access.clone() };
                let opened = Registry::new(&peer.host, access, self.watch.clone(), self.cancel.clone())?;
                registries.insert(repository_id.ns.clone(), opened.clone());
                opened
            }
        };
        Ok(registry.repository(&repository_id.repository))
    }

    fn current(self: &Arc<Peers>) -> Vec<Arc<Peer>> {
        let age = self.resolved_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if age > RESOLVE_INTERVAL && !self.resolving.swap(true, Ordering::SeqCst) {
            // A DNS lookup may take seconds; until then the known addresses are used.
            let own = self.clone();
            let started = std::thread::Builder::new().name("lookup".into()).spawn(move || own.resolve_all());
            if started.is_err() {
                self.resolving.store(false, Ordering::SeqCst);
            }
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn resolve_all(&self) {
        let mut hosts: Vec<(String, bool)> = Vec::new();
        for url in &self.urls {
            for host in self.resolve(url) {
                if hosts.len() < MAX_PEERS && !hosts.iter().any(|(known, _)| *known == host) {
                    hosts.push((host, url.insecure));
                }
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // If no name can be resolved now, the known addresses stay.
        if !hosts.is_empty() {
            let same = |host: &str| known.iter().find(|peer| peer.host == host).cloned();
            let peer = |(host, insecure): (String, bool)| {
                let fresh = || Peer {
                    host: host.clone(),
                    insecure,
                    cooldown: Cooldown::default(),
                    registries: Mutex::default(),
                };
                same(&host).unwrap_or_else(|| Arc::new(fresh()))
            };
            *known = hosts.into_iter().map(peer).collect();
        }
        *self.resolved_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.resolving.store(false, Ordering::SeqCst);
    }

    /// Resolves `url` to every `HOST:PORT`. With TLS the name stays as it is, since the certificate is for the name.
    fn resolve(&self, url: &MirrorServer) -> Vec<String> {
        let (name, port) = match url.host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().unwrap_or(80)),
            _ => (&*url.host, if url.insecure { 80 } else { 443 }),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if !url.insecure {
            return vec![url.host.clone()];
        }
        let found = (name, port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>).unwrap_or_default();
        found.into_iter().map(|socket_address| socket_address.to_string()).collect()
    }
}
