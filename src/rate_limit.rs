//! One rate limit shared by all network transfers: registries in both directions, connections to other hosts, every
//! range of every blob.

use crate::cancel::Cancel;
use crate::error::Result;
use crate::remote::{Host, Running};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest single sleep; the cancel flag is checked between two sleeps.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// A maximum rate in bytes per second, over all transfers that share it.
pub struct Limit {
    /// Bytes per second; never 0.
    rate: u64,
    schedule: Mutex<Schedule>,
    cancel: Cancel,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes per second", self.rate)
    }
}

/// A limit equals only itself: two of the same rate allow twice the bytes.
impl PartialEq for Limit {
    fn eq(&self, other: &Limit) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Limit {
    /// Creates a limit of `rate` bytes per second. Raising `cancel` ends every wait.
    pub fn new(rate: u64, cancel: &Cancel) -> Arc<Limit> {
        Arc::new(Limit { rate: rate.max(1), schedule: Mutex::new(Schedule(Instant::now())), cancel: cancel.clone() })
    }

    /// The maximum number of bytes to move at once: a tenth of a second's worth.
    pub fn burst_bytes(&self) -> usize {
        usize::try_from(self.rate / 10).unwrap_or(usize::MAX).max(1)
    }

    /// The time that `bytes` take at this rate.
    pub fn duration_of(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate as f64)
    }

    /// The number of bytes that this rate allows in `time`.
    pub fn bytes_in(&self, time: Duration) -> usize {
        (self.rate as f64 * time.as_secs_f64()) as usize
    }

    /// Waits until the rate allows `bytes` more.
    pub fn wait_for(&self, bytes: usize) -> Result<()> {
        let duration = self.duration_of(bytes as u64);
        let due = self.schedule.lock().unwrap_or_else(PoisonError::into_inner).reserve(Instant::now(), duration);
        loop {
            self.cancel.check()?;
            match due.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(MAX_SLEEP)),
                _ => return Ok(()),
            }
        }
    }
}

/// The time at which all accepted bytes have passed at this rate.
struct Schedule(Instant);

impl Schedule {
    /// Adds bytes that take `duration`, and returns the time at which they have passed. Idle time gives no credit.
    fn reserve(&mut self, now: Instant, duration: Duration) -> Instant {
        self.0 = self.0.max(now) + duration;
        self.0
    }
}

/// A reader or writer that keeps to a limit, if a limit is set.
pub struct Limited<T> {
    inner: T,
    limit: Option<Arc<Limit>>,
}

impl<T> Limited<T> {
    /// Wraps `inner`; without a `limit` the bytes pass unchanged and without a pause.
    pub fn new(inner: T, limit: Option<&Arc<Limit>>) -> Limited<T> {
        Limited { inner, limit: limit.cloned() }
    }

    fn burst_bytes(&self, wanted: usize) -> usize {
        self.limit.as_ref().map_or(wanted, |limit| wanted.min(limit.burst_bytes()))
    }

    fn wait_for(&self, bytes: usize) -> io::Result<usize> {
        if let Some(limit) = &self.limit {
            limit.wait_for(bytes)?;
        }
        Ok(bytes)
    }
}

impl<T: Read> Read for Limited<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let max_bytes = self.burst_bytes(buffer.len());
        let n = self.inner.read(&mut buffer[..max_bytes])?;
        self.wait_for(n)
    }
}

impl<T: Write> Write for Limited<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(&bytes[..self.burst_bytes(bytes.len())])?;
        self.wait_for(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A host whose commands' standard input and output keep to a limit.
pub struct LimitedHost {
    pub host: Box<dyn Host>,
    pub limit: Arc<Limit>,
}

impl Host for LimitedHost {
    fn name(&self) -> &str {
        self.host.name()
    }
    /// The user of the socket keeps to the limit, since a socket's bytes are not all of images.
    fn connect_socket(&self, path: &str) -> Result<UnixStream> {
        self.host.connect_socket(path)
    }
    fn refusal(&self) -> String {
        self.host.refusal()
    }
    fn run(&self, command: &[&str]) -> Result<Running> {
        let mut running = self.host.run(command)?;
        let limit = Some(&self.limit);
        running.stdin = running.stdin.take().map(|stdin| Box::new(Limited::new(stdin, limit)) as Box<dyn Write + Send>);
        running.stdout = running.stdout.take().map(|out| Box::new(Limited::new(out, limit)) as Box<dyn Read + Send>);
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_waits_for_all_before_and_idle_time_is_no_credit() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut schedule = Schedule(start);
        // Two directions of three ranges at the same time: each one waits for those before it.
        let due: Vec<u64> = (0..6).map(|_| schedule.reserve(start, second).duration_since(start).as_secs()).collect();
        assert_eq!(due, [1, 2, 3, 4, 5, 6]);
        assert_eq!(schedule.reserve(start + 100 * second, second), start + 101 * second);
        assert_eq!(schedule.reserve(start + 100 * second, second), start + 102 * second);
    }

    #[test]
    fn bytes_pass_whole_and_a_raised_cancel_ends_the_wait() {
        let (cancel, bytes) = (Cancel::default(), [7; 10_000]);
        let quick = Limit::new(1 << 40, &cancel);
        let (mut read, mut written) = (Vec::new(), Vec::new());
        Limited::new(&bytes[..], Some(&quick)).read_to_end(&mut read).unwrap();
        Limited::new(&mut written, Some(&quick)).write_all(&bytes).unwrap();
        assert_eq!((&*read, &*written), (&bytes[..], &bytes[..]));
        let slow = Limit::new(1, &cancel);
        assert_eq!((slow.burst_bytes(), slow.duration_of(60)), (1, Duration::from_secs(60)));
        cancel.raise();
        assert_eq!(slow.wait_for(1 << 40).unwrap_err().kind(), crate::Kind::Interrupted);
    }
    #[test]
    fn what_is_said_to_another_host_counts_both_ways() {
        let cancel = Cancel::default();
        let limit = Limit::new(1 << 20, &cancel);
        let before = limit.schedule.lock().unwrap().0;
        let host = LimitedHost { host: Box::new(crate::remote::Local::new(&cancel)), limit: limit.clone() };
        let mut running = host.run(&["cat"]).unwrap();
        running.stdin.take().unwrap().write_all(&[7; 20_000]).unwrap();
        let mut received = Vec::new();
        running.stdout.take().unwrap().read_to_end(&mut received).unwrap();
        assert_eq!(received, [7; 20_000]);
        assert!(limit.schedule.lock().unwrap().0 - before >= limit.duration_of(39_999));
    }
}
