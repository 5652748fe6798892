//! `docker://`: a registry (OCI distribution-spec v1.1, Docker Registry v2), read and pushed to.
//!
//! - `http`: connections (`connect`, over ureq's transport layer, whose version is pinned since semver does not cover
//!   that layer), one request and its errors, redirects, retries, throttling, proxies, TLS. `client` combines them with
//!   `auth`.
//! - `auth`: challenges, tokens, credential files and helpers, login and logout.
//! - `pull` and `store`: manifests, blobs and their ranges, tags, referrers.
//! - `push` and `sink`: upload sessions, chunks, body limits, resuming.
//! - `mirrors`: the mirrors and insecure registries that this machine's engines are configured with.
//!
//! **Retries.** One policy (`http/retry.rs`) counts attempts without progress: 16 KiB between two breaks reset it.
//! Content with a wrong digest (`Error::is_digest_mismatch`) is requested once more. A 401 is answered with a new token that
//! all requests share; a request that loses this token too fetches one for itself (`TokenUse::Own`), so parallel requests
//! cannot starve one another. A refusal by a redirect's target is not the registry's: the client asks the registry for
//! another address, three times in a row, and then names the storage host. `http/web_page.rs` tells a web page from a
//! registry's answer (a captive portal answers 200 to everything), `Manifest::check_fields` a manifest from any other
//! document; unusable entries of a list are skipped and counted (`pull/skipped.rs`).
//!
//! **Downloads** resume with `Range`; a blob below its announced size is resumed once. A registry 30 ms away gets 32
//! small requests at once, and large blobs in ranges of 2 MiB, 24 MiB in memory at most (`pull/ranges.rs`); a 429 ends
//! that. Mirrors are asked before the registry and left at the byte where they fail.
//!
//! **Uploads** (`push/streamed`) resume at the offset that the registry reports. A registry that has forgotten an
//! upload gets it again in chunks, each on its own connection, and `http/throttle.rs` remembers that for the next
//! blobs. A refused request is repeated in its session, at the same byte where the registry has read none of its body:
//! `connect/early.rs` reads an answer that precedes the body's end, and a registry that has refused a body is asked
//! first (`Expect: 100-continue`). `streamed/lengths.rs` decides on chunks: by the line, by a known limit of body sizes
//! (`body_limit.rs`, kept for a week), by `--chunk-size`, or from 64 MiB on. A body that breaks twice at one size, with
//! nothing kept, counts as refused, unless the registry took that size before. The user's cache keeps unfinished
//! uploads for a day (`resume_cache.rs`, mode 0600). Bytes that the registry has are read again to be hashed; not from
//! another registry, for which the hash's state is saved (`hash_checkpoints.rs`). docker-registry 2.8 forgets an upload
//! that is cut inside a request, since its data and its signed offset disagree.

pub(crate) mod address;
pub mod auth;
pub mod configuration;
pub mod http;
pub mod mirrors;
mod options;
mod prefix;
mod pull;
pub mod push;
mod referrers;
mod sink;
mod store;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::progress::Watch;
use http::client::RegistryClient;
use std::sync::Arc;

pub use auth::credentials::exist as has_credentials;
pub use auth::login::{LoginOutcome, login, logout};
pub use mirrors::store::MirroredStore;
pub use options::{Access, Credentials, Insecure, Secret};
pub(crate) use prefix::Prefix;
pub use pull::foreign_layer::ForeignStore;
pub use sink::RepositorySink;
pub use store::RepositoryStore;

/// Where docker.io's registry really is.
const HUB_API: &str = "registry-1.docker.io";

/// One registry host: its connections, what it wants to be shown, the tokens in hand. Its repositories share them.
pub struct Registry {
    wire: Arc<RegistryClient>,
}

impl Registry {
    /// The registry at `host` (`HOST[:PORT]` as in references; `docker.io` is docker's). Nothing is asked yet.
    /// Fails with `Usage` where `host` is not one.
    pub fn new(host: &str, access: Access, watch: Arc<dyn Watch>, cancel: Cancel) -> Result<Arc<Registry>> {
        Ok(Arc::new(Registry { wire: Arc::new(RegistryClient::new(host, access, watch, cancel)?) }))
    }

    /// `HOST[:PORT]` as in references.
    pub fn host(&self) -> &str {
        &self.wire.host
    }

    /// To read from `repository` (`team/app`).
    pub fn repository(&self, repository: &str) -> RepositoryStore {
        RepositoryStore::new(self.wire.clone(), repository)
    }

    /// To push to `repository` (`team/app`).
    pub fn sink(&self, repository: &str) -> RepositorySink {
        RepositorySink::new(self.wire.clone(), repository)
    }
}
