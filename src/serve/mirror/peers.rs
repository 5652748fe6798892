//! Other servers like this one, which may have what is not here: asked by digest only, quickly, all at once, and never
//! for what they would have to ask others for. One of them may be this server itself, which then answers as any other.

use super::upstreams::{Rest, Seats};
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

/// Addresses are looked up again after so long.
const LOOKUP: Duration = Duration::from_secs(10);
/// Addresses, at most.
const MOST: usize = 256;
/// Peers that are asked for one thing at once.
const AT_ONCE: usize = 8;
/// Questions to peers at once; whoever finds no seat goes on without them.
const QUESTIONS: usize = 64;
/// A peer that sends nothing for so long is left for the next source.
const STALL: Duration = Duration::from_secs(5);
/// In bytes, of a connection to a peer.
const BUFFER: usize = 64 << 10;
/// In a name's lookup: registries whose namespaces are remembered for each peer.
const NAMESPACES: usize = 64;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    Manifest,
    Blob,
}

/// Where it is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The registry that is meant, where one is.
    pub ns: Option<String>,
    pub repository: String,
}

/// All peers.
pub struct Peers {
    named: Vec<Server>,
    /// For an answer to begin.
    patience: Duration,
    access: Access,
    known: Mutex<Vec<Arc<Peer>>>,
    looked: Mutex<Instant>,
    looking: AtomicBool,
    seats: Arc<Seats>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One server.
pub struct Peer {
    host: String,
    insecure: bool,
    resting: Rest,
    registries: Mutex<HashMap<Option<String>, Arc<Registry>>>,
}

impl Peers {
    /// The servers at `urls` (`http://HOST:PORT`, or `https://`). A name behind `http://` stands for every address that
    /// it has. `access` says what certificates are trusted. `patience` is how long an answer may take to begin; a
    /// connection may take a quarter of that.
    ///
    /// Fails with `Usage` where one of them is no such address.
    pub fn new(
        urls: &[String],
        patience: Duration,
        access: &Access,
        watch: Arc<dyn Watch>,
        cancel: &Cancel,
    ) -> Result<Arc<Peers>> {
        let parse = |url: &String| {
            let wrong = || Error::usage(format!("--peer {url:?} is no server; expected http://HOST:PORT or https://…"));
            mirrors::server(url, false).ok_or_else(wrong)
        };
        let marks = vec![(PEER, "1".to_owned())];
        let access = Access {
            credentials: Credentials::Anonymous,
            timeout: STALL,
            connect_timeout: Some(patience / 4),
            response_timeout: Some(patience),
            retries: 0,
            buffer_bytes: BUFFER,
            headers: marks,
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

    /// The first peer that has `digest`, and what it says of it.
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
            Sought::Manifest => store.find_manifest(digest),
            Sought::Blob => store.blob_size(digest).map(|size| size.map(|size| Descriptor::new("", *digest, size))),
        };
        match found {
            Ok(found) => found.map(|found| (peer, found)),
            Err(error) => {
                if error.kind() == Kind::Network && !self.cancel.raised() {
                    self.watch.say(&format!("peer {} is left alone for a while: {error}", peer.host));
                    peer.resting.begin();
                }
                None
            }
        }
    }

    /// The repository at `spot` of `peer`.
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
            // Looking up a name may take seconds; meanwhile the peers are those that are known.
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
        // A name that cannot be looked up at the moment keeps the addresses that it had.
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

    /// Every `HOST:PORT` that `named` stands for. A certificate is one name's, so with TLS it stays one.
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
