//! Downloads a large blob of a remote registry in parallel ranges, since one connection moves at most one window per
//! round trip. The ranges are returned in order; their number in memory is limited. If a server does not support
//! ranges, or a range fails, the rest is read over one connection.

use super::blob::BlobReader;
use crate::error::{Error, Kind, Result};
use crate::image::Descriptor;
use crate::transport::registry::http::client::RegistryClient;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const RANGE_BYTES: u64 = 2 << 20;
/// The minimum number of bytes left for a download in ranges.
const MIN_RANGED_BYTES: u64 = 16 << 20;
/// The number of connections at the start; each completed range adds one.
const INITIAL_WORKERS: usize = 4;
const BUFFER_BYTES: usize = 64 << 10;
/// The interval at which waiting threads check the cancel flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Opens `blob` at offset `from`: in ranges if it is large and the registry remote, else over one connection.
pub fn open<'a>(
    client: &'a Arc<RegistryClient>,
    repository: &'a str,
    blob: &Descriptor,
    from: u64,
) -> Result<Box<dyn Read + Send + 'a>> {
    if from > blob.size {
        let (digest, size) = (blob.digest, blob.size);
        return Err(Error::invalid(format!("blob {digest} has {size} bytes and cannot be read from byte {from}")));
    }
    if blob.size.saturating_sub(from) < MIN_RANGED_BYTES
        || !client.throttle.is_far()
        || client.access.parallel_ranges < 2
    {
        return Ok(Box::new(BlobReader::open(client, repository, blob, from)?));
    }
    let first = match BlobReader::open_range(client, repository, blob, from..from + RANGE_BYTES) {
        Err(error) if error.kind() == Kind::Failed => BlobReader::open(client, repository, blob, from)?,
        first => first?,
    };
    if first.end_offset() == blob.size {
        return Ok(Box::new(first));
    }
    let state = RangesState {
        next: first.end_offset(),
        workers: 0,
        max_workers: INITIAL_WORKERS.min(client.access.parallel_ranges),
        closed: false,
        ranges: VecDeque::new(),
    };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    let download = Arc::new(RangedDownload {
        client: client.clone(),
        repository: repository.to_owned(),
        blob: blob.clone(),
        state,
        changed,
    });
    download.start_workers();
    Ok(Box::new(RangedReader { client, repository, download, at: from, read: 0, direct: Some(first) }))
}

/// The maximum number of ranges in memory. The first range is not among them: the reader reads it directly.
fn max_ranges(client: &RegistryClient) -> usize {
    client.access.parallel_ranges - 1
}

struct RangedDownload {
    client: Arc<RegistryClient>,
    repository: String,
    blob: Descriptor,
    state: Mutex<RangesState>,
    changed: Condvar,
}

struct RangesState {
    /// The offset of the next range.
    next: u64,
    workers: usize,
    max_workers: usize,
    /// The reader was dropped or has failed.
    closed: bool,
    /// In ascending order.
    ranges: VecDeque<BufferedRange>,
}

struct BufferedRange {
    from: u64,
    bytes: Vec<u8>,
    /// The result, once the download of the range has ended.
    ended: Option<Result<()>>,
}

impl RangedDownload {
    fn state(&self) -> MutexGuard<'_, RangesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts workers, up to `max_workers`.
    fn start_workers(self: &Arc<Self>) {
        let mut state = self.state();
        while state.workers < state.max_workers && !state.closed && state.next < self.blob.size {
            let own = self.clone();
            let started = thread::Builder::new().name("range".to_owned()).spawn(move || own.work());
            if started.is_err() {
                return;
            }
            state.workers += 1;
        }
    }

    fn work(self: Arc<Self>) {
        while let Some(from) = self.reserve_range() {
            let refusals = self.client.throttle.too_many_requests();
            let done = self.fetch(from);
            let good = done.is_ok() && self.client.throttle.too_many_requests() == refusals;
            let is_surplus = {
                let mut state = self.state();
                // A failure, or a 429, halves the number of workers.
                let more = (state.max_workers + 1).min(max_ranges(&self.client));
                state.max_workers = if good { more } else { (state.max_workers / 2).max(1) };
                if let Some(range) = state.ranges.iter_mut().find(|range| range.from == from) {
                    range.ended = Some(done);
                }
                state.workers > state.max_workers
            };
            self.changed.notify_all();
            if is_surplus {
                break;
            }
            self.start_workers();
        }
        self.state().workers -= 1;
        self.changed.notify_all();
    }

    /// Waits for memory for the next range and returns its offset; `None` if no range is left or the reader is closed.
    fn reserve_range(&self) -> Option<u64> {
        let mut state = self.state();
        loop {
            if state.closed || state.next >= self.blob.size || self.client.cancel.raised() {
                return None;
            }
            let limit = max_ranges(&self.client);
            if state.ranges.len() < limit
                && let Some(mut buffer) = self.client.throttle.take_buffer(limit)
            {
                let from = state.next;
                state.next = (from + RANGE_BYTES).min(self.blob.size);
                buffer.reserve_exact(RANGE_BYTES as usize);
                state.ranges.push_back(BufferedRange { from, bytes: buffer, ended: None });
                return Some(from);
            }
            // Other blobs may use all the memory for ranges. A reader without a range then reads directly
            // (`FrontRange`), so it does not wait forever.
            let waited = self.changed.wait_timeout(state, POLL_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fetch(&self, from: u64) -> Result<()> {
        let to = (from + RANGE_BYTES).min(self.blob.size);
        let mut reader = BlobReader::open_range(&self.client, &self.repository, &self.blob, from..to)?;
        if reader.end_offset() != to {
            return Err(Error::failed(format!("{} does not support ranges", self.client.host)));
        }
        let mut buffer = vec![0; BUFFER_BYTES];
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
                if let Some(range) = state.ranges.iter_mut().find(|range| range.from == from) {
                    range.bytes.extend_from_slice(&buffer[..n]);
                }
            }
            self.changed.notify_all();
        }
    }
}

/// Reads the ranges in order.
struct RangedReader<'a> {
    client: &'a Arc<RegistryClient>,
    repository: &'a str,
    download: Arc<RangedDownload>,
    at: u64,
    /// The number of bytes read of the front range.
    read: usize,
    /// A direct connection: the first range, or the rest after a failure.
    direct: Option<BlobReader<'a>>,
}

/// The result of reading from the front range.
enum FrontRange {
    Bytes(usize),
    /// Read to its end.
    Finished,
    /// Not available: it failed, or other blobs use all the memory for ranges.
    Failed,
}

impl RangedReader<'_> {
    /// Waits for bytes of the front range.
    fn wait(&mut self, buffer: &mut [u8]) -> Result<FrontRange> {
        let mut state = self.download.state();
        loop {
            self.client.cancel.check()?;
            match state.ranges.front() {
                Some(range) if range.bytes.len() > self.read => {
                    let n = buffer.len().min(range.bytes.len() - self.read);
                    buffer[..n].copy_from_slice(&range.bytes[self.read..self.read + n]);
                    return Ok(FrontRange::Bytes(n));
                }
                Some(BufferedRange { ended: Some(Ok(())), .. }) => {
                    let finished = state.ranges.pop_front();
                    drop(state);
                    self.client.throttle.return_buffer(finished.map(|range| range.bytes).unwrap_or_default());
                    self.download.changed.notify_all();
                    return Ok(FrontRange::Finished);
                }
                Some(BufferedRange { ended: Some(Err(_)), .. }) => return Ok(FrontRange::Failed),
                Some(_) => {}
                // Other blobs use all the memory for ranges.
                None if !self.client.throttle.has_room(max_ranges(self.client)) => return Ok(FrontRange::Failed),
                None => {}
            }
            let waited = self.download.changed.wait_timeout(state, POLL_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stops the workers and drops their ranges.
    fn close(&self) {
        let mut state = self.download.state();
        state.closed = true;
        state.ranges.drain(..).for_each(|range| self.client.throttle.return_buffer(range.bytes));
        drop(state);
        self.download.changed.notify_all();
    }
}

impl Read for RangedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if buffer.is_empty() {
                return Ok(0);
            }
            if let Some(direct) = &mut self.direct {
                let n = direct.read(buffer)?;
                self.at += n as u64;
                if n > 0 || self.at == self.download.blob.size {
                    return Ok(n);
                }
                self.direct = None;
            }
            if self.at == self.download.blob.size {
                return Ok(0);
            }
            match self.wait(buffer)? {
                FrontRange::Bytes(n) => {
                    self.read += n;
                    self.at += n as u64;
                    return Ok(n);
                }
                FrontRange::Finished => self.read = 0,
                FrontRange::Failed => {
                    self.close();
                    self.direct = Some(BlobReader::open(self.client, self.repository, &self.download.blob, self.at)?);
                }
            }
        }
    }
}

impl Drop for RangedReader<'_> {
    fn drop(&mut self) {
        self.close();
    }
}
