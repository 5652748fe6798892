//! A download into a cache: one thread fetches, hashes and writes a blob, and any number of clients read its available
//! bytes.
//!
//! A download is independent of its clients' connections. Clients get the last byte only after the digest was verified,
//! so a client cannot take a corrupt blob for a complete one.

use super::evict::Budget;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Hasher};
use crate::progress::Silent;
use crate::source::{Claim, Store};
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use crate::transfer::{TransferContext, buffer_in_company, transfer};
use crate::transport::layout::{Filling, LayoutCache};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The interval between two checks while waiting.
const GLANCE: Duration = Duration::from_secs(1);
/// The maximum number of clients that wait on a blocking thread; further ones poll.
const WAITERS: usize = 64;
/// The time that a response waits for a download's first bytes, to report an early error. Then the response starts.
const BEGINNING: Duration = Duration::from_secs(10);

/// A blob that is being downloaded.
pub struct PartialBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The file from which clients read.
    file: Option<Arc<File>>,
    /// The number of available bytes.
    at: u64,
    ended: Option<Result<()>>,
}

/// Opens the source directly at an offset, if the cache is full.
pub type Around = Box<dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Send>;

impl PartialBlob {
    pub fn new(digest: Digest, size: u64) -> PartialBlob {
        PartialBlob { digest, size, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes waiting clients.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sets the result, if the download has not ended.
    pub fn end(&self, ended: Result<()>) {
        self.change(|state| {
            state.ended.get_or_insert(ended);
        });
    }

    /// Opens the blob at offset `from`; the reader follows the download. Fails if the download has already failed.
    pub fn read(self: &Arc<PartialBlob>, from: u64, around: Around) -> Result<Box<dyn Read + Send>> {
        let until = Instant::now() + BEGINNING;
        let mut state = self.state();
        while state.at == 0 && state.ended.is_none() && Instant::now() < until {
            state = self.wait(state);
        }
        if let Some(Err(error)) = &state.ended
            && error.kind() != Kind::Unwritable
        {
            return Err(error.clone());
        }
        drop(state);
        Ok(Box::new(Following { growing: self.clone(), at: from, around, beside: None }))
    }
}

/// A client's reader of a partial blob.
struct Following {
    growing: Arc<PartialBlob>,
    at: u64,
    around: Around,
    /// The direct reader of the source, if the cache is full.
    beside: Option<Box<dyn Read + Send>>,
}

/// The bytes that are available to a client.
enum Found {
    Bytes(Arc<File>, usize),
    NoRoom,
    /// No bytes yet.
    Later,
}

/// The number of clients that wait on a blocking thread.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// One counted waiting client.
struct Waiter;

impl Waiter {
    /// `None` if the maximum number of clients is waiting.
    fn new() -> Option<Waiter> {
        let waiting = WAITING.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter;
        (waiting < WAITERS).then_some(waiter)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Following {
    /// Returns the next bytes. Waits one interval for them if few clients wait. A download always ends, since its reads
    /// have timeouts.
    fn next(&self, want: usize) -> Result<Found> {
        let size = self.growing.size;
        let mut state = self.growing.state();
        let mut waiter = None;
        loop {
            let there = match &state.ended {
                Some(Ok(())) => size,
                Some(Err(error)) if error.kind() == Kind::Unwritable => return Ok(Found::NoRoom),
                Some(Err(error)) => return Err(error.clone()),
                None => state.at.min(size.saturating_sub(1)),
            };
            if let (Some(file), true) = (&state.file, there > self.at) {
                let n = (there - self.at).min(want as u64) as usize;
                return Ok(Found::Bytes(file.clone(), n));
            }
            if self.at >= size {
                return Err(Error::failed("read past the end of a blob"));
            }
            if waiter.is_some() {
                return Ok(Found::Later);
            }
            waiter = Waiter::new();
            if waiter.is_none() {
                return Ok(Found::Later);
            }
            state = self.growing.wait(state);
        }
    }
}

impl Read for Following {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.growing.size || buffer.is_empty() {
            return Ok(0);
        }
        if let Some(beside) = &mut self.beside {
            return beside.read(buffer);
        }
        match self.next(buffer.len())? {
            Found::Bytes(file, n) => {
                let n = file.read_at(&mut buffer[..n], self.at)?;
                self.at += n as u64;
                Ok(n)
            }
            Found::Later => Err(io::ErrorKind::WouldBlock.into()),
            Found::NoRoom => self.beside.insert((self.around)(self.at)?).read(buffer),
        }
    }
}

/// A download and its resources.
pub struct Fill {
    pub growing: Arc<PartialBlob>,
    pub layout: Arc<LayoutCache>,
    pub budget: Arc<Budget>,
    pub source: Arc<dyn Store>,
    pub cancel: Cancel,
    /// Called with the result.
    pub ended: Ended,
}

pub type Ended = Box<dyn FnOnce(&Result<()>) + Send>;

impl Fill {
    /// Downloads the blob. The caller must pass the result to the waiting clients.
    pub fn run(self) -> Result<()> {
        let fetched = self.fetch();
        (self.ended)(&fetched);
        fetched
    }

    fn fetch(&self) -> Result<()> {
        let PartialBlob { digest, size, .. } = *self.growing;
        let room = self.budget.reserve(size)?;
        if let Some(Filling { writer, bytes }) = self.layout.fill(digest, size)? {
            self.growing.change(|state| state.file = Some(Arc::new(bytes)));
            let (claim, stop) = (Claim { digest: Some(digest), size: Some(size) }, AtomicBool::new(false));
            let buffer = buffer_in_company(1);
            let flow = TransferContext {
                watch: &Silent,
                cancel: &self.cancel,
                stop: &stop,
                id: 0,
                threads: 1,
                buffer,
                recent: buffer,
            };
            let blob = Descriptor::new("", digest, size);
            let writer = Box::new(Shown { writer, growing: &self.growing });
            transfer(&claim, &mut |from| self.source.open(&blob, from), writer, &flow)?;
        }
        room.keep();
        // From here on the clients hold a shared lock on the stored blob. They have copies of the partial file's
        // handle, and its exclusive lock ends only with the last copy, so it is unlocked explicitly.
        if let Some(file) = &self.growing.state().file {
            let _ = file.unlock();
        }
        match self.layout.read(&digest)? {
            Some(file) => self.growing.change(|state| state.file = Some(Arc::new(file))),
            None if self.growing.state().file.is_some() => {}
            None => {
                return Err(Error::unwritable(format!(
                    "blob {digest} was evicted from the cache directly after its download"
                )));
            }
        }
        Ok(())
    }
}

/// Publishes the number of written bytes.
struct Shown<'f> {
    writer: Box<dyn BlobWriter + 'f>,
    growing: &'f PartialBlob,
}

impl BlobWriter for Shown<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let (at, hasher) = self.writer.start(fresh)?;
        self.growing.change(|state| state.at = at);
        Ok((at, hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes)?;
        self.growing.change(|state| state.at += bytes.len() as u64);
        Ok(())
    }

    fn finish(&mut self, blob: &Verified) -> Result<()> {
        self.writer.finish(blob)
    }

    fn commit(self: Box<Self>, blob: &Verified) -> Result<()> {
        self.writer.commit(blob)
    }
}
