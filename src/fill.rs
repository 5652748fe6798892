//! How many large blobs are sent at once to a sink that keeps only finished ones (a registry). What is under way when a
//! run is killed is sent again, so there are few, and one more only while that moves more bytes a second.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the first number is measured: most copies are over by then.
const FIRST: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(1);
/// One more has to move so much more, in percent: less is the noise of a line.
const GAIN: u64 = 115;

pub(crate) struct Fill {
    at_once: usize,
    most: usize,
    /// Bytes a second before one more was sent at once; none before the first try.
    before: Option<u64>,
    /// One more did not help.
    settled: bool,
    since: Instant,
    /// Bytes that had been moved then.
    moved: u64,
}

impl Fill {
    /// `first` at once to begin with, and `most` at most.
    pub fn new(first: usize, most: usize, now: Instant) -> Fill {
        Fill { at_once: first.min(most), most, before: None, settled: false, since: now, moved: 0 }
    }

    pub fn at_once(&self) -> usize {
        self.at_once
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
        match helps && self.at_once < self.most {
            true => self.at_once += 1,
            false if helps => self.settled = true,
            false => (self.at_once, self.settled) = (self.at_once - 1, true),
        }
        self.before = Some(rate);
        self.restart(now, moved);
    }
}

/// Counts what is read.
pub(crate) struct Passing<R> {
    bytes: R,
    passed: Arc<AtomicU64>,
}

impl<'a> Passing<Box<dyn Read + Send + 'a>> {
    pub fn boxed(bytes: Box<dyn Read + Send + 'a>, passed: &Arc<AtomicU64>) -> Box<dyn Read + Send + 'a> {
        Box::new(Passing { bytes, passed: passed.clone() })
    }
}

impl<R: Read> Read for Passing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.passed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are sent at once in the end, where `rate` says how many bytes a second so many move.
    fn settles(rate: fn(u64) -> u64) -> usize {
        let begin = Instant::now();
        let (mut fill, mut moved) = (Fill::new(2, 6, begin), 0);
        for tenth in 1..300 {
            moved += rate(fill.at_once() as u64) / 10;
            fill.review(begin + Duration::from_millis(100 * tenth), moved);
        }
        fill.at_once()
    }

    #[test]
    fn there_are_as_many_as_fill_the_line() {
        assert_eq!(settles(|_| 100 << 20), 2);
        assert_eq!(settles(|at_once| at_once.min(4) * (50 << 20)), 4);
        assert_eq!(settles(|at_once| at_once * (50 << 20)), 6);
    }
}
