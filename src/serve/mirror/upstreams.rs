//! The registries that a mirror serves, each with one or several hosts. Requests are anonymous or use this server's
//! credentials.

use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::progress::Watch;
use crate::transport::registry::{Access, Credentials, Registry, RepositoryStore, has_credentials};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The maximum number of repositories for which the result of the search for credentials is remembered.
const MAX_REMEMBERED_LOGINS: usize = 1024;
/// The maximum number of simultaneous lookups at all registries.
const MAX_LOOKUPS: usize = 32;
/// The buffer of a connection for lookups; a server may have many connections.
const LOOKUP_BUFFER_BYTES: usize = 16 << 10;
/// The buffer of a connection for blobs.
const BLOB_BUFFER_BYTES: usize = 128 << 10;
/// The timeout of a lookup. It is shorter than a blob's, since a client waits for the response.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of retries if another host, or the last known result, can be used instead.
const LOOKUP_RETRIES: u32 = 1;
/// A host that did not respond is skipped for this time while another one exists.
pub(super) const COOLDOWN_PAUSE: Duration = Duration::from_secs(30);

/// The identity with which this server sends requests to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    Anonymous,
    /// With the credentials of this server.
    Own,
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
    /// The other endpoints of the registry, then the registry itself, whose response is authoritative.
    hosts: Vec<UpstreamHost>,
    logins: Mutex<HashMap<String, bool>>,
    lookup_permits: Arc<Permits>,
    watch: Arc<dyn Watch>,
}

/// One host of a registry.
struct UpstreamHost {
    endpoint: Endpoint,
    anonymous: Connections,
    own: Connections,
    cooldown: Cooldown,
}

struct Connections {
    lookups: Arc<Registry>,
    blobs: Arc<Registry>,
}

impl Connections {
    fn new(host: &str, access: Access, watch: &Arc<dyn Watch>, cancel: &Cancel) -> Result<Connections> {
        let (timeout, retries) = (access.timeout.min(LOOKUP_TIMEOUT), access.retries.min(LOOKUP_RETRIES));
        let lookup_access = Access {
            timeout,
            retries,
            response_timeout: Some(timeout),
            buffer_bytes: LOOKUP_BUFFER_BYTES,
            ..access.clone()
        };
        let access = Access { buffer_bytes: BLOB_BUFFER_BYTES, ..access };
        let open = |access| Registry::new(host, access, watch.clone(), cancel.clone());
        Ok(Connections { lookups: open(lookup_access)?, blobs: open(access)? })
    }
}

impl Upstream {
    /// Creates the registry `host` with `endpoints`; the last one is the registry itself.
    ///
    /// Fails with `Usage` if an endpoint's host is invalid.
    pub fn new(host: &str, endpoints: Vec<Endpoint>, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<Upstream> {
        let last = endpoints.len().saturating_sub(1);
        let mut hosts = Vec::new();
        for (at, endpoint) in endpoints.into_iter().enumerate() {
            let retries = if at < last { LOOKUP_RETRIES } else { u32::MAX };
            let access = Access { retries: endpoint.access.retries.min(retries), ..endpoint.access.clone() };
            let anonymous = Access { credentials: Credentials::Anonymous, ..access.clone() };
            hosts.push(UpstreamHost {
                anonymous: Connections::new(&endpoint.host, anonymous, &watch, cancel)?,
                own: Connections::new(&endpoint.host, access, &watch, cancel)?,
                endpoint,
                cooldown: Cooldown::default(),
            });
        }
        let lookup_permits = Permits::new(MAX_LOOKUPS);
        Ok(Upstream { host: host.to_owned(), hosts, logins: Mutex::default(), lookup_permits, watch })
    }

    /// `HOST[:PORT]`, as in image names.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The identity for requests to `repository`, for a client that may use this server's credentials: `Own` if
    /// credentials exist.
    pub fn identity(&self, repository: &str) -> Identity {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if logins.len() >= MAX_REMEMBERED_LOGINS && !logins.contains_key(repository) {
            logins.clear();
        }
        let knows =
            |host: &UpstreamHost| has_credentials(&host.endpoint.access, &host.endpoint.host, repository, &*self.watch);
        let known = *logins.entry(repository.to_owned()).or_insert_with(|| self.hosts.iter().any(knows));
        if known { Identity::Own } else { Identity::Anonymous }
    }

    /// The result of the first host that has one; otherwise the result of the last host.
    pub fn lookup_in_order<T>(
        &self,
        identity: Identity,
        repository: &str,
        lookup: impl Fn(&RepositoryStore) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let _permit = self.lookup_permits.acquire(LOOKUP_TIMEOUT)?;
        let mut result = Ok(None);
        for (at, host) in self.hosts.iter().enumerate() {
            let is_last = at + 1 == self.hosts.len();
            if host.cooldown.is_active() && !is_last {
                continue;
            }
            result = match lookup(&host.connections(identity).lookups.repository(repository)) {
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                result => result,
            };
            match &result {
                Ok(Some(_)) => return result,
                Err(error) if error.kind() == Kind::Network && !is_last => host.cooldown.start(),
                _ => {}
            }
        }
        result
    }

    /// The results of all hosts that have one, and the error of the registry itself if it has none. A host without the
    /// repository has no result.
    pub fn lookup_all<T>(
        &self,
        identity: Identity,
        repository: &str,
        lookup: impl Fn(&RepositoryStore) -> Result<T>,
    ) -> Result<(Vec<T>, Option<Error>)> {
        let _permit = self.lookup_permits.acquire(LOOKUP_TIMEOUT)?;
        let (mut results, mut last_error) = (Vec::new(), None);
        for (at, host) in self.hosts.iter().enumerate() {
            let is_last = at + 1 == self.hosts.len();
            if host.cooldown.is_active() && !is_last {
                continue;
            }
            match lookup(&host.connections(identity).lookups.repository(repository)) {
                Ok(result) => results.push(result),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) if is_last => last_error = Some(error),
                Err(error) if error.kind() == Kind::Network => host.cooldown.start(),
                Err(_) => {}
            }
        }
        Ok((results, last_error))
    }

    /// `repository` at every host that is not skipped, in order.
    pub fn sources(&self, identity: Identity, repository: &str) -> Vec<RepositoryStore> {
        let last = self.hosts.len().saturating_sub(1);
        let available = self.hosts.iter().enumerate().filter(|(at, host)| *at == last || !host.cooldown.is_active());
        available.map(|(_, host)| host.connections(identity).blobs.repository(repository)).collect()
    }
}

impl UpstreamHost {
    fn connections(&self, identity: Identity) -> &Connections {
        match identity {
            Identity::Anonymous => &self.anonymous,
            Identity::Own => &self.own,
        }
    }
}

/// The time for which a host that did not respond is skipped.
#[derive(Debug, Default)]
pub struct Cooldown(Mutex<Option<Instant>>);

impl Cooldown {
    pub fn start(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn is_active(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|start| start.elapsed() < COOLDOWN_PAUSE)
    }
}

/// A blocking semaphore with timeouts.
pub struct Permits {
    available: Mutex<usize>,
    released: Condvar,
}

/// One permit; dropping it releases it.
pub struct Permit(Arc<Permits>);

impl Permits {
    pub fn new(permits: usize) -> Arc<Permits> {
        Arc::new(Permits { available: Mutex::new(permits), released: Condvar::new() })
    }

    /// Waits for a permit. Fails with `Network` after `timeout`.
    pub fn acquire(self: &Arc<Permits>, timeout: Duration) -> Result<Permit> {
        let until = Instant::now() + timeout;
        let mut available = self.available.lock().unwrap_or_else(PoisonError::into_inner);
        while *available == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::network("too many requests are waiting for the upstream registries; retry later"));
            }
            available = self.released.wait_timeout(available, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *available -= 1;
        Ok(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.available.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.released.notify_one();
    }
}
