//! `containerd:[REF]`: containerd's directory or its socket as a SRC, its socket as a DST. Another way to write is in
//! `transport/combined/containerd.rs`.

use super::ContainerdStore;
use super::socket::{Connection, DEFAULT_SOCKET, Limits, LocalSocket, SocketSink, SocketStore};
use crate::progress::Event;
use crate::rate_limit::Limit;
use crate::sink::Sink;
use crate::source::{Selector, Store};
use crate::transport::address::{OpenSource, RepositoryName, SelectedSource, ServeSource, all_of};
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The default of `--src-root`.
const ROOT: &str = "/var/lib/containerd";
/// The shortest time between two checks of a running containerd for other images.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Opens the directory or the socket as a SRC.
pub(crate) fn source(
    selector: Option<&Selector>,
    options: &ReadOptions<'_>,
    context: &Context,
) -> Result<SelectedSource> {
    let (store, _) = open(&Location::of(options), options, context)?;
    Ok(SelectedSource { source: OpenSource::Store(store), selector: selector.cloned(), name: None })
}

/// Describes the directory or the socket for `imgmv serve`.
pub(crate) fn serve_source(
    selector: Option<&Selector>,
    options: &ReadOptions<'_>,
    context: &Context,
) -> Result<ServeSource> {
    all_of(selector)?;
    let location = Location::of(options);
    let namespace = location.namespace.clone();
    let (_, place) = open(&location, options, context)?;
    let watch = context.watch.clone();
    let (watched, reopen): (Vec<PathBuf>, crate::transport::address::Reopen) = match place {
        Place::Directory(root) => (
            vec![root.join("io.containerd.metadata.v1.bolt/meta.db")],
            Box::new(move || Ok(Arc::new(ContainerdStore::open(&root, namespace.as_deref())?) as Arc<dyn Store>)),
        ),
        // No file tells of changes, so the images are listed again.
        Place::Socket(connection) => (
            Vec::new(),
            Box::new(move || {
                let store = SocketStore::open(connection.clone(), namespace.as_deref(), watch.clone())?;
                Ok(Arc::new(store) as Arc<dyn Store>)
            }),
        ),
    };
    let repository = RepositoryName::Fixed("containerd");
    Ok(ServeSource::Store { watched, poll_interval: POLL_INTERVAL, repository, open: reopen })
}

/// Opens the socket as a DST.
///
/// # Errors
/// - `NotFound`, `Denied`, `RemoteHost`: the socket cannot be opened, or nothing answers on it.
pub(crate) fn sink(options: &WriteOptions<'_>, context: &Context) -> Result<Box<dyn Sink>> {
    let address = options.address.map(str::to_owned).or_else(|| environment("CONTAINERD_ADDRESS"));
    let namespace = options.namespace.map(str::to_owned).or_else(|| environment("CONTAINERD_NAMESPACE"));
    let connection = connect(address.as_deref().unwrap_or(DEFAULT_SOCKET), context)?;
    let sink = SocketSink::open(connection, namespace.as_deref(), options.verify, context.watch.clone())?;
    Ok(Box::new(sink.with_cache(context.cache_dir.clone())))
}

/// Where containerd's images are read.
struct Location {
    root: PathBuf,
    /// The socket that the user names; `None`: the directory, or the usual socket.
    address: Option<String>,
    /// `None`: all.
    namespace: Option<String>,
}

/// Where they were found.
enum Place {
    Directory(PathBuf),
    Socket(Arc<Connection>),
}

impl Location {
    /// The options, and the environment, which describes this host's containerd and not the directory of `--src-root`.
    fn of(options: &ReadOptions<'_>) -> Location {
        let is_default = options.storage_root.is_none();
        let set = |name: &str| environment(name).filter(|_| is_default);
        Location {
            root: options.storage_root.unwrap_or(Path::new(ROOT)).to_owned(),
            address: options.address.map(str::to_owned).or_else(|| set("CONTAINERD_ADDRESS")),
            namespace: options.namespace.map(str::to_owned).or_else(|| set("CONTAINERD_NAMESPACE")),
        }
    }
}

fn open(location: &Location, options: &ReadOptions<'_>, context: &Context) -> Result<(Arc<dyn Store>, Place)> {
    let namespace = location.namespace.as_deref();
    let by_socket = |address: &str| -> Result<(Arc<dyn Store>, Place)> {
        let connection = connect(address, context)?;
        let store = SocketStore::open(connection.clone(), namespace, context.watch.clone())?;
        Ok((Arc::new(store), Place::Socket(connection)))
    };
    if let Some(address) = &location.address {
        return by_socket(address);
    }
    let unreadable = match ContainerdStore::open(&location.root, namespace) {
        Ok(store) => return Ok((Arc::new(store), Place::Directory(location.root.clone()))),
        Err(error) => error,
    };
    let is_closed = matches!(unreadable.kind(), Kind::NotFound | Kind::Denied);
    if options.storage_root.is_some() || !is_closed || !Path::new(DEFAULT_SOCKET).exists() {
        return Err(unreadable);
    }
    context.watch.event(Event::Detail(&format!("{unreadable}; the socket is used instead")));
    by_socket(DEFAULT_SOCKET).map_err(|error| Error::new(error.kind(), format!("{unreadable}; {error}")))
}

fn connect(address: &str, context: &Context) -> Result<Arc<Connection>> {
    Ok(Arc::new(Connection::new(Box::new(LocalSocket::new(address)), limits(context, None))?))
}

/// The limits of a connection in this run.
pub(crate) fn limits(context: &Context, rate: Option<Arc<Limit>>) -> Limits {
    Limits { timeout: context.timeout, rate, cancel: context.cancel.clone() }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
