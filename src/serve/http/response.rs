//! The body of a response: empty, a short text, or a blob that is read as fast as the client receives it.
//!
//! A blob is read buffer by buffer on a blocking thread, and only when the connection can send: a stalled client
//! occupies one or two buffers and no thread.

use super::buffers;
use super::buffers::MIN_BUFFER_BYTES;
use crate::serve::access_log::RequestLog;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};

/// The first pause before a reader without available bytes is polled again; it doubles each time.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(20);
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(160);

/// The body of a response.
pub struct ResponseBody {
    content: Content,
    log: Option<RequestLog>,
    /// The memory permit of a manifest, until it has been sent.
    _memory: Option<OwnedSemaphorePermit>,
}

enum Content {
    Empty,
    Text(Bytes),
    Blob { left: u64, buffer_bytes: usize, pause: Duration, state: ReadState },
}

enum ReadState {
    Idle(Box<dyn Read + Send>),
    /// The reader had no bytes available.
    Waiting(Box<dyn Read + Send>, Pin<Box<Sleep>>),
    Running(JoinHandle<io::Result<(Box<dyn Read + Send>, Bytes)>>),
    Done,
}

impl ResponseBody {
    pub fn empty() -> ResponseBody {
        ResponseBody { content: Content::Empty, log: None, _memory: None }
    }

    pub fn text(text: impl Into<Bytes>) -> ResponseBody {
        ResponseBody { content: Content::Text(text.into()), log: None, _memory: None }
    }

    /// `size` bytes of `reader`, in buffers of at most `buffer_bytes` bytes.
    pub fn blob(reader: Box<dyn Read + Send>, size: u64, buffer_bytes: usize) -> ResponseBody {
        let content =
            Content::Blob { left: size, buffer_bytes, pause: FIRST_RETRY_PAUSE, state: ReadState::Idle(reader) };
        ResponseBody { content, log: None, _memory: None }
    }

    /// The remaining size in bytes.
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Empty => 0,
            Content::Text(text) => text.len() as u64,
            Content::Blob { left, .. } => *left,
        }
    }

    /// Removes the bytes, for a response to HEAD.
    pub fn without_bytes(self) -> ResponseBody {
        ResponseBody { content: Content::Empty, ..self }
    }

    /// Attaches the memory permit of a manifest.
    pub fn with_memory(self, memory: Option<OwnedSemaphorePermit>) -> ResponseBody {
        ResponseBody { _memory: memory, ..self }
    }

    /// Attaches the request's log record, which is written when the body is dropped.
    pub fn with_log(self, log: RequestLog) -> ResponseBody {
        ResponseBody { log: Some(log), ..self }
    }
}

/// Reads up to `want` bytes; returns none if the reader has no bytes available (`WouldBlock`). The end of the reader is
/// an error, since the client knows the size.
fn read(mut reader: Box<dyn Read + Send>, want: usize) -> io::Result<(Box<dyn Read + Send>, Bytes)> {
    let bytes = buffers::fill(want, |buffer| {
        let mut filled = 0;
        while filled < want {
            match reader.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob ended early"));
                }
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    })?;
    Ok((reader, bytes))
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let bytes = match &mut this.content {
            Content::Empty => return Poll::Ready(None),
            Content::Text(text) if text.is_empty() => return Poll::Ready(None),
            Content::Text(text) => std::mem::take(text),
            Content::Blob { left, buffer_bytes, pause, state } => {
                match poll_blob(left, *buffer_bytes, pause, state, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Ready(Some(Ok(bytes))) => bytes,
                    Poll::Ready(Some(Err(error))) => {
                        if let Some(log) = &mut this.log {
                            log.failed(&error);
                        }
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        };
        if let Some(log) = &mut this.log {
            log.sent(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.size() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size())
    }
}

fn poll_blob(
    left: &mut u64,
    buffer_bytes: usize,
    pause: &mut Duration,
    state: &mut ReadState,
    cx: &mut Context<'_>,
) -> Poll<Option<io::Result<Bytes>>> {
    let next = |left: u64, reader| {
        let want = left.min(buffer_bytes as u64) as usize;
        ReadState::Running(tokio::task::spawn_blocking(move || read(reader, want)))
    };
    loop {
        if *left == 0 {
            *state = ReadState::Done;
            return Poll::Ready(None);
        }
        match std::mem::replace(state, ReadState::Done) {
            ReadState::Done => return Poll::Ready(None),
            ReadState::Idle(reader) => *state = next(*left, reader),
            ReadState::Waiting(reader, mut until) => match until.as_mut().poll(cx) {
                Poll::Ready(()) => *state = next(*left, reader),
                Poll::Pending => {
                    *state = ReadState::Waiting(reader, until);
                    return Poll::Pending;
                }
            },
            ReadState::Running(mut read) => {
                let Poll::Ready(read) = Pin::new(&mut read).poll(cx) else {
                    *state = ReadState::Running(read);
                    return Poll::Pending;
                };
                return Poll::Ready(Some(match read.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                    Ok((reader, buffer)) if buffer.is_empty() => {
                        *state = ReadState::Waiting(reader, Box::pin(sleep(*pause)));
                        *pause = (2 * *pause).min(MAX_RETRY_PAUSE);
                        continue;
                    }
                    Ok((reader, buffer)) => {
                        *left -= buffer.len() as u64;
                        *pause = FIRST_RETRY_PAUSE;
                        // Reads the next buffer while this one is sent, unless the connection has only one buffer.
                        *state = match *left {
                            0 => ReadState::Done,
                            left if buffer_bytes > MIN_BUFFER_BYTES => next(left, reader),
                            _ => ReadState::Idle(reader),
                        };
                        Ok(buffer)
                    }
                    Err(error) => Err(error),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Returns one byte at a time, and `WouldBlock` at every other call.
    struct Halting(u8, bool);

    impl Read for Halting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            match (self.1, self.0) {
                (true, _) => Err(io::ErrorKind::WouldBlock.into()),
                (false, 0) => Ok(0),
                (false, left) => {
                    (self.0, buffer[0]) = (left - 1, left);
                    Ok(1)
                }
            }
        }
    }

    #[test]
    fn a_reader_that_has_nothing_yet_is_asked_again_and_one_that_ends_early_is_told() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sent = |size| {
            runtime.block_on(async move {
                let mut response = ResponseBody::blob(Box::new(Halting(3, false)), size, 100);
                let mut sent = Vec::new();
                loop {
                    match poll_fn(|cx| Pin::new(&mut response).poll_frame(cx)).await {
                        None => return Ok(sent),
                        Some(Ok(frame)) => sent.extend_from_slice(&frame.into_data().unwrap()),
                        Some(Err(error)) => return Err(error.kind()),
                    }
                }
            })
        };
        assert_eq!(sent(3), Ok(vec![3, 2, 1]));
        assert_eq!(sent(4), Err(io::ErrorKind::UnexpectedEof));
    }
}
