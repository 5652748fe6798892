//! The registries that a mirror serves, each with one or several hosts. Requests are anonymous or use this server's
//! credentials.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::progress::Watch;
use crate::transport::registry::{Access, Credentials, Registry, RepositoryStore, knows_login};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The maximum number of repositories for which the result of the search for credentials is remembered.
const REMEMBERED: usize = 1024;
/// The maximum number of simultaneous lookups at all registries.
const QUESTIONS: usize = 32;
/// The buffer of a connection for lookups; a server may have many connections.
const SMALL: usize = 16 << 10;
/// The buffer of a connection for blobs.
const LARGE: usize = 128 << 10;
/// The timeout of a lookup. It is shorter than a blob's, since a client waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of retries if another host, or the last known answer, can be used instead.
const RETRIES: u32 = 1;
/// A host that did not answer is skipped for this time while another one exists.
pub(super) const COOLDOWN: Duration = Duration::from_secs(30);

/// The identity with which this server sends requests to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    Nobody,
    /// With the credentials of this server.
    Acquired,
}

/// One host that serves a registry's repositories.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `HOST[:PORT]`.
    pub host: String,
    pub access: Access,
}

/// A mirrored registry.
pub struct Upstream {
    host: String,
    /// The mirrors of the registry, then the registry itself, whose answer is authoritative.
    ways: Vec<Way>,
    logins: Mutex<HashMap<String, bool>>,
    questions: Arc<Seats>,
    watch: Arc<dyn Watch>,
}

/// One host of a registry.
struct Way {
    endpoint: Endpoint,
    nobody: Lines,
    ours: Lines,
    resting: Rest,
}

struct Lines {
    asking: Arc<Registry>,
    fetching: Arc<Registry>,
}

impl Lines {
    fn new(host: &str, access: Access, watch: &Arc<dyn Watch>, cancel: &Cancel) -> Result<Lines> {
        let (timeout, retries) = (access.timeout.min(PATIENCE), access.retries.min(RETRIES));
        let quick = Access { timeout, retries, answer: Some(timeout), buffer: SMALL, ..access.clone() };
        let access = Access { buffer: LARGE, ..access };
        let open = |access| Registry::new(host, access, watch.clone(), cancel.clone());
        Ok(Lines { asking: open(quick)?, fetching: open(access)? })
    }
}

impl Upstream {
    /// Creates the registry `host` with `endpoints`; the last one is the registry itself.
    ///
    /// Fails with `Usage` if an endpoint's host is invalid.
    pub fn new(host: &str, endpoints: Vec<Endpoint>, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<Upstream> {
        let last = endpoints.len().saturating_sub(1);
        let mut ways = Vec::new();
        for (at, endpoint) in endpoints.into_iter().enumerate() {
            let retries = if at < last { RETRIES } else { u32::MAX };
            let access = Access { retries: endpoint.access.retries.min(retries), ..endpoint.access.clone() };
            let nobody = Access { credentials: Credentials::Nobody, ..access.clone() };
            ways.push(Way {
                nobody: Lines::new(&endpoint.host, nobody, &watch, cancel)?,
                ours: Lines::new(&endpoint.host, access, &watch, cancel)?,
                endpoint,
                resting: Rest::default(),
            });
        }
        let questions = Seats::new(QUESTIONS);
        Ok(Upstream { host: host.to_owned(), ways, logins: Mutex::default(), questions, watch })
    }

    /// `HOST[:PORT]`, as in image names.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The identity for requests to `repository`, for a client that may use this server's credentials: `Own` if
    /// credentials exist.
    pub fn identity(&self, repository: &str) -> Identity {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if logins.len() >= REMEMBERED && !logins.contains_key(repository) {
            logins.clear();
        }
        let knows = |way: &Way| knows_login(&way.endpoint.access, &way.endpoint.host, repository, &*self.watch);
        let known = *logins.entry(repository.to_owned()).or_insert_with(|| self.ways.iter().any(knows));
        if known { Identity::Acquired } else { Identity::Nobody }
    }

    /// The result of the first host that has one; otherwise the answer of the last host.
    pub fn ask<T>(
        &self,
        identity: Identity,
        repository: &str,
        question: impl Fn(&RepositoryStore) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let _seat = self.questions.take(PATIENCE)?;
        let mut told = Ok(None);
        for (at, way) in self.ways.iter().enumerate() {
            let is_last = at + 1 == self.ways.len();
            if way.resting.now() && !is_last {
                continue;
            }
            told = match question(&way.lines(identity).asking.repository(repository)) {
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                told => told,
            };
            match &told {
                Ok(Some(_)) => return told,
                Err(error) if error.kind() == Kind::Network && !is_last => way.resting.begin(),
                _ => {}
            }
        }
        told
    }

    /// `repository` at every host that is not skipped, in order.
    pub fn sources(&self, identity: Identity, repository: &str) -> Vec<RepositoryStore> {
        let last = self.ways.len().saturating_sub(1);
        let awake = self.ways.iter().enumerate().filter(|(at, way)| *at == last || !way.resting.now());
        awake.map(|(_, way)| way.lines(identity).fetching.repository(repository)).collect()
    }
}

impl Way {
    fn lines(&self, identity: Identity) -> &Lines {
        match identity {
            Identity::Nobody => &self.nobody,
            Identity::Acquired => &self.ours,
        }
    }
}

/// The time for which a host that did not answer is skipped.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Instant>>);

impl Rest {
    pub fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn now(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|began| began.elapsed() < COOLDOWN)
    }
}

/// A blocking semaphore with timeouts.
pub struct Seats {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One permit; dropping it releases it.
pub struct Seat(Arc<Seats>);

impl Seats {
    pub fn new(seats: usize) -> Arc<Seats> {
        Arc::new(Seats { free: Mutex::new(seats), freed: Condvar::new() })
    }

    /// Waits for a permit. Fails with `Network` after `patience`.
    pub fn take(self: &Arc<Seats>, patience: Duration) -> Result<Seat> {
        let until = Instant::now() + patience;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::network("too many requests are waiting for the upstream registries; retry later"));
            }
            free = self.freed.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Ok(Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
