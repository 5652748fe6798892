//! How large blobs share the line to a sink that keeps only finished ones (a registry). What is under way when a run is
//! killed is sent again, so there are two at once, of which the second only fills the gaps of the first; more, or equal
//! shares, only while that moves more bytes a second.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the first step is measured: most copies are over by then.
const FIRST: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(1);
/// The next step has to move so much, in percent of the one before: less is the noise of a line.
const GAIN: u64 = 115;
/// While the first blob moves, those after it get one byte for so many of its.
const SHARE: u64 = 2;
/// In bytes, that they get besides: their upload is begun.
const AHEAD: u64 = 1 << 20;
/// A blob that has not moved for so long is not waited for.
const STALL: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// How many there are, and whether they share alike.
pub(crate) struct LineFill {
    /// At the first step.
    least: usize,
    most: usize,
    /// 0: the first goes before the others; 1: as many, alike; from there on one more each.
    step: usize,
    /// Bytes a second at the step before; none at the first.
    before: Option<u64>,
    /// The next step did not help, or there is none.
    settled: bool,
    since: Instant,
    /// Bytes that had been moved then.
    moved: u64,
}

impl LineFill {
    /// `least` at once to begin with, and `most` at most.
    pub fn new(least: usize, most: usize, now: Instant) -> LineFill {
        LineFill { least: least.min(most), most, step: 0, before: None, settled: false, since: now, moved: 0 }
    }

    pub fn at_once(&self) -> usize {
        self.least + self.step.saturating_sub(1)
    }

    pub fn is_even(&self) -> bool {
        self.step > 0
    }

    /// Another number of blobs is under way, `moved` bytes after the copy's begin: what was measured does not hold for it.
    pub fn restart(&mut self, now: Instant, moved: u64) {
        (self.since, self.moved) = (now, moved);
    }

    /// To be called while all places are taken and a blob waits for one.
    pub fn review(&mut self, now: Instant, moved: u64) {
        let window = if self.before.is_some() { WINDOW } else { FIRST };
        let passed = now.saturating_duration_since(self.since);
        if self.settled || passed < window {
            return;
        }
        let rate = (moved.saturating_sub(self.moved) as f64 / passed.as_secs_f64()) as u64;
        let helps = self.before.is_none_or(|before| rate >= before.saturating_mul(GAIN) / 100);
        match helps {
            true if self.step > 0 && self.at_once() == self.most => self.settled = true,
            true => self.step += 1,
            false => (self.step, self.settled) = (self.step - 1, true),
        }
        self.before = Some(rate);
        self.restart(now, moved);
    }
}

/// The blobs on their way, in the order in which they have begun.
#[derive(Default)]
pub(crate) struct UploadOrder {
    passed: AtomicU64,
    even: AtomicBool,
    blobs: Mutex<Vec<Arc<Blob>>>,
}

struct Blob {
    size: u64,
    passed: AtomicU64,
    moved: Mutex<Instant>,
}

impl Blob {
    /// Whether others are to leave it the line.
    fn moves(&self) -> bool {
        let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        (1..self.size).contains(&self.passed.load(Ordering::Relaxed)) && moved.elapsed() < STALL
    }
}

impl UploadOrder {
    /// Bytes that have passed so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether all share alike.
    pub fn share(&self, even: bool) {
        self.even.store(even, Ordering::Relaxed);
    }

    /// A blob of `size` bytes begins, and ends when what is given back does.
    pub fn begin(self: &Arc<Self>, size: u64) -> Upload {
        let blob = Arc::new(Blob { size, passed: AtomicU64::new(0), moved: Mutex::new(Instant::now()) });
        self.blobs().push(blob.clone());
        Upload { passage: self.clone(), blob }
    }

    fn blobs(&self) -> MutexGuard<'_, Vec<Arc<Blob>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that goes before `blob`, if there is one.
    fn before(&self, blob: &Arc<Blob>) -> Option<Arc<Blob>> {
        let blobs = self.blobs();
        blobs.iter().take_while(|other| !Arc::ptr_eq(other, blob)).find(|other| other.moves()).cloned()
    }
}

/// One blob's place.
pub(crate) struct Upload {
    passage: Arc<UploadOrder>,
    blob: Arc<Blob>,
}

impl Upload {
    /// `bytes` of this blob, read when it is their turn.
    pub fn read<'a>(&self, bytes: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
        Box::new(InTurn { bytes, passage: self.passage.clone(), blob: self.blob.clone(), before: None, room: 0 })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.passage.blobs().retain(|blob| !Arc::ptr_eq(blob, &self.blob));
    }
}

struct InTurn<'a> {
    bytes: Box<dyn Read + Send + 'a>,
    passage: Arc<UploadOrder>,
    blob: Arc<Blob>,
    /// The blob that goes before this one, and how far it was when bytes were last allowed.
    before: Option<(Arc<Blob>, u64)>,
    /// Bytes that may be read.
    room: u64,
}

impl InTurn<'_> {
    fn wait(&mut self) {
        while self.room == 0 && !self.passage.even.load(Ordering::Relaxed) {
            let Some(first) = self.passage.before(&self.blob) else { return };
            let passed = first.passed.load(Ordering::Relaxed);
            match &mut self.before {
                Some((before, then)) if Arc::ptr_eq(before, &first) => {
                    self.room = passed.saturating_sub(*then) / SHARE;
                    *then += self.room * SHARE;
                }
                before => {
                    *before = Some((first, passed));
                    self.room = AHEAD;
                }
            }
            if self.room == 0 {
                thread::sleep(PAUSE);
            }
        }
    }
}

impl Read for InTurn<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait();
        let n = self.bytes.read(buffer)?;
        self.room = self.room.saturating_sub(n as u64);
        self.passage.passed.fetch_add(n as u64, Ordering::Relaxed);
        self.blob.passed.fetch_add(n as u64, Ordering::Relaxed);
        *self.blob.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are sent at once in the end, and whether alike, where `rate` says how many bytes a second so many move.
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
        let passage = Arc::new(UploadOrder::default());
        let (first, second) = (passage.begin(SIZE), passage.begin(SIZE));
        let bytes = || Box::new(io::repeat(7).take(SIZE)) as Box<dyn Read + Send>;
        let mut read = first.read(bytes());
        io::copy(&mut (&mut read).take(SIZE / 2), &mut io::sink()).unwrap();
        thread::scope(|scope| {
            let other = scope.spawn(|| io::copy(&mut second.read(bytes()), &mut io::sink()));
            while second.blob.passed.load(Ordering::Relaxed) < AHEAD {
                thread::sleep(PAUSE);
            }
            io::copy(&mut (&mut read).take(SIZE / 2 - 1), &mut io::sink()).unwrap();
            // A share of what the first has moved meanwhile, and a buffer.
            assert!(second.blob.passed.load(Ordering::Relaxed) <= AHEAD + SIZE / 2 / SHARE + (64 << 10));
            io::copy(&mut read, &mut io::sink()).unwrap();
            assert_eq!(other.join().unwrap().unwrap(), SIZE);
        });
    }
}
