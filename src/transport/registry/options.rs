//! How the registries of one side (source or destination) are reached: who the user is there, what is trusted, how
//! patient to be.

use super::http::throttle::MAX_PIECES;
use crate::rate_limit::Limit;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// Where the distribution-spec has a registry's API.
pub const ROOT: &str = "/v2";

/// A password or a token. It shows itself to nobody: `Debug` prints dots.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for a header or a helper's standard input and nothing else.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Who the user is at a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Looked for in the files of docker and podman, when a registry asks.
    #[default]
    Stored,
    /// Nobody: no file is asked.
    Nobody,
    /// Given by the user, for every registry of this side.
    Password { user: String, password: Secret },
}

/// Whether a registry may be reached without a certificate that verifies, and over plain HTTP where it has no TLS (as
/// skopeo's `--tls-verify=false`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Insecure {
    #[default]
    No,
    /// This machine's engines are told so of the host ([`super::mirrors::insecure`]). Other hosts that the registry names are not
    /// meant, and credentials go over plain HTTP only where a login at that HTTP host kept them.
    ByFiles,
    /// The user said so, of every host that is asked.
    ByUser,
}

impl Insecure {
    pub fn is_allowed(self) -> bool {
        self != Insecure::No
    }
}

/// How one side's registries are reached.
#[derive(Debug, Clone)]
pub struct Access {
    pub credentials: Credentials,
    pub insecure: Insecure,
    /// A PEM file of authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate (chain) and its key; shown to the registry's own host only.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// The only file of credentials to look into, instead of the usual ones.
    pub authfile: Option<PathBuf>,
    /// Further hosts whose token service may be given the registry's credentials (see `token.rs` for the rule).
    pub token_hosts: Vec<String>,
    /// Where `HOST[:PORT]/*.crt`, `*.cert` and `*.key` lie; the usual directories by default.
    pub certs_dirs: Vec<PathBuf>,
    /// A connection without a byte for so long is broken. A registry that stores what it was sent may take ten times
    /// as long to answer.
    pub timeout: Duration,
    /// A connection that is not made in so long is given up; as `timeout` when none.
    pub connect: Option<Duration>,
    /// An answer that has not begun after so long is given up; four times `timeout` when none.
    pub answer: Option<Duration>,
    /// How often one request is tried again. What a body delivers between two breaks refills it.
    pub retries: u32,
    /// The pause before the first retry; it doubles from one to the next.
    pub pause: Duration,
    /// In bytes: larger blobs are sent in chunks of this size.
    pub chunk: Option<u64>,
    /// In bytes: larger blobs are sent in chunks of half of it, where the registry takes them. A killed run then costs one
    /// chunk, where the registry keeps finished ones.
    pub large: u64,
    /// Where uploads that did not end are remembered for a later run; nowhere when none.
    pub cache: Option<PathBuf>,
    /// How many blobs are best under way at once.
    pub lanes: usize,
    /// In how many parts large blobs of a far registry are read at once, at most; 1: each over one connection.
    pub parts: usize,
    /// How fast bytes of blobs and manifests may move, both ways together; as fast as they can when none.
    pub limit: Option<Arc<Limit>>,
    /// The path of the registry's API, `/v2` unless it is a mirror that has it elsewhere.
    pub root: String,
    /// The registry that a mirror stands for: it is told with each question (`?ns=`).
    pub namespace: Option<String>,
    /// In bytes, of one connection and direction: system calls hardly count from the default on, and dozens of
    /// connections stay small.
    pub buffer: usize,
    /// Shown to the registry's own host with every request: a name in lower case, and what it says.
    pub marks: Vec<(&'static str, String)>,
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
            connect: None,
            answer: None,
            retries: 5,
            pause: Duration::from_millis(500),
            chunk: None,
            large: 64 << 20,
            cache: None,
            lanes: 6,
            parts: 1 + MAX_PIECES,
            limit: None,
            root: ROOT.to_owned(),
            namespace: None,
            buffer: 128 << 10,
            marks: Vec::new(),
        }
    }
}

/// docker's directory and containers' (containers-certs.d(5)).
fn usual_certs_dirs() -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from("/etc/docker/certs.d"), PathBuf::from("/etc/containers/certs.d")];
    dirs.extend(super::auth::files::config_home().map(|home| home.join("containers/certs.d")));
    dirs
}
