//! The way to a containerd's socket.

use crate::error::{Error, Result};
use crate::remote::Host;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// A local socket opens at once, unless what listens accepts no connections and its queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket of containerd's packages.
pub(crate) const DEFAULT_SOCKET: &str = "/run/containerd/containerd.sock";

/// A containerd that can be connected to, repeatedly.
pub trait Endpoint: Send + Sync {
    /// The subject of messages: `containerd at /run/containerd/containerd.sock`, `web1: containerd`.
    fn name(&self) -> &str;

    /// Opens a connection.
    ///
    /// # Errors
    /// - `NotFound`: the socket does not exist.
    /// - `Denied`: this user may not open it.
    /// - `Usage`: it is not a socket.
    /// - `RemoteHost`: nothing listens there, or the host cannot be reached.
    fn connect(&self) -> Result<UnixStream>;
}

/// A socket in this host's file system.
pub struct LocalSocket {
    path: PathBuf,
    name: String,
}

impl LocalSocket {
    /// Names the socket at `address`, a path that may begin with `unix://`.
    pub fn new(address: &str) -> LocalSocket {
        let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        let name = format!("containerd at {}", path.display());
        LocalSocket { path, name }
    }
}

impl Endpoint for LocalSocket {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Result<UnixStream> {
        let path = self.path.clone();
        within(CONNECT_TIMEOUT, move || UnixStream::connect(path)).map_err(|error| {
            let name = &self.name;
            match error.kind() {
                io::ErrorKind::NotFound => Error::not_found(format!(
                    "{name}: the socket does not exist; start containerd, or name its socket with --src-address or \
                     --dst-address"
                )),
                io::ErrorKind::PermissionDenied => {
                    Error::denied(format!("{name}: this user may not open the socket; run imgmv as root"))
                }
                io::ErrorKind::ConnectionRefused if !is_socket(&self.path) => {
                    Error::usage(format!("{name}: this is a file or a directory, and no socket"))
                }
                io::ErrorKind::ConnectionRefused => {
                    Error::remote_host(format!("{name}: nothing listens on the socket; start containerd"))
                }
                io::ErrorKind::TimedOut => Error::remote_host(format!(
                    "{name}: no connection was accepted for {} s; restart what listens on the socket",
                    CONNECT_TIMEOUT.as_secs()
                )),
                _ => Error::remote_host(format!("{name}: the socket cannot be opened: {error}")),
            }
        })
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// The result of `connect`, which cannot be cancelled, or `TimedOut` after `limit`.
fn within<T: Send + 'static>(
    limit: Duration,
    connect: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = mpsc::channel();
    thread::Builder::new().spawn(move || sender.send(connect()))?;
    result.recv_timeout(limit).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A socket of another host, which ssh forwards.
pub(crate) struct ForwardedSocket {
    host: Arc<dyn Host>,
    path: String,
    name: String,
}

impl ForwardedSocket {
    /// Names the socket at `address` on `host`.
    pub fn new(host: Arc<dyn Host>, address: &str) -> ForwardedSocket {
        let path = address.strip_prefix("unix://").unwrap_or(address).to_owned();
        let name = format!("{}: containerd at {path}", host.name());
        ForwardedSocket { host, path, name }
    }
}

impl Endpoint for ForwardedSocket {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Result<UnixStream> {
        self.host.connect_socket(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_accepts_nothing_is_given_up() {
        let (end, hung) = mpsc::channel::<()>();
        let result = within(Duration::from_millis(1), move || Ok(hung.recv().is_ok()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(end);
        assert!(within(CONNECT_TIMEOUT, || Ok(true)).unwrap());
    }
}
