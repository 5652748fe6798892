//! `docker://`: a registry (OCI distribution-spec v1.1, Docker Registry v2), read and pushed to.
//!
//! The map, from the wire up: `connect` makes connections (`proxy`, `tls`); `http` is one request (`fault`: why it
//! failed); `wire` adds redirects, retries (`retry`) and credentials (`authorize`, `auth`, `challenge`, `token`,
//! `credentials` with `auth_file`, `helper`, `files`); `refusal` turns a registry's words into sentences, `page` knows
//! what is not a registry's. Above it `store` (with `manifest`, `blob`, `tags`, `referrers`, `skipped`; `elsewhere`:
//! nondistributable layers from other hosts) reads a repository and `sink` (with `upload`, `session`, `streamed`, `feed`,
//! `body_limit`, `uploads`, `marks`, `cached`) writes one; `login` keeps credentials. `mirrors` and `insecure` read what
//! this machine's engines are told (`settings`).

pub mod auth;
pub mod configuration;
pub mod http;
pub mod mirrors;
mod options;
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

pub use auth::credentials::known as knows_login;
pub use auth::login::{Kept, login, logout};
pub use mirrors::store::MirroredStore;
pub use options::{Access, Credentials, Insecure, Secret};
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
