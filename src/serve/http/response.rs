//! The body of a response: empty, a short text, or a blob that is read as fast as the client receives it.
//!
//! A blob is read buffer by buffer on a blocking thread, and only when the connection can send: a stalled client
//! occupies one or two buffers and no thread.

use super::buffers;
use super::buffers::LEAST_SHARE;
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
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// The body of a response.
pub struct Answer {
    what: What,
    tally: Option<RequestLog>,
    /// The memory permit of a manifest, until it has been sent.
    _room: Option<OwnedSemaphorePermit>,
}

enum What {
    Nothing,
    Text(Bytes),
    Blob { left: u64, share: usize, pause: Duration, reading: Reading },
}

enum Reading {
    Idle(Box<dyn Read + Send>),
    /// The reader had no bytes available.
    Waiting(Box<dyn Read + Send>, Pin<Box<Sleep>>),
    Under(JoinHandle<io::Result<(Box<dyn Read + Send>, Bytes)>>),
    Over,
}

impl Answer {
    pub fn nothing() -> Answer {
        Answer { what: What::Nothing, tally: None, _room: None }
    }

    pub fn text(text: impl Into<Bytes>) -> Answer {
        Answer { what: What::Text(text.into()), tally: None, _room: None }
    }

    /// `size` bytes of `reader`, in buffers of at most `share` bytes.
    pub fn blob(reader: Box<dyn Read + Send>, size: u64, share: usize) -> Answer {
        let what = What::Blob { left: size, share, pause: PAUSE, reading: Reading::Idle(reader) };
        Answer { what, tally: None, _room: None }
    }

    /// The remaining size in bytes.
    pub fn size(&self) -> u64 {
        match &self.what {
            What::Nothing => 0,
            What::Text(text) => text.len() as u64,
            What::Blob { left, .. } => *left,
        }
    }

    /// Removes the bytes, for a response to HEAD.
    pub fn head(self) -> Answer {
        Answer { what: What::Nothing, ..self }
    }

    /// Attaches the memory permit of a manifest.
    pub fn holding(self, room: Option<OwnedSemaphorePermit>) -> Answer {
        Answer { _room: room, ..self }
    }

    /// Attaches the request's log record, which is written when the body is dropped.
    pub fn tallied(self, tally: RequestLog) -> Answer {
        Answer { tally: Some(tally), ..self }
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

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let bytes = match &mut this.what {
            What::Nothing => return Poll::Ready(None),
            What::Text(text) if text.is_empty() => return Poll::Ready(None),
            What::Text(text) => std::mem::take(text),
            What::Blob { left, share, pause, reading } => match poll_blob(left, *share, pause, reading, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Ok(bytes))) => bytes,
                Poll::Ready(Some(Err(error))) => {
                    if let Some(tally) = &mut this.tally {
                        tally.failed(&error);
                    }
                    return Poll::Ready(Some(Err(error)));
                }
            },
        };
        if let Some(tally) = &mut this.tally {
            tally.sent(bytes.len() as u64);
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
    share: usize,
    pause: &mut Duration,
    reading: &mut Reading,
    cx: &mut Context<'_>,
) -> Poll<Option<io::Result<Bytes>>> {
    let next = |left: u64, reader| {
        let want = left.min(share as u64) as usize;
        Reading::Under(tokio::task::spawn_blocking(move || read(reader, want)))
    };
    loop {
        if *left == 0 {
            *reading = Reading::Over;
            return Poll::Ready(None);
        }
        match std::mem::replace(reading, Reading::Over) {
            Reading::Over => return Poll::Ready(None),
            Reading::Idle(reader) => *reading = next(*left, reader),
            Reading::Waiting(reader, mut until) => match until.as_mut().poll(cx) {
                Poll::Ready(()) => *reading = next(*left, reader),
                Poll::Pending => {
                    *reading = Reading::Waiting(reader, until);
                    return Poll::Pending;
                }
            },
            Reading::Under(mut read) => {
                let Poll::Ready(read) = Pin::new(&mut read).poll(cx) else {
                    *reading = Reading::Under(read);
                    return Poll::Pending;
                };
                return Poll::Ready(Some(match read.unwrap_or_else(|lost| Err(io::Error::other(lost))) {
                    Ok((reader, buffer)) if buffer.is_empty() => {
                        *reading = Reading::Waiting(reader, Box::pin(sleep(*pause)));
                        *pause = (2 * *pause).min(LONGEST_PAUSE);
                        continue;
                    }
                    Ok((reader, buffer)) => {
                        *left -= buffer.len() as u64;
                        *pause = PAUSE;
                        // Reads the next buffer while this one is sent, unless the connection has only one buffer.
                        *reading = match *left {
                            0 => Reading::Over,
                            left if share > LEAST_SHARE => next(left, reader),
                            _ => Reading::Idle(reader),
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
                let mut answer = Answer::blob(Box::new(Halting(3, false)), size, 100);
                let mut sent = Vec::new();
                loop {
                    match poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
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
