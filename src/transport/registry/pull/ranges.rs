//! A large blob of a far registry, read in several pieces at once: one connection moves no more than its window in a
//! round trip. The pieces are handed on in order; so many wait in memory at most. Where that does not work (a server
//! that knows no ranges, a piece that fails for good) the blob is read on as any other.

use super::blob::BlobReader;
use crate::error::{Error, Kind, Result};
use crate::image::Descriptor;
use crate::transport::registry::http::client::RegistryClient;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// In bytes, of one piece.
const PIECE: u64 = 2 << 20;
/// In bytes: what is left of a blob is read in pieces from here on.
const LARGE: u64 = 16 << 20;
/// Connections at the beginning; each piece that comes whole adds one.
const WORKERS: usize = 4;
const BUFFER: usize = 64 << 10;
/// How long a wait for another thread goes without a look at the cancel flag.
const GLANCE: Duration = Duration::from_millis(50);

/// The bytes of `blob` from `from` on, in whatever way suits how far away the registry is.
pub fn open<'a>(
    wire: &'a Arc<RegistryClient>,
    repository: &'a str,
    blob: &Descriptor,
    from: u64,
) -> Result<Box<dyn Read + Send + 'a>> {
    if from > blob.size {
        let (digest, size) = (blob.digest, blob.size);
        return Err(Error::invalid(format!("blob {digest} has {size} bytes and cannot be read from byte {from}")));
    }
    if blob.size.saturating_sub(from) < LARGE || !wire.pace.is_far() || wire.access.parts < 2 {
        return Ok(Box::new(BlobReader::open(wire, repository, blob, from)?));
    }
    let first = match BlobReader::open_part(wire, repository, blob, from..from + PIECE) {
        Err(error) if error.kind() == Kind::Failed => BlobReader::open(wire, repository, blob, from)?,
        first => first?,
    };
    if first.end() == blob.size {
        return Ok(Box::new(first));
    }
    let state = State {
        next: first.end(),
        workers: 0,
        most: WORKERS.min(wire.access.parts),
        closed: false,
        pieces: VecDeque::new(),
    };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    let shared =
        Arc::new(Shared { wire: wire.clone(), repository: repository.to_owned(), blob: blob.clone(), state, changed });
    shared.widen();
    Ok(Box::new(Ranged { wire, repository, shared, at: from, read: 0, whole: Some(first) }))
}

/// How many pieces may be under way beside the first, which is read where it comes.
fn beside(wire: &RegistryClient) -> usize {
    wire.access.parts - 1
}

struct Shared {
    wire: Arc<RegistryClient>,
    repository: String,
    blob: Descriptor,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Where the next piece begins.
    next: u64,
    workers: usize,
    /// Workers that are allowed.
    most: usize,
    /// Nobody reads any more.
    closed: bool,
    /// In their order.
    pieces: VecDeque<Piece>,
}

struct Piece {
    from: u64,
    bytes: Vec<u8>,
    /// How it ended, once it has.
    ended: Option<Result<()>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts workers up to what is allowed.
    fn widen(self: &Arc<Self>) {
        let mut state = self.state();
        while state.workers < state.most && !state.closed && state.next < self.blob.size {
            let own = self.clone();
            let started = thread::Builder::new().name("range".to_owned()).spawn(move || own.work());
            if started.is_err() {
                return;
            }
            state.workers += 1;
        }
    }

    fn work(self: Arc<Self>) {
        while let Some(from) = self.take() {
            let patience = self.wire.pace.patience();
            let done = self.fetch(from);
            let good = done.is_ok() && self.wire.pace.patience() == patience;
            let enough = {
                let mut state = self.state();
                // A server that asks for patience is asked by half as many.
                state.most = if good { (state.most + 1).min(beside(&self.wire)) } else { (state.most / 2).max(1) };
                if let Some(piece) = state.pieces.iter_mut().find(|piece| piece.from == from) {
                    piece.ended = Some(done);
                }
                state.workers > state.most
            };
            self.changed.notify_all();
            if enough {
                break;
            }
            self.widen();
        }
        self.state().workers -= 1;
        self.changed.notify_all();
    }

    /// The next piece, once there is room for it; none when there is none left, or nobody to read it.
    fn take(&self) -> Option<u64> {
        let mut state = self.state();
        loop {
            if state.closed || state.next >= self.blob.size || self.wire.cancel.raised() {
                return None;
            }
            let parts = beside(&self.wire);
            if state.pieces.len() < parts
                && let Some(mut room) = self.wire.pace.take_piece(parts)
            {
                let from = state.next;
                state.next = (from + PIECE).min(self.blob.size);
                room.reserve_exact(PIECE as usize);
                state.pieces.push_back(Piece { from, bytes: room, ended: None });
                return Some(from);
            }
            // Other blobs have pieces too: whoever has none of its own would wait for ever, so it is told to read on.
            let waited = self.changed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fetch(&self, from: u64) -> Result<()> {
        let to = (from + PIECE).min(self.blob.size);
        let mut reader = BlobReader::open_part(&self.wire, &self.repository, &self.blob, from..to)?;
        if reader.end() != to {
            return Err(Error::failed(format!("{} does not keep to ranges", self.wire.host)));
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = reader.read(&mut buffer).map_err(Error::from)?;
            if n == 0 {
                return Ok(());
            }
            {
                let mut state = self.state();
                if state.closed {
                    return Err(Error::interrupted());
                }
                if let Some(piece) = state.pieces.iter_mut().find(|piece| piece.from == from) {
                    piece.bytes.extend_from_slice(&buffer[..n]);
                }
            }
            self.changed.notify_all();
        }
    }
}

/// Reads the pieces in their order.
struct Ranged<'a> {
    wire: &'a Arc<RegistryClient>,
    repository: &'a str,
    shared: Arc<Shared>,
    at: u64,
    /// Bytes of the first piece that were read.
    read: usize,
    /// The first piece, or all that is left when pieces have failed: read from here.
    whole: Option<BlobReader<'a>>,
}

/// What the first piece holds for its reader.
enum Found {
    Bytes(usize),
    /// It was read to its end.
    Passed,
    /// It will not come.
    Failed,
}

impl Ranged<'_> {
    /// Waits for bytes of the first piece.
    fn wait(&mut self, buffer: &mut [u8]) -> Result<Found> {
        let mut state = self.shared.state();
        loop {
            self.wire.cancel.check()?;
            match state.pieces.front() {
                Some(piece) if piece.bytes.len() > self.read => {
                    let n = buffer.len().min(piece.bytes.len() - self.read);
                    buffer[..n].copy_from_slice(&piece.bytes[self.read..self.read + n]);
                    return Ok(Found::Bytes(n));
                }
                Some(Piece { ended: Some(Ok(())), .. }) => {
                    let passed = state.pieces.pop_front();
                    drop(state);
                    self.wire.pace.give_piece(passed.map(|piece| piece.bytes).unwrap_or_default());
                    self.shared.changed.notify_all();
                    return Ok(Found::Passed);
                }
                Some(Piece { ended: Some(Err(_)), .. }) => return Ok(Found::Failed),
                Some(_) => {}
                // Other blobs hold all the pieces there may be.
                None if !self.wire.pace.has_room(beside(self.wire)) => return Ok(Found::Failed),
                None => {}
            }
            let waited = self.shared.changed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the workers; their pieces are dropped.
    fn close(&self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.pieces.drain(..).for_each(|piece| self.wire.pace.give_piece(piece.bytes));
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Read for Ranged<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if buffer.is_empty() {
                return Ok(0);
            }
            if let Some(whole) = &mut self.whole {
                let n = whole.read(buffer)?;
                self.at += n as u64;
                if n > 0 || self.at == self.shared.blob.size {
                    return Ok(n);
                }
                self.whole = None;
            }
            if self.at == self.shared.blob.size {
                return Ok(0);
            }
            match self.wait(buffer)? {
                Found::Bytes(n) => {
                    self.read += n;
                    self.at += n as u64;
                    return Ok(n);
                }
                Found::Passed => self.read = 0,
                Found::Failed => {
                    self.close();
                    self.whole = Some(BlobReader::open(self.wire, self.repository, &self.shared.blob, self.at)?);
                }
            }
        }
    }
}

impl Drop for Ranged<'_> {
    fn drop(&mut self) {
        self.close();
    }
}
