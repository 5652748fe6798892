//! `containerd:[REF]` as a SRC: the directory of containerd. Writing needs an engine (`transport/combined.rs`).

use super::ContainerdStore;
use crate::Result;
use crate::source::{Selector, Store};
use crate::transport::address::{RepositoryName, SelectedSource, ServeSource, all_of};
use crate::transport::options::ReadOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The default of `--src-root`.
const ROOT: &str = "/var/lib/containerd";
/// The shortest time between two checks of the database of a running containerd.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Opens the directory as a SRC.
pub(crate) fn source(selector: Option<&Selector>, options: &ReadOptions<'_>) -> Result<SelectedSource> {
    let (root, namespace) = location(options);
    Ok(SelectedSource::store(ContainerdStore::open(&root, namespace.as_deref())?, selector.cloned()))
}

/// Describes the directory for `imgmv serve`.
pub(crate) fn serve_source(selector: Option<&Selector>, options: &ReadOptions<'_>) -> Result<ServeSource> {
    all_of(selector)?;
    let (root, namespace) = location(options);
    Ok(ServeSource::Store {
        watched: vec![root.join("io.containerd.metadata.v1.bolt/meta.db")],
        poll_interval: POLL_INTERVAL,
        repository: RepositoryName::Fixed("containerd"),
        open: Box::new(move || Ok(Arc::new(ContainerdStore::open(&root, namespace.as_deref())?) as Arc<dyn Store>)),
    })
}

/// The directory and the namespace: the given one, else `CONTAINERD_NAMESPACE` for this host's directory, else all.
fn location(options: &ReadOptions<'_>) -> (PathBuf, Option<String>) {
    let is_default = options.storage_root.is_none();
    let environment = || std::env::var("CONTAINERD_NAMESPACE").ok().filter(|value| is_default && !value.is_empty());
    let namespace = options.namespace.map(str::to_owned).or_else(environment);
    (options.storage_root.unwrap_or(Path::new(ROOT)).to_owned(), namespace)
}
