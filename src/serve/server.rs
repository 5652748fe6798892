//! What a server is given, and what every request needs of it.

use super::access::browser_guard::BrowserGuard;
use super::access::users::Rights;
use super::access_log::{Journal, Metrics};
use super::backend::catalog::{Catalog, Repository, Wanted};
use super::backend::writable::Target;
use super::handlers::manifest_memory::Documents;
use super::handlers::uploads::Sessions;
use super::http::errors::{Code, Refusal};
use super::http::reply::blocking;
use super::http::tls::Certificate;
use crate::cancel::Cancel;
use crate::error::Result as Outcome;
use crate::progress::Watch;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What clients may take of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait until one ends.
    pub connections: usize,
    /// For a request's head, and between two requests of one connection.
    pub head: Duration,
    /// In which a body has to move 1 KiB, in either direction.
    pub idle: Duration,
    /// Threads that may wait for servers elsewhere, beside those that read from here.
    pub waiting: usize,
    /// What is under way when the server is told to stop has so long to end.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1024,
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            waiting: 0,
            stop: Duration::from_secs(10),
        }
    }
}

/// How a server serves.
pub struct Options {
    pub listen: SocketAddr,
    pub certificate: Option<Certificate>,
    pub rights: Rights,
    /// Names by which a server on loopback may be called beside loopback's own.
    pub names: Vec<String>,
    pub limits: Limits,
    pub journal: Option<Arc<Journal>>,
    /// What is counted, also by shelves.
    pub figures: Arc<Metrics>,
    /// Where pushes go, if anywhere.
    pub target: Option<Arc<Target>>,
    /// How long an upload is kept that nobody goes on with.
    pub upload_life: Duration,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
}

/// Everything that a request needs.
pub(super) struct Server {
    pub catalog: Catalog,
    pub rights: Rights,
    pub gate: BrowserGuard,
    pub limits: Limits,
    pub figures: Arc<Metrics>,
    pub journal: Option<Arc<Journal>>,
    pub watch: Arc<dyn Watch>,
    pub target: Option<Arc<Target>>,
    pub sessions: Sessions,
    pub upload_life: Duration,
    pub documents: Documents,
}

impl Server {
    /// What `ask` finds in the repository called `name`, on a thread that may block.
    pub async fn in_repository<T: Send + 'static>(
        &self,
        wanted: Wanted,
        ask: impl FnOnce(Arc<dyn Repository>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let catalog = self.catalog.clone();
        let found = blocking(move || catalog.repository(&wanted)?.map(ask).transpose()).await??;
        found.ok_or_else(|| Refusal::not_found(Code::NameUnknown, "there is no such repository"))
    }
}
