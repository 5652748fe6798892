//! One connection: TLS if configured, HTTP/1.1, and disconnection of clients that are too slow.

use super::buffers::LEAST_SHARE;
use super::least_rate::Floor;
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
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The maximum size of encrypted bytes that wait to be sent.
const MAX_ENCRYPTED: usize = 64 << 10;
/// The time limit of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The time for a client that is still sending to read its error response.
const LINGER: Duration = Duration::from_secs(1);
/// The maximum number of buffers discarded in one poll.
const SCRAPS: usize = 64;

/// The context of one connection.
pub struct Line {
    pub peer: SocketAddr,
    /// The number of open connections when this one was accepted.
    pub rank: usize,
    pub server: Arc<Server>,
    pub stopped: watch::Receiver<bool>,
}

impl Line {
    /// The buffer size of this connection. The first connections get large buffers; the buffers of a thousand slow
    /// connections take about 40 MB.
    fn share(&self) -> usize {
        match self.rank {
            0..=16 => 256 << 10,
            17..=64 => 64 << 10,
            _ => LEAST_SHARE,
        }
    }
}

/// Serves one connection to its end.
pub async fn serve(socket: TcpStream, tls: Option<TlsAcceptor>, line: Line) {
    let idle = line.server.limits.idle;
    match tls {
        None => speak(Stalling::new(socket, idle), line).await,
        Some(tls) => {
            // Encrypted bytes that are not sent yet also take memory.
            let share = line.share().min(MAX_ENCRYPTED);
            let accepted = tls.accept_with(socket, |session| session.set_buffer_limit(Some(share)));
            // A client that fails the handshake gets no response.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, accepted).await {
                speak(Stalling::new(stream, idle), line).await;
            }
        }
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, line: Line) {
    let share = line.share();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(line.server.limits.head)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(share.max(MAX_HEAD));
    let (server, peer) = (line.server.clone(), line.peer.ip());
    // Boxed, so that an idle connection does not take the memory of a handler's state.
    let service =
        service_fn(move |request: Request<Incoming>| Box::pin(router::answer(server.clone(), peer, share, request)));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut stopped = line.stopped;
    // Connection errors are the client's and are not reported; the access log has every incomplete request.
    let told = tokio::select! {
        _ = &mut connection => false,
        _ = async { stopped.wait_for(|stopped| *stopped).await.is_ok() } => true,
    };
    if told {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// A stream whose writes fail if the client reads too slowly.
struct Stalling<S> {
    stream: S,
    floor: Floor,
    /// The start and the deadline of the current wait for the client.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    lingering: Option<Pin<Box<Sleep>>>,
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

impl<S> Stalling<S> {
    fn new(stream: S, idle: Duration) -> Stalling<S> {
        Stalling { stream, floor: Floor::new(idle), waiting: None, lingering: None }
    }

    /// Returns `polled`, or a timeout error when the client's time is used up. Flushing moves no bytes.
    fn watched<T: Moved>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = polled {
            let waited = self.waiting.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            self.floor.moved(waited, done.as_ref().map_or(0, Moved::bytes));
            return Poll::Ready(done);
        }
        let left = self.floor.left();
        let (_, until) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watched(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watched(cx, polled)
    }

    /// Shuts the write side down, then reads for up to `LINGER`: closing while a client still sends would discard the
    /// response.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.watched(cx, polled))?;
            self.lingering = Some(Box::pin(sleep(LINGER)));
        }
        let this = &mut *self;
        let mut scraps = [0; 16 << 10];
        for _ in 0..SCRAPS {
            let mut buffer = ReadBuf::new(&mut scraps);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => match &mut this.lingering {
                    Some(until) => return until.as_mut().poll(cx).map(Ok),
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
        // Yields to other tasks.
        if this.lingering.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
