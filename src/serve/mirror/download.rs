//! A blob on its way into a cache: one thread fetches, hashes and writes it, any number of clients read what there is.
//!
//! Clients come and go; the fill goes on. The last byte is given only when the digest was found to be right, so that
//! nobody takes a wrong blob for a whole one.

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

/// How long a wait goes without a look around.
const GLANCE: Duration = Duration::from_secs(1);
/// Clients that wait on a thread of their own, at most; more look again every now and then.
const WAITERS: usize = 64;
/// So long an answer waits for a fill's first bytes, to say what is wrong if they do not come. Then it begins anyway.
const BEGINNING: Duration = Duration::from_secs(10);

/// A blob that is being fetched.
pub struct PartialBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where its bytes can be read.
    file: Option<Arc<File>>,
    /// Bytes that are there.
    at: u64,
    ended: Option<Result<()>>,
}

/// Where to go on from an offset if the cache has no room.
pub type Around = Box<dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Send>;

impl PartialBlob {
    pub fn new(digest: Digest, size: u64) -> PartialBlob {
        PartialBlob { digest, size, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells those who wait.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends it, if it has not ended.
    pub fn end(&self, ended: Result<()>) {
        self.change(|state| {
            state.ended.get_or_insert(ended);
        });
    }

    /// The bytes from `from` on, as they come. Fails where it is known at once that none will.
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

/// One client's way through a growing blob.
struct Following {
    growing: Arc<PartialBlob>,
    at: u64,
    around: Around,
    /// The cache could not take it: read from where the fill would have.
    beside: Option<Box<dyn Read + Send>>,
}

/// What there is for a client.
enum Found {
    Bytes(Arc<File>, usize),
    NoRoom,
    /// Nothing yet.
    Later,
}

/// Clients that wait on a thread for the bytes to come.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Waiter;

impl Waiter {
    /// `None` where as many wait as may.
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
    /// The next bytes. Waits a little for them if few others do; whoever fills ends in any case, since its reads have
    /// time-outs.
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

/// What a fill needs.
pub struct Fill {
    pub growing: Arc<PartialBlob>,
    pub layout: Arc<LayoutCache>,
    pub budget: Arc<Budget>,
    pub source: Arc<dyn Store>,
    pub cancel: Cancel,
    /// Is told how it ended.
    pub ended: Ended,
}

pub type Ended = Box<dyn FnOnce(&Result<()>) + Send>;

impl Fill {
    /// Fetches the blob; its clients are told how it ended by whoever called this.
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
        // From here on its clients hold it as any others do. (A draft's lock goes with its last copy, which they have.)
        if let Some(file) = &self.growing.state().file {
            let _ = file.unlock();
        }
        match self.layout.read(&digest)? {
            Some(file) => self.growing.change(|state| state.file = Some(Arc::new(file))),
            None if self.growing.state().file.is_some() => {}
            None => {
                return Err(Error::unwritable(format!("blob {digest} went from the cache as soon as it was there")));
            }
        }
        Ok(())
    }
}

/// Says how far a blob is written.
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

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.writer.commit(blob)
    }
}
