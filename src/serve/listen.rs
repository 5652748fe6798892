//! The address that a server listens on, its connections, and its end.

use super::access::browser_guard::BrowserGuard;
use super::access_log::Counted;
use super::backend::catalog::Catalog;
use super::backend::reload::Live;
use super::handlers::manifest_memory::Documents;
use super::handlers::push;
use super::handlers::uploads::Sessions;
use super::http::connection;
use super::http::connection::Line;
use super::http::tls::Certificate;
use super::server::{Options, Server};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// Threads that may block, at most: a request uses one at a time, for a buffer or a question.
const BLOCKING: usize = 256;
/// In bytes; the deepest thing on it is a JSON document's nesting, which is bounded.
const STACK: usize = 1 << 20;
/// Between two looks for uploads that nobody goes on with: their life, but neither oftener nor more seldom.
const SWEEP: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// Open files beside those of each connection: its socket, and a blob.
const FILES: u64 = 1024;

/// A server that has its address, and has not answered yet.
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Live<TlsAcceptor>>,
    server: Arc<Server>,
    cancel: Cancel,
}

impl Listening {
    /// Takes the address in `options`.
    ///
    /// Fails with `Usage` where the address cannot be listened on.
    pub fn bind(catalog: Catalog, options: Options) -> Result<Listening> {
        let at = options.listen;
        let refused = |e: std::io::Error| {
            Error::usage(format!("cannot listen on {at}: {}; choose another with --listen", Error::from(e)))
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

    /// With the port that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the run is cancelled; then ends when everything under way has ended, or its time is over.
    pub fn run(self) -> Result<()> {
        more_files(2 * self.server.limits.connections as u64 + FILES);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING + self.server.limits.waiting)
            .thread_stack_size(STACK)
            .build()
            .map_err(|e| Error::failed(format!("the server cannot start: {e}")))?;
        let (stop, stopped) = watch::channel(false);
        self.cancel.on_raise(move || {
            // Nobody listens any more where the server has ended by itself.
            let _ = stop.send(true);
        });
        if self.cancel.raised() {
            return Ok(());
        }
        let done = runtime.block_on(self.accept(stopped));
        // A thread that waits for a slow disk or upstream is not waited for.
        runtime.shutdown_background();
        done
    }

    async fn accept(self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let limits = self.server.limits.clone();
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|e| Error::failed(format!("the server cannot start: {e}")))?;
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
                // Out of files, say: others may end meanwhile.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = socket.set_nodelay(true);
            let rank = limits.connections - room.available_permits();
            let line = Line { peer, rank, server: self.server.clone(), stopped: stopped.clone() };
            let figures = &self.server.figures;
            figures.accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let counted = Counted::new(figures, |figures| &figures.connections);
            let tls = self.tls.as_ref().and_then(|tls| tls.now().ok()).map(|tls| TlsAcceptor::clone(&tls));
            tokio::spawn(async move {
                connection::serve(socket, tls, line).await;
                drop((seat, counted));
            });
        }
        drop(listener);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits.stop, room.acquire_many(all)).await.is_err() {
            self.server.watch.say("stopped before every request had ended");
        }
        Ok(())
    }
}

/// Lets the process have as many open files as it may, if it needs them.
fn more_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    }
}
