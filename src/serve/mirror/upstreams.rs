//! The registries that a mirror stands for, each behind one or several hosts, asked as nobody in particular or with the
//! credentials that this server has.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::progress::Watch;
use crate::transport::registry::{Access, Credentials, Registry, RepositoryStore, knows_login};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Repositories whose credentials are remembered to be there or not.
const REMEMBERED: usize = 1024;
/// Questions at once, to all registries.
const QUESTIONS: usize = 32;
/// In bytes, of a connection on which questions are asked, and of one that blobs come over: there may be many.
const SMALL: usize = 16 << 10;
const LARGE: usize = 128 << 10;
/// A client waits for an answer: a question is given up sooner than a blob.
const PATIENCE: Duration = Duration::from_secs(10);
/// There may be another host to ask, or an answer from the last time.
const RETRIES: u32 = 1;
/// A host that does not answer is left alone for so long while there is another.
const REST: Duration = Duration::from_secs(30);

/// As whom a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    Nobody,
    /// With credentials of this server.
    Acquired,
}

/// One host that has a registry's repositories.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `HOST[:PORT]`.
    pub host: String,
    pub access: Access,
}

/// A registry that is mirrored.
pub struct Upstream {
    host: String,
    /// The last one is the registry itself: what it says counts.
    ways: Vec<Way>,
    logins: Mutex<HashMap<String, bool>>,
    questions: Arc<Seats>,
    watch: Arc<dyn Watch>,
}

/// One host of it.
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
        let quick = Access { timeout, retries, response_timeout: Some(timeout), buffer_bytes: SMALL, ..access.clone() };
        let access = Access { buffer_bytes: LARGE, ..access };
        let open = |access| Registry::new(host, access, watch.clone(), cancel.clone());
        Ok(Lines { asking: open(quick)?, fetching: open(access)? })
    }
}

impl Upstream {
    /// The registry called `host`, at `endpoints`, the last of which is the registry itself.
    ///
    /// Fails with `Usage` where one of them is no host.
    pub fn new(host: &str, endpoints: Vec<Endpoint>, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<Upstream> {
        let last = endpoints.len().saturating_sub(1);
        let mut ways = Vec::new();
        for (at, endpoint) in endpoints.into_iter().enumerate() {
            let retries = if at < last { RETRIES } else { u32::MAX };
            let access = Access { retries: endpoint.access.retries.min(retries), ..endpoint.access.clone() };
            let nobody = Access { credentials: Credentials::Anonymous, ..access.clone() };
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

    /// `HOST[:PORT]`, as images are named.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As whom it is asked for `repository`, for a client that may be given what needs credentials: with credentials if
    /// there are any.
    pub fn identity(&self, repository: &str) -> Identity {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if logins.len() >= REMEMBERED && !logins.contains_key(repository) {
            logins.clear();
        }
        let knows = |way: &Way| knows_login(&way.endpoint.access, &way.endpoint.host, repository, &*self.watch);
        let known = *logins.entry(repository.to_owned()).or_insert_with(|| self.ways.iter().any(knows));
        if known { Identity::Acquired } else { Identity::Nobody }
    }

    /// What the first host that has it says. Where none has it, the last one's word counts.
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

    /// `repository` at every host that is not resting, in their order.
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

/// Whether somebody who did not answer is left alone.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Instant>>);

impl Rest {
    pub fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn now(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|began| began.elapsed() < REST)
    }
}

/// So many may do something at once.
pub struct Seats {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
pub struct Seat(Arc<Seats>);

impl Seats {
    pub fn new(seats: usize) -> Arc<Seats> {
        Arc::new(Seats { free: Mutex::new(seats), freed: Condvar::new() })
    }

    /// Waits for a seat, but no longer than `patience`; then it is `Network`.
    pub fn take(self: &Arc<Seats>, patience: Duration) -> Result<Seat> {
        let until = Instant::now() + patience;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::network("too many questions wait for the upstream registries; try again"));
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
