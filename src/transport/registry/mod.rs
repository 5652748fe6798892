//! `docker://`: a registry (OCI distribution-spec v1.1, Docker Registry v2) as a source and a destination.
//!
//! - `http`: connections (`connect`, over ureq's transport layer, whose version is pinned since semver does not cover
//!   that layer), one request and its errors, redirects, retries, throttling, proxies, TLS. `client` combines them with
//!   `auth`.
//! - `auth`: challenges, tokens, credential files and helpers, login and logout.
//! - `pull` and `store`: manifests, blobs and their ranges, tags, referrers.
//! - `push` and `sink`: upload sessions, chunks, body limits, resuming; `referrers_tag`: lists of referrers.
//! - `delete`: tags and manifests.
//! - `mirrors`: the mirrors and insecure registries from the configuration of this host's engines.
//!
//! **Retries.** One policy (`http/retry.rs`) counts attempts without progress; 16 KiB between two failures reset the
//! count. Content with a wrong digest (`Error::is_digest_mismatch`) is requested once more. After a 401 all requests share one
//! new token. If that token is refused too, the request fetches another token for itself (`TokenUse::Own`), so parallel requests cannot starve
//! each other. If the target of a redirect refuses a request, the client asks the registry for another URL, at most
//! three times in a row, and then reports the storage host. `http/web_page.rs` detects web pages (a captive portal
//! responds with 200 to every request); `Manifest::check_fields` detects documents that are not manifests. Unusable entries of a
//! list are skipped and counted (`pull/skipped.rs`).
//!
//! **Words.** A *chunk* is the body of one `PATCH` of an upload. A *range* is the bytes of one ranged `GET` of a download.
//! Threads exchange *buffers*. A *session* is an upload session. A registry sends a *response*, at a *URL*; an *address*
//! is a SRC or DST argument.
//!
//! **Downloads** resume with `Range`; a blob shorter than announced is resumed once. A registry with a latency of 30 ms
//! or more gets 32 small requests in parallel, and large blobs in ranges of 2 MiB, at most 24 MiB in memory
//! (`pull/ranges.rs`). After a 429 the registry gets the usual number of small requests, and each download in ranges
//! halves its connections. Mirrors are tried before the registry; after a mirror fails, the download
//! resumes at the same offset elsewhere.
//!
//! **Several repositories.** A run has one pool of registries (`pool.rs`). The repositories of one host share its client:
//! connections, tokens, the learned limits, and the book of stored blobs (`push/book.rs`), from which the next
//! repository mounts a blob, and what is known of each repository's referrers (`referrers_memory.rs`). `http/pull_limit.rs` counts pulls where the host names a limit. `http/window.rs` limits the requests to one host, over all its repositories and logins.
//!
//! **Uploads** (`push/streamed`) resume at the offset that the registry reports. If a registry has forgotten an upload,
//! imgmv sends the blob again in chunks, each on its own connection; `http/throttle.rs` remembers the chunk size for
//! the next blobs. A refused request is repeated in its session, at the same offset if the registry has read none of
//! its body. `connect/early.rs` reads a response that arrives before the body's end. After a refusal, requests with a
//! body use `Expect: 100-continue`.
//!
//! `streamed/lengths.rs` decides on chunks: by the connection, by a known limit of body sizes (`body_limit.rs`, stored
//! for a week), by `--chunk-size`, or above 64 MiB. A body that breaks twice at one size, with nothing stored, counts
//! as refused, unless the registry accepted that size before.
//!
//! The user's cache stores unfinished uploads for a day (`resume_cache.rs`, mode 0600). Bytes that the registry has are
//! read and hashed again. If the source is a registry too, the hash's state is saved instead (`disk/hash_checkpoints.rs`).
//! docker-registry 2.8 forgets an upload that is interrupted within a request, since its data and its signed offset
//! disagree.

pub(crate) mod address;
pub mod auth;
pub mod configuration;
mod delete;
pub mod http;
pub mod mirrors;
mod options;
mod pool;
mod prefix;
mod published;
mod pull;
pub mod push;
mod referrers;
mod referrers_memory;
mod referrers_tag;
mod sink;
mod store;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::progress::Watch;
use http::client::RegistryClient;
use http::window::HostWindow;
use std::sync::Arc;

pub use auth::credentials::exist as has_credentials;
pub use auth::login::{login, logout};
pub use http::pull_limit::PullsLeft;
pub use mirrors::store::MirroredStore;
pub use options::{Access, Credentials, Insecure, Secret};
pub use pool::RegistryPool;
pub(crate) use prefix::Prefix;
pub use pull::foreign_layer::ForeignStore;
pub use sink::RepositorySink;
pub use store::RepositoryStore;

/// The host that serves the registry of docker.io.
const HUB_API: &str = "registry-1.docker.io";

/// One registry host. Its repositories share connections, credentials and tokens.
pub struct Registry {
    client: Arc<RegistryClient>,
}

impl Registry {
    /// The registry at `host` (`HOST[:PORT]` as in references; `docker.io` is Docker Hub). Sends no request yet.
    ///
    /// Fails with `Usage` if `host` is not a valid `HOST[:PORT]`.
    pub fn new(host: &str, access: Access, watch: Arc<dyn Watch>, cancel: Cancel) -> Result<Arc<Registry>> {
        Registry::with_window(host, access, watch, cancel, Arc::default())
    }

    /// As [`Registry::new`], with the `window` of all requests to this host.
    fn with_window(
        host: &str,
        access: Access,
        watch: Arc<dyn Watch>,
        cancel: Cancel,
        window: Arc<HostWindow>,
    ) -> Result<Arc<Registry>> {
        Ok(Arc::new(Registry { client: Arc::new(RegistryClient::new(host, access, watch, cancel, window)?) }))
    }

    /// The same registry, which reports to `watch`.
    fn reporting_to(self: &Arc<Self>, watch: &Arc<dyn Watch>) -> Arc<Registry> {
        match std::ptr::addr_eq(Arc::as_ptr(&self.client.watch), Arc::as_ptr(watch)) {
            true => self.clone(),
            false => Arc::new(Registry { client: Arc::new(self.client.reporting_to(watch.clone())) }),
        }
    }

    /// `HOST[:PORT]` as in references.
    pub fn host(&self) -> &str {
        &self.client.host
    }

    /// The pulls that the host still allows, by its latest response; `None` if it names no limit.
    pub fn pulls_left(&self) -> Option<PullsLeft> {
        self.client.pulls.left()
    }

    /// `repository` (`team/app`) as a source.
    pub fn repository(&self, repository: &str) -> RepositoryStore {
        RepositoryStore::new(self.client.clone(), repository)
    }

    /// `repository` (`team/app`), which `store` reads, to delete tags and manifests.
    fn deleter(&self, repository: &str, store: Arc<RepositoryStore>) -> delete::RepositoryDeleter {
        delete::RepositoryDeleter::new(self.client.clone(), repository, store)
    }

    /// `repository` (`team/app`) as a destination.
    pub fn sink(&self, repository: &str) -> RepositorySink {
        RepositorySink::new(self.client.clone(), repository)
    }
}
