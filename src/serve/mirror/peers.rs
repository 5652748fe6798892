//! Peers: other servers of this kind that may have missing content. Requests to them are by digest only, in parallel
//! and with short timeouts, and a peer does not forward them. A peer may be this server itself.

use super::upstreams::{COOLDOWN, Rest, Seats};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest};
use crate::progress::Watch;
use crate::serve::http::request::PEER;
use crate::transport::registry::mirrors;
use crate::transport::registry::mirrors::Server;
use crate::transport::registry::{Access, Credentials, Insecure, Registry, RepositoryStore};
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// The interval between two DNS lookups of the peers.
const LOOKUP: Duration = Duration::from_secs(10);
/// The maximum number of peer addresses.
const MOST: usize = 256;
/// The number of peers that are queried in parallel for one digest.
const AT_ONCE: usize = 8;
/// The maximum number of simultaneous queries to peers; above it, a lookup continues without peers.
const QUESTIONS: usize = 64;
/// If a peer sends no bytes for this time, the next source is used.
const STALL: Duration = Duration::from_secs(5);
/// The buffer of a connection to a peer.
const BUFFER: usize = 64 << 10;
/// The maximum number of open registries (`?ns=`) for each peer.
const NAMESPACES: usize = 64;

/// The kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    Manifest,
    Blob,
}

/// A repository, as requests to peers name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The registry (`?ns=`), if the request names one.
    pub ns: Option<String>,
    pub repository: String,
}

/// The peers of a mirror.
pub struct Peers {
    named: Vec<Server>,
    /// The time in which a response must start.
    patience: Duration,
    access: Access,
    known: Mutex<Vec<Arc<Peer>>>,
    looked: Mutex<Instant>,
    looking: AtomicBool,
    seats: Arc<Seats>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One peer address.
pub struct Peer {
    host: String,
    insecure: bool,
    resting: Rest,
    registries: Mutex<HashMap<Option<String>, Arc<Registry>>>,
}

impl Peers {
    /// Creates the peers at `urls` (`http://HOST:PORT` or `https://`). A name with `http://` stands for all of its
    /// addresses. `access` has the trusted certificates. A response must start within `patience`, and a connection must
    /// be open within a quarter of it.
    ///
    /// Fails with `Usage` if a URL is invalid.
    pub fn new(
        urls: &[String],
        patience: Duration,
        access: &Access,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Result<Arc<Peers>> {
        let parse = |url: &String| {
            let wrong =
                || Error::usage(format!("--peer {url:?} is not a server URL; expected http://HOST:PORT or https://…"));
            mirrors::server(url, false).ok_or_else(wrong)
        };
        let marks = vec![(PEER, "1".to_owned())];
        let access = Access {
            credentials: Credentials::Nobody,
            timeout: STALL,
            connect: Some(patience / 4),
            answer: Some(patience),
            retries: 0,
            buffer: BUFFER,
            marks,
            ..access.clone()
        };
        let peers = Arc::new(Peers {
            named: urls.iter().map(parse).collect::<Result<_>>()?,
            patience,
            access,
            known: Mutex::default(),
            looked: Mutex::new(Instant::now()),
            looking: AtomicBool::new(false),
            seats: Seats::new(QUESTIONS),
            watch,
            cancel: cancel.clone(),
        });
        peers.look_up();
        Ok(peers)
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The first peer that has `digest`, with the descriptor that it reported.
    pub fn find(self: &Arc<Peers>, sought: Sought, digest: &Digest, spot: &Spot) -> Option<(Arc<Peer>, Descriptor)> {
        let until = Instant::now() + 2 * self.patience;
        let mut awake = self.all().into_iter().filter(|peer| !peer.resting.now());
        let (tell, told) = mpsc::channel();
        let mut asked = 0;
        loop {
            while asked < AT_ONCE
                && let Some(peer) = awake.next()
            {
                let (own, tell, digest, spot) = (self.clone(), tell.clone(), *digest, spot.clone());
                let ask = move || drop(tell.send(own.ask(peer, sought, &digest, &spot)));
                if std::thread::Builder::new().name("peer".into()).stack_size(256 << 10).spawn(ask).is_err() {
                    break;
                }
                asked += 1;
            }
            if asked == 0 {
                return None;
            }
            match told.recv_timeout(until.saturating_duration_since(Instant::now())).ok()? {
                Some(found) => return Some(found),
                None => asked -= 1,
            }
        }
    }

    fn ask(&self, peer: Arc<Peer>, sought: Sought, digest: &Digest, spot: &Spot) -> Option<(Arc<Peer>, Descriptor)> {
        let _seat = self.seats.take(Duration::ZERO).ok()?;
        let store = self.store(&peer, spot).ok()?;
        let found = match sought {
            Sought::Manifest => store.manifest_at(digest),
            Sought::Blob => store.blob_at(digest).map(|size| size.map(|size| Descriptor::new("", *digest, size))),
        };
        match found {
            Ok(found) => found.map(|found| (peer, found)),
            Err(error) => {
                if error.kind() == Kind::Network && !self.cancel.raised() {
                    let pause = COOLDOWN.as_secs();
                    self.watch.say(&format!("peer {} is skipped for {pause} s: {error}", peer.host));
                    peer.resting.begin();
                }
                None
            }
        }
    }

    /// The repository `spot` at `peer`.
    pub fn store(&self, peer: &Peer, spot: &Spot) -> Result<RepositoryStore> {
        let mut registries = peer.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if registries.len() >= NAMESPACES && !registries.contains_key(&spot.ns) {
            registries.clear();
        }
        let registry = match registries.get(&spot.ns) {
            Some(registry) => registry.clone(),
            None => {
                let insecure = if peer.insecure { Insecure::ByUser } else { Insecure::No };
                let access = Access { namespace: spot.ns.clone(), insecure, ..self.access.clone() };
                let opened = Registry::new(&peer.host, access, self.watch.clone(), self.cancel.clone())?;
                registries.insert(spot.ns.clone(), opened.clone());
                opened
            }
        };
        Ok(registry.repository(&spot.repository))
    }

    fn all(self: &Arc<Peers>) -> Vec<Arc<Peer>> {
        let age = self.looked.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if age > LOOKUP && !self.looking.swap(true, Ordering::SeqCst) {
            // A DNS lookup may take seconds; until then the known addresses are used.
            let own = self.clone();
            let started = std::thread::Builder::new().name("lookup".into()).spawn(move || own.look_up());
            if started.is_err() {
                self.looking.store(false, Ordering::SeqCst);
            }
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look_up(&self) {
        let mut hosts: Vec<(String, bool)> = Vec::new();
        for named in &self.named {
            for host in self.addresses(named) {
                if hosts.len() < MOST && !hosts.iter().any(|(known, _)| *known == host) {
                    hosts.push((host, named.insecure));
                }
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // If no name can be resolved now, the known addresses stay.
        if !hosts.is_empty() {
            let same = |host: &str| known.iter().find(|peer| peer.host == host).cloned();
            let peer = |(host, insecure): (String, bool)| {
                let fresh =
                    || Peer { host: host.clone(), insecure, resting: Rest::default(), registries: Mutex::default() };
                same(&host).unwrap_or_else(|| Arc::new(fresh()))
            };
            *known = hosts.into_iter().map(peer).collect();
        }
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.looking.store(false, Ordering::SeqCst);
    }

    /// Resolves `named` to every `HOST:PORT`. With TLS the name stays as it is, since the certificate is for the name.
    fn addresses(&self, named: &Server) -> Vec<String> {
        let (name, port) = match named.host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().unwrap_or(80)),
            _ => (&*named.host, if named.insecure { 80 } else { 443 }),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if !named.insecure {
            return vec![named.host.clone()];
        }
        let found = (name, port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>).unwrap_or_default();
        found.into_iter().map(|address| address.to_string()).collect()
    }
}
