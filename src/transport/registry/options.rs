//! The connection options of one side's registries (source or destination): credentials, trust, time-outs, retries.

use super::http::throttle::MAX_BUFFERED_RANGES;
use crate::rate_limit::Limit;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// The path of a registry's API by the distribution-spec.
pub const API_ROOT: &str = "/v2";

/// A password or a token. `Debug` prints dots.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text; only for a header or a credential helper's standard input.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The user's credentials for a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// From the credential files of docker and podman, if a registry asks for credentials.
    #[default]
    Stored,
    /// None; no credential file is read.
    Anonymous,
    /// From the command line, for every registry of this side.
    Password {
        /// The user name; the registry defines its form.
        user: String,
        /// The password or an access token.
        password: Secret,
    },
}

/// Whether an invalid certificate is accepted, and plain HTTP if the registry has no TLS (as skopeo's
/// `--tls-verify=false`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Insecure {
    /// Certificates are verified, and plain HTTP is refused except for a loopback host.
    #[default]
    No,
    /// For this host only, by the configuration of this host's engines ([`super::mirrors::insecure`]). Redirect targets
    /// are not included. Credentials go over plain HTTP only if a login at that HTTP host stored them.
    ByFiles,
    /// For this host only, by a document of images (`imgmv sync`). Redirect targets are not included. Credentials go over
    /// plain HTTP if they stand in the document too, or a login at that HTTP host stored them.
    ByDocument,
    /// For every host, by the user's option.
    ByUser,
}

impl Insecure {
    /// Whether insecure connections are allowed.
    pub(crate) fn is_allowed(self) -> bool {
        self != Insecure::No
    }
}

/// The connection options of one side's registries. Equal accesses to one host share their connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The user's credentials.
    pub credentials: Credentials,
    /// Whether insecure connections are allowed.
    pub insecure: Insecure,
    /// A PEM file of certificate authorities to trust in addition to the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate (chain) and its key; used only for the registry's own host.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// The only credential file to read, instead of the usual ones.
    pub authfile: Option<PathBuf>,
    /// Further hosts whose token service may get the registry's credentials (see `token.rs` for the rule).
    pub token_hosts: Vec<String>,
    /// The directories with `HOST[:PORT]/*.crt`, `*.cert` and `*.key`; by default those of docker and containers.
    pub certs_dirs: Vec<PathBuf>,
    /// The time-out of a connection without a byte. A registry that stores a blob may take ten times as long to respond.
    pub timeout: Duration,
    /// The time-out of connecting; `None`: as `timeout`.
    pub connect_timeout: Option<Duration>,
    /// The time-out of the first byte of a response; `None`: four times `timeout`.
    pub response_timeout: Option<Duration>,
    /// The maximum number of retries of a request; a body's progress between two failures resets it.
    pub retries: u32,
    /// The pause before the first retry; it doubles with each retry.
    pub retry_pause: Duration,
    /// The chunk size in bytes; larger blobs are sent in chunks.
    pub chunk_bytes: Option<u64>,
    /// Blobs above this size (bytes) are sent in chunks of half of it, if the registry accepts chunks. A killed run
    /// then loses one chunk, if the registry keeps the finished ones.
    pub chunk_above_bytes: u64,
    /// The cache directory that saves unfinished uploads for a later run; `None`: they are not saved.
    pub cache_dir: Option<PathBuf>,
    /// The number of blobs transferred in parallel.
    pub parallel_blobs: usize,
    /// The maximum number of requests at the same time, whatever the registry allows (`--jobs`).
    pub max_requests: usize,
    /// The pulls (`GET` of a manifest) to leave of those that the host still allows (`--hub-reserve`); `None`: use all.
    pub hub_reserve: Option<u64>,
    /// The maximum number of parallel ranges of a large blob of a remote registry; 1: one connection per blob.
    pub parallel_ranges: usize,
    /// The rate limit of blobs and manifests, both directions together; `None`: unlimited.
    pub rate_limit: Option<Arc<Limit>>,
    /// The path of the registry's API: `/v2`, unless a mirror has another path.
    pub api_root: String,
    /// The registry that a mirror stands for, sent with each request (`?ns=`).
    pub namespace: Option<String>,
    /// The buffer size of one connection and direction, in bytes. The default makes the cost of system calls negligible
    /// and keeps dozens of connections small.
    pub buffer_bytes: usize,
    /// Headers sent to the registry's own host with every request: a name in lower case, and a value.
    pub headers: Vec<(&'static str, String)>,
}

impl Access {
    /// Whether credentials may go over plain HTTP that no login at an HTTP host stored.
    pub(super) fn sends_given_credentials_over_http(&self) -> bool {
        match self.insecure {
            Insecure::ByUser => true,
            Insecure::ByDocument => matches!(self.credentials, Credentials::Password { .. }),
            Insecure::No | Insecure::ByFiles => false,
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Access {
            credentials: Credentials::Stored,
            insecure: Insecure::No,
            ca: None,
            client_cert: None,
            authfile: None,
            token_hosts: Vec::new(),
            certs_dirs: usual_certs_dirs(),
            timeout: Duration::from_secs(30),
            connect_timeout: None,
            response_timeout: None,
            retries: 5,
            retry_pause: Duration::from_millis(500),
            chunk_bytes: None,
            chunk_above_bytes: 64 << 20,
            cache_dir: None,
            parallel_blobs: 6,
            max_requests: usize::MAX,
            hub_reserve: None,
            parallel_ranges: 1 + MAX_BUFFERED_RANGES,
            rate_limit: None,
            api_root: API_ROOT.to_owned(),
            namespace: None,
            buffer_bytes: 128 << 10,
            headers: Vec::new(),
        }
    }
}

/// docker's directory and containers' (containers-certs.d(5)).
fn usual_certs_dirs() -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from("/etc/docker/certs.d"), PathBuf::from("/etc/containers/certs.d")];
    dirs.extend(super::auth::files::config_home().map(|home| home.join("containers/certs.d")));
    dirs
}
