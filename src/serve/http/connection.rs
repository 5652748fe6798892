//! One connection: TLS if configured, HTTP/1.1, and disconnection of clients that are too slow.

use super::buffers::MIN_BUFFER_BYTES;
use super::minimum_rate::MinimumRate;
use super::router;
use crate::serve::server::Server;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// The maximum size of a request's head.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The maximum size of encrypted bytes that wait to be sent.
const MAX_ENCRYPTED_BYTES: usize = 64 << 10;
/// The time limit of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for a client that is still sending to read its error response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of buffers drained in one poll.
const MAX_DRAINED_BUFFERS: usize = 64;

/// The context of one connection.
pub struct ConnectionContext {
    pub client: SocketAddr,
    /// The number of open connections when this one was accepted.
    pub open_connections: usize,
    pub server: Arc<Server>,
    pub stopped: watch::Receiver<bool>,
}

impl ConnectionContext {
    /// The buffer size of this connection. The first connections get large buffers; the buffers of a thousand slow
    /// connections take about 40 MB.
    fn buffer_bytes(&self) -> usize {
        match self.open_connections {
            0..=16 => 256 << 10,
            17..=64 => 64 << 10,
            _ => MIN_BUFFER_BYTES,
        }
    }
}

/// Serves one connection to its end.
pub async fn serve(socket: TcpStream, tls: Option<TlsAcceptor>, context: ConnectionContext) {
    let idle = context.server.limits.idle_timeout;
    match tls {
        None => serve_http(MinimumRateStream::new(socket, idle), context).await,
        Some(tls) => {
            // Encrypted bytes that are not sent yet also take memory.
            let buffer_bytes = context.buffer_bytes().min(MAX_ENCRYPTED_BYTES);
            let accepted = tls.accept_with(socket, |tls_session| tls_session.set_buffer_limit(Some(buffer_bytes)));
            // A client that fails the handshake gets no response.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, accepted).await {
                serve_http(MinimumRateStream::new(stream, idle), context).await;
            }
        }
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, context: ConnectionContext) {
    let buffer_bytes = context.buffer_bytes();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(context.server.limits.head_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(buffer_bytes.max(MAX_HEAD_BYTES));
    let (server, client) = (context.server.clone(), context.client.ip());
    // Boxed, so that an idle connection does not take the memory of a handler's state.
    let service = service_fn(move |request: Request<Incoming>| {
        Box::pin(router::respond(server.clone(), client, buffer_bytes, request))
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut stopped = context.stopped;
    // Connection errors are the client's and are not reported; the access log has every incomplete request.
    let stopping = tokio::select! {
        _ = &mut connection => false,
        _ = async { stopped.wait_for(|stopped| *stopped).await.is_ok() } => true,
    };
    if stopping {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// A stream whose writes fail if the client reads too slowly.
struct MinimumRateStream<S> {
    stream: S,
    rate: MinimumRate,
    /// The start and the deadline of the current wait for the client.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    linger_until: Option<Pin<Box<Sleep>>>,
}

/// The number of bytes that a write step moved.
trait Moved {
    fn bytes(&self) -> usize;
}

impl Moved for () {
    fn bytes(&self) -> usize {
        0
    }
}

impl Moved for usize {
    fn bytes(&self) -> usize {
        *self
    }
}

impl<S> MinimumRateStream<S> {
    fn new(stream: S, idle: Duration) -> MinimumRateStream<S> {
        MinimumRateStream { stream, rate: MinimumRate::new(idle), waiting: None, linger_until: None }
    }

    /// Returns `polled`, or a timeout error when the client's time is used up. Flushing moves no bytes.
    fn check_rate<T: Moved>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = polled {
            let waited = self.waiting.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            self.rate.record(waited, done.as_ref().map_or(0, Moved::bytes));
            return Poll::Ready(done);
        }
        let left = self.rate.remaining();
        let (_, until) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MinimumRateStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MinimumRateStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_rate(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_rate(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.check_rate(cx, polled)
    }

    /// Shuts the write side down, then reads for up to `LINGER_TIMEOUT`: closing while a client still sends would discard the
    /// response.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_until.is_none() {
            let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.check_rate(cx, polled))?;
            self.linger_until = Some(Box::pin(sleep(LINGER_TIMEOUT)));
        }
        let this = &mut *self;
        let mut drained = [0; 16 << 10];
        for _ in 0..MAX_DRAINED_BUFFERS {
            let mut buffer = ReadBuf::new(&mut drained);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => match &mut this.linger_until {
                    Some(until) => return until.as_mut().poll(cx).map(Ok),
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
        // Yields to other tasks.
        if this.linger_until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
