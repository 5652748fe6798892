//! The body of an answer: nothing, a short text, or a blob that is read as fast as its client takes it.
//!
//! A blob is read a buffer at a time on a thread that may block, and only when the connection has room: a client that
//! stands still holds a buffer or two and no thread.

use super::buffers;
use super::journal::Tally;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// What is sent back.
pub struct Answer {
    what: What,
    tally: Option<Tally>,
    /// What the text takes of the room for documents, until it has gone.
    _room: Option<OwnedSemaphorePermit>,
}

enum What {
    Nothing,
    Text(Bytes),
    Blob { left: u64, share: usize, reading: Reading },
}

enum Reading {
    Idle(Box<dyn Read + Send>),
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
        Answer { what: What::Blob { left: size, share, reading: Reading::Idle(reader) }, tally: None, _room: None }
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        match &self.what {
            What::Nothing => 0,
            What::Text(text) => text.len() as u64,
            What::Blob { left, .. } => *left,
        }
    }

    /// The same without the bytes, as an answer to HEAD.
    pub fn head(self) -> Answer {
        Answer { what: What::Nothing, ..self }
    }

    /// The same, with the room in memory that it takes.
    pub fn holding(self, room: Option<OwnedSemaphorePermit>) -> Answer {
        Answer { _room: room, ..self }
    }

    /// Counted by `tally`, which ends with it.
    pub fn tallied(self, tally: Tally) -> Answer {
        Answer { tally: Some(tally), ..self }
    }
}

/// The next `want` bytes; fewer are an error, since the size was announced.
fn read(mut reader: Box<dyn Read + Send>, want: usize) -> io::Result<(Box<dyn Read + Send>, Bytes)> {
    let bytes = buffers::fill(want, |buffer| reader.read_exact(buffer))?;
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
            What::Blob { left, share, reading } => match poll_blob(left, *share, reading, cx) {
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
            Reading::Under(mut read) => {
                let Poll::Ready(read) = Pin::new(&mut read).poll(cx) else {
                    *reading = Reading::Under(read);
                    return Poll::Pending;
                };
                return Poll::Ready(Some(match read.unwrap_or_else(|lost| Err(io::Error::other(lost))) {
                    Ok((reader, buffer)) => {
                        *left -= buffer.len() as u64;
                        // The next buffer is read while this one is sent.
                        *reading = match *left {
                            0 => Reading::Over,
                            left => next(left, reader),
                        };
                        Ok(buffer)
                    }
                    Err(error) => Err(error),
                }));
            }
        }
    }
}
