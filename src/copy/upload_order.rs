//! The share of the connection that each large blob gets, to a sink that keeps only finished blobs (a registry).
//!
//! A blob that is unfinished when a run is killed is sent again. So there are two at a time, and the second only fills
//! the gaps of the first. More blobs, or equal shares, are used only while they transfer more bytes a second.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The first step is measured for this time: most copies end earlier.
const FIRST_WINDOW: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(1);
/// The rate that the next step has to reach, in percent of the step before; less is noise.
const MIN_GAIN_PERCENT: u64 = 115;
/// The bytes of the first blob for each byte of a later one.
const FIRST_PER_LATER: u64 = 2;
/// The first bytes of a later blob, which start its upload.
const START_BYTES: u64 = 1 << 20;
/// A blob without progress for this time is not waited for.
const STALL_TIME: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The number of large blobs at a time, and whether their shares are equal.
pub(crate) struct LineFill {
    /// The number at the first step.
    least: usize,
    most: usize,
    /// 0: the first blob goes before the others; 1: the same number with equal shares; then one more each step.
    step: usize,
    /// Bytes a second at the step before; none at the first step.
    before: Option<u64>,
    /// The last step: the next one did not help, or does not exist.
    is_final: bool,
    since: Instant,
    /// Bytes that were transferred before `since`.
    moved: u64,
}

impl LineFill {
    /// Starts with `least` blobs at a time; `most` is the maximum.
    pub fn new(least: usize, most: usize, now: Instant) -> LineFill {
        LineFill { least: least.min(most), most, step: 0, before: None, is_final: false, since: now, moved: 0 }
    }

    pub fn at_once(&self) -> usize {
        self.least + self.step.saturating_sub(1)
    }

    pub fn is_even(&self) -> bool {
        self.step > 0
    }

    /// Starts the measurement again, `moved` bytes after the start of the copy, because the number of blobs changed.
    pub fn restart(&mut self, now: Instant, moved: u64) {
        (self.since, self.moved) = (now, moved);
    }

    /// Measures the rate. To be called while the number of blobs is at its limit and another blob waits.
    pub fn review(&mut self, now: Instant, moved: u64) {
        let window = if self.before.is_some() { WINDOW } else { FIRST_WINDOW };
        let elapsed = now.saturating_duration_since(self.since);
        if self.is_final || elapsed < window {
            return;
        }
        let rate = (moved.saturating_sub(self.moved) as f64 / elapsed.as_secs_f64()) as u64;
        let helps = self.before.is_none_or(|before| rate >= before.saturating_mul(MIN_GAIN_PERCENT) / 100);
        match helps {
            true if self.step > 0 && self.at_once() == self.most => self.is_final = true,
            true => self.step += 1,
            false => (self.step, self.is_final) = (self.step - 1, true),
        }
        self.before = Some(rate);
        self.restart(now, moved);
    }
}

/// The large blobs that are being sent, in the order in which they started.
#[derive(Default)]
pub(crate) struct UploadOrder {
    transferred: AtomicU64,
    even: AtomicBool,
    blobs: Mutex<Vec<Arc<OrderedBlob>>>,
}

struct OrderedBlob {
    size: u64,
    transferred: AtomicU64,
    moved: Mutex<Instant>,
}

impl OrderedBlob {
    /// Whether later blobs are to wait for it.
    fn moves(&self) -> bool {
        let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        (1..self.size).contains(&self.transferred.load(Ordering::Relaxed)) && moved.elapsed() < STALL_TIME
    }
}

impl UploadOrder {
    /// Bytes of all blobs so far.
    pub fn transferred(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }

    /// Sets whether all blobs have equal shares.
    pub fn share(&self, even: bool) {
        self.even.store(even, Ordering::Relaxed);
    }

    /// Adds a blob of `size` bytes until the returned value is dropped.
    pub fn begin(self: &Arc<Self>, size: u64) -> OrderedUpload {
        let blob = Arc::new(OrderedBlob { size, transferred: AtomicU64::new(0), moved: Mutex::new(Instant::now()) });
        self.blobs().push(blob.clone());
        OrderedUpload { order: self.clone(), blob }
    }

    fn blobs(&self) -> MutexGuard<'_, Vec<Arc<OrderedBlob>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob that `blob` has to wait for, if any.
    fn before(&self, blob: &Arc<OrderedBlob>) -> Option<Arc<OrderedBlob>> {
        let blobs = self.blobs();
        blobs.iter().take_while(|other| !Arc::ptr_eq(other, blob)).find(|other| other.moves()).cloned()
    }
}

/// One blob in the order.
pub(crate) struct OrderedUpload {
    order: Arc<UploadOrder>,
    blob: Arc<OrderedBlob>,
}

impl OrderedUpload {
    /// A reader of this blob's `bytes` that waits for its share.
    pub fn read<'a>(&self, bytes: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
        Box::new(SharedReader { bytes, order: self.order.clone(), blob: self.blob.clone(), before: None, room: 0 })
    }
}

impl Drop for OrderedUpload {
    fn drop(&mut self) {
        self.order.blobs().retain(|blob| !Arc::ptr_eq(blob, &self.blob));
    }
}

struct SharedReader<'a> {
    bytes: Box<dyn Read + Send + 'a>,
    order: Arc<UploadOrder>,
    blob: Arc<OrderedBlob>,
    /// The blob that this one waits for, and its offset when bytes were last allowed.
    before: Option<(Arc<OrderedBlob>, u64)>,
    /// Bytes that may be read.
    room: u64,
}

impl SharedReader<'_> {
    fn wait(&mut self) {
        while self.room == 0 && !self.order.even.load(Ordering::Relaxed) {
            let Some(first) = self.order.before(&self.blob) else { return };
            let transferred = first.transferred.load(Ordering::Relaxed);
            match &mut self.before {
                Some((before, then)) if Arc::ptr_eq(before, &first) => {
                    self.room = transferred.saturating_sub(*then) / FIRST_PER_LATER;
                    *then += self.room * FIRST_PER_LATER;
                }
                before => {
                    *before = Some((first, transferred));
                    self.room = START_BYTES;
                }
            }
            if self.room == 0 {
                thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Read for SharedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait();
        let n = self.bytes.read(buffer)?;
        self.room = self.room.saturating_sub(n as u64);
        self.order.transferred.fetch_add(n as u64, Ordering::Relaxed);
        self.blob.transferred.fetch_add(n as u64, Ordering::Relaxed);
        *self.blob.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The final number of blobs at a time and whether shares are equal, for a connection with this `rate`.
    fn settles(rate: fn(usize, bool) -> u64) -> (usize, bool) {
        let begin = Instant::now();
        let (mut fill, mut moved) = (LineFill::new(2, 6, begin), 0);
        for tenth in 1..300 {
            moved += rate(fill.at_once(), fill.is_even()) / 10;
            fill.review(begin + Duration::from_millis(100 * tenth), moved);
        }
        (fill.at_once(), fill.is_even())
    }

    #[test]
    fn there_are_as_many_as_fill_the_line() {
        const ONE: u64 = 50 << 20;
        assert_eq!(settles(|_, _| ONE), (2, false));
        assert_eq!(settles(|at_once, even| if even { at_once.min(4) as u64 * ONE } else { ONE }), (4, true));
        assert_eq!(settles(|at_once, even| if even { at_once as u64 * ONE } else { ONE }), (6, true));
    }

    #[test]
    fn the_first_blob_goes_before_the_second_until_it_ends() {
        const SIZE: u64 = 40 << 20;
        let order = Arc::new(UploadOrder::default());
        let (first, second) = (order.begin(SIZE), order.begin(SIZE));
        let bytes = || Box::new(io::repeat(7).take(SIZE)) as Box<dyn Read + Send>;
        let mut read = first.read(bytes());
        io::copy(&mut (&mut read).take(SIZE / 2), &mut io::sink()).unwrap();
        thread::scope(|scope| {
            let other = scope.spawn(|| io::copy(&mut second.read(bytes()), &mut io::sink()));
            while second.blob.transferred.load(Ordering::Relaxed) < START_BYTES {
                thread::sleep(POLL_INTERVAL);
            }
            io::copy(&mut (&mut read).take(SIZE / 2 - 1), &mut io::sink()).unwrap();
            // A share of the first blob's bytes since then, and a buffer.
            assert!(
                second.blob.transferred.load(Ordering::Relaxed)
                    <= START_BYTES + SIZE / 2 / FIRST_PER_LATER + (64 << 10)
            );
            io::copy(&mut read, &mut io::sink()).unwrap();
            assert_eq!(other.join().unwrap().unwrap(), SIZE);
        });
    }
}
