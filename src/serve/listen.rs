//! Binds the listening address, accepts connections and stops the server.

use super::access::browser_guard::BrowserGuard;
use super::access_log::GaugeGuard;
use super::backend::catalog::Catalog;
use super::backend::reload::Reloading;
use super::handlers::manifest_memory::ManifestMemory;
use super::handlers::push;
use super::handlers::uploads::OpenUploads;
use super::http::connection;
use super::http::connection::ConnectionContext;
use super::http::tls::Certificate;
use super::server::{Server, ServerOptions};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// The maximum number of blocking threads; a request uses one at a time, for a buffer or a lookup.
const MAX_BLOCKING_THREADS: usize = 256;
/// The stack of each thread. The deepest use is parsing nested JSON, whose depth is bounded.
const STACK_BYTES: usize = 1 << 20;
/// The minimum and maximum of the interval between two prunings of uploads; the default is their lifetime.
const PRUNE_INTERVAL_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// Open files in addition to two for each connection (its socket and a blob).
const EXTRA_OPEN_FILES: u64 = 1024;

/// A server that is bound to its socket address and does not respond yet.
pub struct Listener {
    listener: TcpListener,
    socket_address: SocketAddr,
    tls: Option<Reloading<TlsAcceptor>>,
    server: Arc<Server>,
    cancel: Cancel,
}

impl Listener {
    /// Binds the address in `options`.
    ///
    /// Fails with `Usage` if the server cannot listen on the address.
    pub fn bind(catalog: Catalog, options: ServerOptions) -> Result<Listener> {
        let at = options.listen;
        let cannot_listen = |e: std::io::Error| {
            Error::usage(format!("cannot listen on {at}: {}; choose another address with --listen", Error::from(e)))
        };
        let tls = options.certificate.as_ref().map(Certificate::reloading_acceptor).transpose()?;
        let listener = TcpListener::bind(at).map_err(cannot_listen)?;
        listener.set_nonblocking(true).map_err(cannot_listen)?;
        let socket_address = listener.local_addr().map_err(cannot_listen)?;
        let server = Server {
            catalog,
            rights: options.rights.with_scheme(if tls.is_some() { "https" } else { "http" }),
            browser_guard: BrowserGuard::new(socket_address, &options.allowed_hosts),
            limits: options.limits,
            metrics: options.metrics,
            access_log: options.access_log,
            watch: options.watch,
            writable: options.writable,
            uploads: OpenUploads::default(),
            upload_lifetime: options.upload_lifetime,
            manifest_memory: ManifestMemory::default(),
        };
        Ok(Listener { listener, socket_address, tls, server: Arc::new(server), cancel: options.cancel })
    }

    /// The bound socket address, with the actual port.
    pub fn socket_address(&self) -> SocketAddr {
        self.socket_address
    }

    /// Responds to requests until `cancel` is raised; then waits for requests in flight, up to the stop timeout.
    pub fn run(self) -> Result<()> {
        raise_file_limit(2 * self.server.limits.connections as u64 + EXTRA_OPEN_FILES);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS + self.server.limits.upstream_threads)
            .thread_stack_size(STACK_BYTES)
            .build()
            .map_err(|e| Error::failed(format!("cannot start the server: {e}")))?;
        let (stop, stopped) = watch::channel(false);
        self.cancel.on_raise(move || {
            // Fails only if the server has already ended.
            let _ = stop.send(true);
        });
        if self.cancel.raised() {
            return Ok(());
        }
        let result = runtime.block_on(self.accept(stopped));
        // Does not wait for threads that are blocked on a slow disk or upstream.
        runtime.shutdown_background();
        result
    }

    async fn accept(self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let limits = self.server.limits.clone();
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|e| Error::failed(format!("cannot start the server: {e}")))?;
        let permits = Arc::new(Semaphore::new(limits.connections));
        if self.server.writable.is_some() {
            let lifetime = self.server.upload_lifetime;
            tokio::spawn(push::prune_uploads(
                self.server.clone(),
                lifetime.clamp(PRUNE_INTERVAL_RANGE.0, PRUNE_INTERVAL_RANGE.1),
                lifetime,
            ));
        }
        loop {
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit,
                _ = stopped.changed() => break,
            };
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.changed() => break,
            };
            let Ok((socket, client)) = accepted else {
                // For example, the process has no free file descriptor; other connections may end meanwhile.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = socket.set_nodelay(true);
            let open_connections = limits.connections - permits.available_permits();
            let context =
                ConnectionContext { client, open_connections, server: self.server.clone(), stopped: stopped.clone() };
            let metrics = &self.server.metrics;
            metrics.accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let connection_gauge = GaugeGuard::new(metrics, |metrics| &metrics.connections);
            let tls = self.tls.as_ref().and_then(|tls| tls.current().ok()).map(|tls| TlsAcceptor::clone(&tls));
            tokio::spawn(async move {
                connection::serve(socket, tls, context).await;
                drop((permit, connection_gauge));
            });
        }
        drop(listener);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits.stop_timeout, permits.acquire_many(all)).await.is_err() {
            self.server.watch.say("stopped before all requests had finished");
        }
        Ok(())
    }
}

/// Raises the soft limit of open files to `wanted`, as far as the hard limit allows.
fn raise_file_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    }
}
