//! The options of a server, and the state that all its requests share.

use super::access::browser_guard::BrowserGuard;
use super::access::users::Rights;
use super::access_log::{AccessLog, Metrics};
use super::backend::catalog::{Catalog, Repository, RepositoryRequest};
use super::backend::writable::WritableBackend;
use super::handlers::manifest_memory::ManifestMemory;
use super::handlers::uploads::OpenUploads;
use super::http::errors::{ApiError, ErrorCode};
use super::http::reply::blocking;
use super::http::tls::Certificate;
use crate::cancel::Cancel;
use crate::error::Result as CrateResult;
use crate::progress::Watch;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Limits on the resources that clients may use.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// The maximum number of simultaneous connections; further ones wait until one ends.
    pub connections: usize,
    /// The time for a request's head, and between two requests of one connection.
    pub head_timeout: Duration,
    /// The time in which a body must move 1 KiB, in either direction.
    pub idle_timeout: Duration,
    /// Additional threads that may wait for upstream registries.
    pub upstream_threads: usize,
    /// The time for requests in flight to finish when the server stops.
    pub stop_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            connections: 1024,
            head_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            upstream_threads: 0,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// The options of a server.
pub struct ServerOptions {
    pub listen: SocketAddr,
    pub certificate: Option<Certificate>,
    pub rights: Rights,
    /// Host names that a server on loopback accepts in addition to loopback's own.
    pub allowed_hosts: Vec<String>,
    pub limits: ClientLimits,
    pub access_log: Option<Arc<AccessLog>>,
    /// The counters of this server; backends also add to them.
    pub metrics: Arc<Metrics>,
    /// The directory that accepts pushes; without it the server is read-only.
    pub writable: Option<Arc<WritableBackend>>,
    /// An upload without a request for this time is removed.
    pub upload_lifetime: Duration,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
}

/// The state that all requests share.
pub(super) struct Server {
    pub catalog: Catalog,
    pub rights: Rights,
    pub browser_guard: BrowserGuard,
    pub limits: ClientLimits,
    pub metrics: Arc<Metrics>,
    pub access_log: Option<Arc<AccessLog>>,
    pub watch: Arc<dyn Watch>,
    pub writable: Option<Arc<WritableBackend>>,
    pub uploads: OpenUploads,
    pub upload_lifetime: Duration,
    pub manifest_memory: ManifestMemory,
}

impl Server {
    /// Runs `work` on the requested repository, on a blocking thread.
    pub async fn with_repository<T: Send + 'static>(
        &self,
        request: RepositoryRequest,
        work: impl FnOnce(Arc<dyn Repository>) -> CrateResult<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (catalog, name) = (self.catalog.clone(), request.name.clone());
        let found = blocking(move || catalog.repository(&request)?.map(work).transpose()).await??;
        found.ok_or_else(|| ApiError::not_found(ErrorCode::NameUnknown, format!("repository {name} was not found")))
    }
}
