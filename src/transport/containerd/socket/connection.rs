//! One HTTP/2 connection to a containerd, opened again when it was lost. The copy's threads block; a runtime with one
//! thread moves the bytes. Every wait ends with the cancelled copy, and after a time without progress.

use super::endpoint::Endpoint;
use super::incoming::{stream_failure, within};
use super::status::Failure;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::rate_limit::Limit;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The bytes that containerd may send ahead on one stream: a far line of 30 ms and 250 MB/s is full with it.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams together, which bounds the memory of a connection. An unread stream holds its part, so at
/// most one may wait while another is read.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The bytes that one system call reads: h2 alone reads half a frame of 16 KiB at a time.
const READ_BYTES: usize = 128 << 10;
/// The longest headers or trailers.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// The bytes of one stream that wait in the connection to be sent.
const MAX_SEND_BUFFER_BYTES: usize = 1 << 20;

/// The limits of a connection, and what ends it.
#[derive(Clone)]
pub struct Limits {
    /// The longest time without progress.
    pub timeout: Duration,
    /// `--limit-rate`, for a connection to another host.
    pub rate: Option<Arc<Limit>>,
    /// Ends every wait.
    pub cancel: Cancel,
}

/// The connection to a containerd.
pub struct Connection {
    endpoint: Box<dyn Endpoint>,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    live: Mutex<Option<Live>>,
    /// Whether a connection was open: a socket that cannot be opened later belongs to a containerd that starts again.
    was_open: AtomicBool,
    limits: Limits,
    cancelled: watch::Receiver<bool>,
}

/// A connection that was open at the last call.
#[derive(Clone)]
struct Live {
    requests: SendRequest<Bytes>,
    /// Why the connection ended; empty while it is open.
    end: Arc<Mutex<String>>,
}

impl Connection {
    /// Prepares a connection to `endpoint`, which the first call opens.
    ///
    /// # Errors
    /// - `Failed`: the thread of the connection cannot be started.
    pub fn new(endpoint: Box<dyn Endpoint>, limits: Limits) -> Result<Connection> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("containerd").enable_io().enable_time().build();
        let runtime = runtime.map_err(|e| Error::failed(format!("cannot start the thread of a connection: {e}")))?;
        let (raise, cancelled) = watch::channel(limits.cancel.raised());
        limits.cancel.on_raise(move || {
            raise.send_replace(true);
        });
        let (runtime, live, was_open) = (Some(runtime), Mutex::default(), AtomicBool::new(false));
        Ok(Connection { endpoint, runtime, live, was_open, limits, cancelled })
    }

    /// The subject of messages.
    pub fn name(&self) -> &str {
        self.endpoint.name()
    }

    /// The limits of the connection.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `future`, the cancelled copy, or the end of the time without progress.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Failure> {
        self.until_cancelled(within(self.limits.timeout, future))
    }

    /// Waits for `future` or the cancelled copy.
    pub(super) fn until_cancelled<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Some(runtime) = &self.runtime else { return Err(Failure::Lost("the connection was closed".to_owned())) };
        let mut cancelled = self.cancelled.clone();
        runtime.block_on(async move {
            tokio::select! {
                biased;
                done = future => done,
                _ = cancelled.wait_for(|raised| *raised) => Err(Failure::Other(Error::interrupted())),
            }
        })
    }

    /// Runs `future` on the connection's thread.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(future);
        }
    }

    /// Starts a request. Connects if the connection is not open or was lost.
    pub(super) fn request(
        &self,
        request: http::Request<()>,
    ) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), Failure> {
        self.limits.cancel.check()?;
        let live = self.open()?;
        let ready = self.wait(live.requests.clone().ready())?;
        let sent = ready.and_then(|mut requests| requests.send_request(request, false));
        sent.map_err(|error| self.lost(&live, &error))
    }

    /// The open connection, or a new one.
    fn open(&self) -> Result<Live, Failure> {
        let mut current = self.live();
        if let Some(live) = &*current
            && lock(&live.end).is_empty()
        {
            return Ok(live.clone());
        }
        let socket = self.endpoint.connect().map_err(|error| self.unopened(error))?;
        let live = self.handshake(socket)?;
        *current = Some(live.clone());
        self.was_open.store(true, Ordering::Relaxed);
        Ok(live)
    }

    /// The failure for a socket that cannot be opened.
    fn unopened(&self, error: Error) -> Failure {
        let may_return = self.was_open.load(Ordering::Relaxed);
        match error.kind() {
            Kind::NotFound | Kind::RemoteHost if may_return => {
                let text = error.to_string();
                let why = text.strip_prefix(self.name()).and_then(|text| text.strip_prefix(": "));
                Failure::Lost(why.unwrap_or(&text).to_owned())
            }
            _ => Failure::Other(error),
        }
    }

    fn handshake(&self, socket: UnixStream) -> Result<Live, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Lost(format!("the connection failed: {error}"));
        socket.set_nonblocking(true).map_err(|e| failed(&e))?;
        let opened = self.wait(async move {
            let socket = tokio::net::UnixStream::from_std(socket).map_err(|e| e.to_string())?;
            let socket = BufReader::with_capacity(READ_BYTES, socket);
            let mut builder = Builder::new();
            builder
                .initial_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_header_list_size(MAX_HEADER_BYTES)
                .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
                // h2 counts each frame that is still on its way when a reader is dropped, for the life of the
                // connection, and would end it after 1024.
                .max_local_error_reset_streams(None)
                .enable_push(false);
            let (requests, connection) = builder.handshake::<_, Bytes>(socket).await.map_err(|e| e.to_string())?;
            let end = Arc::new(Mutex::new(String::new()));
            let ended = end.clone();
            tokio::spawn(async move {
                let why = match connection.await {
                    Ok(()) => "the connection was closed".to_owned(),
                    Err(error) => format!("the connection was lost: {error}"),
                };
                *lock(&ended) = why;
            });
            Ok::<_, String>(Live { requests, end })
        })?;
        opened.map_err(|e| failed(&e))
    }

    /// Marks `live` as lost, so that the next call connects again, if `error` is the connection's and not one stream's.
    fn lost(&self, live: &Live, error: &h2::Error) -> Failure {
        if error.is_library() {
            return stream_failure(error);
        }
        let mut end = lock(&live.end);
        if end.is_empty() && !(error.is_reset() && error.is_remote()) {
            *end = format!("the connection was lost: {error}");
        }
        Failure::Lost(if end.is_empty() { format!("containerd ended the call: {error}") } else { end.clone() })
    }

    /// Closes the connection, so that the next call opens another one.
    pub(super) fn disconnect(&self) {
        *self.live() = None;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        *self.live() = None;
        if let Some(runtime) = self.runtime.take() {
            // Without waiting: a store may be dropped by a thread that must not block.
            runtime.shutdown_background();
        }
    }
}

fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}
