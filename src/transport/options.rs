//! The options of the command line that transports honour, as plain values. A transport ignores those of the others.

use super::engine::{Engine, WireCompression};
use super::registry::{Access, RegistryPool};
use crate::Result;
use crate::cancel::Cancel;
use crate::progress::Watch;
use crate::rate_limit::Limit;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Returns the access to a host for a repository, or for all below a path. Lazy, since it may ask for a password.
pub(crate) type AccessTo<'a> = Box<dyn Fn(&str, &str) -> Result<Access> + 'a>;

/// The options of a SRC.
pub(crate) struct ReadOptions<'a> {
    pub access: AccessTo<'a>,
    /// `--mirror`: `HOST[/PATH]`.
    pub mirrors: &'a [String],
    /// `--src-root`: the directory of a store on a disk.
    pub storage_root: Option<&'a Path>,
    /// `--src-address`: containerd's socket.
    pub address: Option<&'a str>,
    /// `--src-namespace`
    pub namespace: Option<&'a str>,
    /// `--src-engine`
    pub engine: Option<Engine>,
}

/// The options of a DST.
pub(crate) struct WriteOptions<'a> {
    pub access: AccessTo<'a>,
    /// `--engine`
    pub engine: Option<Engine>,
    /// `--dst-address`: containerd's socket.
    pub address: Option<&'a str>,
    /// `--namespace`
    pub namespace: Option<&'a str>,
    /// `--remote-command`
    pub remote_command: Option<&'a str>,
    /// `--wire`; none: decided by the host, the images and the connection.
    pub wire_compression: Option<WireCompression>,
    /// `--dry-run`: nothing is created or written.
    pub dry_run: bool,
    /// `--verify`: blobs at the destination are hashed, not only compared by size.
    pub verify: bool,
    /// Whether a blob that another copy of the run is sending to the same registry is waited for. Not for copies that
    /// share one read of the source.
    pub waits_for_uploads: bool,
    /// `--keep-partials`
    pub partial_lifetime: Duration,
    /// The level of an archive that is compressed as a whole.
    pub level: Option<i32>,
}

/// The parts of a run that every transport uses.
pub(crate) struct Context {
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
    /// `--ssh`, parsed only for a connection.
    pub ssh: String,
    /// `--timeout`: the longest time without progress.
    pub timeout: Duration,
    /// imgmv's directory in the user's cache, for what a later run resumes with.
    pub cache_dir: Option<PathBuf>,
    /// `--limit-rate`, for connections to hosts. [`Access`] has it for registries.
    pub limit: Option<Arc<Limit>>,
    /// The registries of the run; all contexts of one run have clones of one pool.
    pub registries: RegistryPool,
}
