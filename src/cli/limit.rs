//! `--limit-rate`: a source that gives its bytes no faster than asked for, whatever it is.

use super::Run;
use super::options::Rate;
use super::progress::lock;
use imgmv::Result;
use imgmv::cancel::Cancel;
use imgmv::image::{Descriptor, Digest, Name};
use imgmv::source::{Origin, Pick, Root, Store};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The longest sleep in one go, so that Ctrl-C is heard.
const NAP: Duration = Duration::from_millis(100);

/// `store`, slowed down to `rate` if there is one. All its blobs share the rate.
pub fn limited(store: Arc<dyn Store>, rate: Option<Rate>, run: &Run) -> Arc<dyn Store> {
    match rate {
        None => store,
        Some(rate) => Arc::new(SlowStore { store, pace: Pace::new(rate, run) }),
    }
}

/// `bytes`, slowed down to `rate` if there is one.
pub fn limited_bytes(bytes: Box<dyn Read + Send>, rate: Option<Rate>, run: &Run) -> Box<dyn Read + Send> {
    match rate {
        None => bytes,
        Some(rate) => Box::new(SlowRead { bytes, pace: Pace::new(rate, run) }),
    }
}

/// When the next byte may come.
struct Pace {
    /// Bytes a second.
    rate: u64,
    due: Mutex<Instant>,
    cancel: Cancel,
}

impl Pace {
    fn new(rate: Rate, run: &Run) -> Arc<Pace> {
        Arc::new(Pace { rate: rate.0, due: Mutex::new(Instant::now()), cancel: run.cancel.clone() })
    }

    /// The most to read at once: a tenth of a second's worth.
    fn gulp(&self) -> usize {
        usize::try_from(self.rate / 10).unwrap_or(usize::MAX).max(1)
    }

    /// Waits until `bytes` more were due.
    fn wait(&self, bytes: u64) -> Result<()> {
        let due = {
            let mut due = lock(&self.due);
            *due = (*due).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            *due
        };
        loop {
            self.cancel.check()?;
            match due.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(NAP)),
                _ => return Ok(()),
            }
        }
    }
}

struct SlowRead<'a> {
    bytes: Box<dyn Read + Send + 'a>,
    pace: Arc<Pace>,
}

impl Read for SlowRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.pace.gulp());
        let n = self.bytes.read(&mut buffer[..most])?;
        self.pace.wait(n as u64)?;
        Ok(n)
    }
}

struct SlowStore {
    store: Arc<dyn Store>,
    pace: Arc<Pace>,
}

impl Store for SlowStore {
    fn roots(&self, picks: &[Pick]) -> Result<Vec<Root>> {
        self.store.roots(picks)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.store.manifest(at)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(SlowRead { bytes: self.store.open(blob, from)?, pace: self.pace.clone() }))
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.store.find(digest)
    }
    fn names(&self) -> Result<Vec<Name>> {
        self.store.names()
    }
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.store.referrers(subject)
    }
    fn origin(&self) -> Option<&Origin> {
        self.store.origin()
    }
    fn may_lack(&self) -> bool {
        self.store.may_lack()
    }
    fn is_far(&self) -> bool {
        self.store.is_far()
    }
    fn lanes(&self) -> usize {
        self.store.lanes()
    }
    fn expect(&self, all: &[Digest], wanted: &mut dyn Iterator<Item = Digest>) {
        self.store.expect(all, wanted);
    }
    fn forgo(&self, blob: &Digest) {
        self.store.forgo(blob);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn bytes_come_whole_and_a_raised_cancel_ends_the_wait() {
        let pace = |rate| Arc::new(Pace { rate, due: Mutex::new(Instant::now()), cancel: Cancel::default() });
        let mut all = Vec::new();
        let bytes = Box::new(Cursor::new(vec![7; 10_000]));
        SlowRead { bytes, pace: pace(1 << 40) }.read_to_end(&mut all).unwrap();
        assert_eq!(all, vec![7; 10_000]);
        let slow = pace(1);
        slow.cancel.raise();
        assert_eq!(slow.wait(1 << 40).unwrap_err().kind(), imgmv::Kind::Interrupted);
    }
}
