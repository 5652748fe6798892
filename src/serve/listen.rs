//! Binds the listening address, accepts connections and stops the server.

use super::access::browser_guard::BrowserGuard;
use super::access_log::Counted;
use super::backend::catalog::Catalog;
use super::backend::reload::Live;
use super::handlers::manifest_memory::Documents;
use super::handlers::push;
use super::handlers::uploads::Sessions;
use super::http::connection;
use super::http::connection::ConnectionContext;
use super::http::tls::Certificate;
use super::server::{Options, Server};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// The maximum number of blocking threads; a request uses one at a time, for a buffer or a lookup.
const BLOCKING: usize = 256;
/// The stack of each thread. The deepest use is parsing nested JSON, whose depth is bounded.
const STACK: usize = 1 << 20;
/// The minimum and maximum of the interval between two removals of expired uploads; the default is their lifetime.
const SWEEP: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// Open files in addition to two for each connection (its socket and a blob).
const FILES: u64 = 1024;

/// A server that is bound to its address and does not answer yet.
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Live<TlsAcceptor>>,
    server: Arc<Server>,
    cancel: Cancel,
}

impl Listening {
    /// Binds the address in `options`.
    ///
    /// Fails with `Usage` if the server cannot listen on the address.
    pub fn bind(catalog: Catalog, options: Options) -> Result<Listening> {
        let at = options.listen;
        let refused = |e: std::io::Error| {
            Error::usage(format!("cannot listen on {at}: {}; choose another address with --listen", Error::from(e)))
        };
        let tls = options.certificate.as_ref().map(Certificate::following).transpose()?;
        let listener = TcpListener::bind(at).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let server = Server {
            catalog,
            rights: options.rights.over(if tls.is_some() { "https" } else { "http" }),
            gate: BrowserGuard::new(address, &options.names),
            limits: options.limits,
            figures: options.figures,
            journal: options.journal,
            watch: options.watch,
            target: options.target,
            sessions: Sessions::default(),
            upload_life: options.upload_life,
            documents: Documents::default(),
        };
        Ok(Listening { listener, address, tls, server: Arc::new(server), cancel: options.cancel })
    }

    /// The bound address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `cancel` is raised; then waits for requests in flight, up to the stop timeout.
    pub fn run(self) -> Result<()> {
        more_files(2 * self.server.limits.connections as u64 + FILES);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING + self.server.limits.waiting)
            .thread_stack_size(STACK)
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
        let done = runtime.block_on(self.accept(stopped));
        // Does not wait for threads that are blocked on a slow disk or upstream.
        runtime.shutdown_background();
        done
    }

    async fn accept(self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let limits = self.server.limits.clone();
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|e| Error::failed(format!("cannot start the server: {e}")))?;
        let room = Arc::new(Semaphore::new(limits.connections));
        if self.server.target.is_some() {
            let life = self.server.upload_life;
            tokio::spawn(push::expire(self.server.clone(), life.clamp(SWEEP.0, SWEEP.1), life));
        }
        loop {
            let seat = tokio::select! {
                seat = room.clone().acquire_owned() => seat,
                _ = stopped.changed() => break,
            };
            let Ok(seat) = seat else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.changed() => break,
            };
            let Ok((socket, peer)) = accepted else {
                // For example, the process has no free file descriptor; other connections may end meanwhile.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = socket.set_nodelay(true);
            let rank = limits.connections - room.available_permits();
            let context = ConnectionContext { peer, rank, server: self.server.clone(), stopped: stopped.clone() };
            let figures = &self.server.figures;
            figures.accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let counted = Counted::new(figures, |figures| &figures.connections);
            let tls = self.tls.as_ref().and_then(|tls| tls.now().ok()).map(|tls| TlsAcceptor::clone(&tls));
            tokio::spawn(async move {
                connection::serve(socket, tls, context).await;
                drop((seat, counted));
            });
        }
        drop(listener);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits.stop, room.acquire_many(all)).await.is_err() {
            self.server.watch.say("stopped before all requests had finished");
        }
        Ok(())
    }
}

/// Raises the soft limit of open files to `wanted`, as far as the hard limit allows.
fn more_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    }
}
