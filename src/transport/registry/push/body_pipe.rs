//! A request whose body is pushed piece by piece: ureq pulls it on a thread of its own, a bounded channel lies between.

use super::upload::Target;
use crate::error::{Error, Result};
use crate::transport::registry::http::{Call, Payload, Response};
use std::{
    io::{self, Read},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{Builder, JoinHandle},
};

/// Pieces that may wait for the sending thread.
const WAITING: usize = 1;

/// The sending side has ended; joining it says why.
pub struct Ended;

enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// A request under way whose body is given piece by piece. Dropped without `end`, the body breaks off.
pub struct BodyPipe {
    give: SyncSender<Piece>,
    spare: Receiver<Vec<u8>>,
    /// Bytes of the body that the connection has taken.
    taken: Arc<AtomicU64>,
    thread: JoinHandle<Result<Response>>,
}

impl BodyPipe {
    pub fn start(target: Target, call: Call, size: Option<u64>, what: String) -> Result<BodyPipe> {
        let (give, take) = sync_channel(WAITING);
        let (used, spare) = channel();
        let taken: Arc<AtomicU64> = Arc::default();
        let count = taken.clone();
        let thread = Builder::new()
            .name("upload".to_owned())
            .spawn(move || {
                let mut pipe = Pipe { take, used, count, piece: Vec::new(), at: 0, ended: false };
                target.wire.send(&call, Payload::Stream { bytes: &mut pipe, size }, &target.scope, &what)
            })
            .map_err(|e| Error::reading("what is to be sent, on a thread of its own", e))?;
        Ok(BodyPipe { give, spare, taken, thread })
    }

    pub fn give(&mut self, piece: Vec<u8>) -> std::result::Result<(), Ended> {
        self.give.send(Piece::Bytes(piece)).map_err(|_| Ended)
    }

    pub fn end(&mut self) -> std::result::Result<(), Ended> {
        self.give.send(Piece::End).map_err(|_| Ended)
    }

    /// A buffer that was sent.
    pub fn spare(&mut self) -> Option<Vec<u8>> {
        self.spare.try_recv().ok()
    }

    /// The answer, and how many bytes of the body the connection has taken: what it has not taken did not arrive.
    pub fn finish(self) -> (Result<Response>, u64) {
        drop(self.give);
        let ended = self.thread.join();
        let answer = ended.unwrap_or_else(|_| Err(Error::failed("the thread that sends a blob panicked")));
        (answer, self.taken.load(Ordering::Relaxed))
    }
}

/// The other end: what `BodyPipe` is given, read.
struct Pipe {
    take: Receiver<Piece>,
    used: Sender<Vec<u8>>,
    count: Arc<AtomicU64>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            match self.take.recv() {
                Ok(Piece::Bytes(piece)) => {
                    // Nobody may want the old buffer any more.
                    let _ = self.used.send(std::mem::replace(&mut self.piece, piece));
                    self.at = 0;
                }
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(Error::failed("the blob was given up").into()),
            }
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
