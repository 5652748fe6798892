//! A download into a cache: one thread fetches, hashes and writes a blob, and any number of clients read its available
//! bytes.
//!
//! A download is independent of its clients' connections. Clients get the last byte only after the digest was verified.
//! A client therefore cannot take a corrupt blob for a complete one.

use super::evict::CacheBudget;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Hasher};
use crate::progress::Silent;
use crate::source::{Claim, Store};
use crate::transfer;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use crate::transfer::{TransferContext, transfer};
use crate::transport::layout::{Filling, LayoutCache};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The interval between two checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of clients that wait on a blocking thread; further ones poll.
const MAX_WAITERS: usize = 64;
/// The time that a response waits for a download's first bytes, to report an early error. Then the response starts.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// A blob that is being downloaded.
pub struct DownloadedBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    state: Mutex<DownloadState>,
    changed: Condvar,
}

#[derive(Default)]
struct DownloadState {
    /// The file from which clients read.
    file: Option<Arc<File>>,
    /// The number of available bytes.
    available: u64,
    result: Option<Result<()>>,
}

/// Opens the source directly at an offset, if the cache is full.
pub type OpenDirect = Box<dyn Fn(u64) -> Result<Box<dyn Read + Send>> + Send>;

impl DownloadedBlob {
    pub fn new(digest: Digest, size: u64) -> DownloadedBlob {
        DownloadedBlob { digest, size, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, DownloadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes waiting clients.
    fn change(&self, change: impl FnOnce(&mut DownloadState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, DownloadState>) -> MutexGuard<'s, DownloadState> {
        self.changed.wait_timeout(state, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sets the result, if the download has not ended.
    pub fn set_result(&self, result: Result<()>) {
        self.change(|state| {
            state.result.get_or_insert(result);
        });
    }

    /// Opens the blob at offset `from`; the reader follows the download. Fails if the download has already failed.
    pub fn read(self: &Arc<DownloadedBlob>, from: u64, open_direct: OpenDirect) -> Result<Box<dyn Read + Send>> {
        let deadline = Instant::now() + FIRST_BYTES_TIMEOUT;
        let mut state = self.state();
        while state.available == 0 && state.result.is_none() && Instant::now() < deadline {
            state = self.wait(state);
        }
        if let Some(Err(error)) = &state.result
            && error.kind() != Kind::Unwritable
        {
            return Err(error.clone());
        }
        drop(state);
        Ok(Box::new(PartialReader { partial: self.clone(), position: from, open_direct, direct: None }))
    }
}

/// A client's reader of a partial blob.
struct PartialReader {
    partial: Arc<DownloadedBlob>,
    position: u64,
    open_direct: OpenDirect,
    /// The direct reader of the source, if the cache is full.
    direct: Option<Box<dyn Read + Send>>,
}

/// The bytes that are available to a client.
enum Available {
    Bytes(Arc<File>, usize),
    NoRoom,
    /// No bytes yet.
    NotYet,
}

/// The number of clients that wait on a blocking thread. Process-wide, since the blocking threads are shared by all downloads.
static WAITER_COUNT: AtomicUsize = AtomicUsize::new(0);

/// One counted waiting client.
struct WaiterGuard;

impl WaiterGuard {
    /// `None` if the maximum number of clients is waiting.
    fn new() -> Option<WaiterGuard> {
        let waiting = WAITER_COUNT.fetch_add(1, Ordering::Relaxed);
        let waiter = WaiterGuard;
        (waiting < MAX_WAITERS).then_some(waiter)
    }
}

impl Drop for WaiterGuard {
    fn drop(&mut self) {
        WAITER_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PartialReader {
    /// Returns the next bytes. Waits one interval for them if few clients wait. A download always ends, since its reads
    /// have timeouts.
    fn next(&self, want: usize) -> Result<Available> {
        let size = self.partial.size;
        let mut state = self.partial.state();
        let mut waiter = None;
        loop {
            let readable = match &state.result {
                Some(Ok(())) => size,
                Some(Err(error)) if error.kind() == Kind::Unwritable => return Ok(Available::NoRoom),
                Some(Err(error)) => return Err(error.clone()),
                None => state.available.min(size.saturating_sub(1)),
            };
            if let (Some(file), true) = (&state.file, readable > self.position) {
                let n = (readable - self.position).min(want as u64) as usize;
                return Ok(Available::Bytes(file.clone(), n));
            }
            if self.position >= size {
                return Err(Error::failed("read past the end of a blob"));
            }
            if waiter.is_some() {
                return Ok(Available::NotYet);
            }
            waiter = WaiterGuard::new();
            if waiter.is_none() {
                return Ok(Available::NotYet);
            }
            state = self.partial.wait(state);
        }
    }
}

impl Read for PartialReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.partial.size || buffer.is_empty() {
            return Ok(0);
        }
        if let Some(direct) = &mut self.direct {
            return direct.read(buffer);
        }
        match self.next(buffer.len())? {
            Available::Bytes(file, n) => {
                let n = file.read_at(&mut buffer[..n], self.position)?;
                self.position += n as u64;
                Ok(n)
            }
            Available::NotYet => Err(io::ErrorKind::WouldBlock.into()),
            Available::NoRoom => self.direct.insert((self.open_direct)(self.position)?).read(buffer),
        }
    }
}

/// A download and its resources.
pub struct Download {
    pub partial: Arc<DownloadedBlob>,
    pub layout: Arc<LayoutCache>,
    pub budget: Arc<CacheBudget>,
    pub source: Arc<dyn Store>,
    pub cancel: Cancel,
    /// Called with the result.
    pub on_end: OnEnd,
}

pub type OnEnd = Box<dyn FnOnce(&Result<()>) + Send>;

impl Download {
    /// Downloads the blob. The caller must pass the result to the waiting clients.
    pub fn run(self) -> Result<()> {
        let fetched = self.fetch();
        (self.on_end)(&fetched);
        fetched
    }

    fn fetch(&self) -> Result<()> {
        let DownloadedBlob { digest, size, .. } = *self.partial;
        let reservation = self.budget.reserve(size)?;
        if let Some(Filling { writer, bytes }) = self.layout.fill(digest, size)? {
            self.partial.change(|state| state.file = Some(Arc::new(bytes)));
            let (claim, stop) = (Claim { digest: Some(digest), size: Some(size) }, AtomicBool::new(false));
            let flow = TransferContext {
                watch: &Silent,
                cancel: &self.cancel,
                stop: &stop,
                id: 0,
                threads: 1,
                buffer_bytes: transfer::Budget::default().buffer_bytes(),
                replay_bytes: 0,
            };
            let blob = Descriptor::new("", digest, size);
            let writer = Box::new(PublishingWriter { writer, partial: &self.partial });
            transfer(&claim, &mut |from| self.source.open(&blob, from), writer, &flow)?;
        }
        reservation.commit();
        // The clients get a shared lock on the stored blob instead. They have copies of the partial file's handle, and
        // the exclusive lock would last until the last client closes its handle.
        if let Some(file) = &self.partial.state().file {
            let _ = file.unlock();
        }
        match self.layout.read(&digest)? {
            Some(file) => self.partial.change(|state| state.file = Some(Arc::new(file))),
            None if self.partial.state().file.is_some() => {}
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
struct PublishingWriter<'f> {
    writer: Box<dyn BlobWriter + 'f>,
    partial: &'f DownloadedBlob,
}

impl BlobWriter for PublishingWriter<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let (available, hasher) = self.writer.start(fresh)?;
        self.partial.change(|state| state.available = available);
        Ok((available, hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes)?;
        self.partial.change(|state| state.available += bytes.len() as u64);
        Ok(())
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.writer.commit(blob)
    }
}
