//! The retry policy of all registry requests: exponential pauses with jitter. `Retry-After` (RFC 9110, section 10.2.3)
//! is honoured up to a limit; a longer wait ends the run. Every pause is reported and can be cancelled.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Watch};
use crate::transport::registry::options::Access;
use std::{
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is honoured; a longer one ends the run with an error.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// After progress the pause is divided by this number.
const PROGRESS_PAUSE_DIVISOR: u32 = 16;
/// The retries for an unreachable host, whose service may be starting.
const MAX_UNREACHABLE_RETRIES: u32 = 2;
/// The progress between two failures that resets the count of failures.
pub const PROGRESS_BYTES: u64 = 16 << 10;

/// The failures of one request, and the retries it has left.
pub struct RetryPolicy<'a> {
    access: &'a Access,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
    failures: u32,
    /// Enough bytes arrived since the last failure.
    progressed: bool,
}

impl<'a> RetryPolicy<'a> {
    /// `failures` attempts have failed already.
    pub fn new(access: &'a Access, watch: &'a dyn Watch, cancel: &'a Cancel, failures: u32) -> RetryPolicy<'a> {
        RetryPolicy { access, watch, cancel, failures, progressed: false }
    }

    /// Returns the number of failed attempts.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets earlier failures after progress.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.progressed = true;
    }

    /// Whether a retry is left.
    pub fn may_retry(&self) -> bool {
        self.failures < self.access.retries
    }

    /// Whether a retry is left for an unreachable host.
    pub fn may_retry_unreachable(&self) -> bool {
        self.failures < self.access.retries.min(MAX_UNREACHABLE_RETRIES)
    }

    /// The error when no retry is left.
    pub fn final_error(&self, what: &str, why: &str) -> Error {
        match self.failures {
            0 => Error::network(format!("{what}: {why}")),
            n => Error::network(format!("{what}: {why}; tried {} times", n + 1)),
        }
    }

    /// Waits before `what` is retried. Fails immediately if `retry_after`, the server's header, is longer than
    /// [`MAX_RETRY_AFTER`].
    pub fn wait(&mut self, what: &str, why: &str, retry_after: Option<Duration>) -> Result<()> {
        if let Some(retry_after) = retry_after.filter(|retry_after| *retry_after > MAX_RETRY_AFTER) {
            return Err(Error::network(format!(
                "{what}: {why}; the server asks for a wait of {}, longer than the limit of {} s; run imgmv again \
                 after that time",
                format_duration(retry_after),
                MAX_RETRY_AFTER.as_secs()
            ))
            .permanent());
        }
        // A connection that delivers data between failures resumes quickly: it may break hundreds of times.
        let divisor = if std::mem::take(&mut self.progressed) { PROGRESS_PAUSE_DIVISOR } else { 1 };
        let doubled = self.access.retry_pause.saturating_mul(1 << self.failures.min(16)).min(MAX_RETRY_PAUSE);
        self.failures += 1;
        let backoff = (doubled / divisor).mul_f64(0.75 + 0.5 * random_fraction());
        let after = retry_after.map_or(backoff, |retry_after| retry_after.max(backoff));
        self.watch.event(Event::Retry { what, why, after });
        pause(after, self.cancel)
    }
}

/// Formats `time` in the largest unit of which it has at least two, rounded up.
pub(super) fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (unit, name) = [(86_400, "days"), (3600, "hours"), (60, "minutes")]
        .into_iter()
        .find(|(unit, _)| seconds >= 2 * unit)
        .unwrap_or((1, "seconds"));
    format!("{} {name}", seconds.div_ceil(unit))
}

/// Sleeps until `time` has passed or the run is cancelled.
pub fn pause(mut time: Duration, cancel: &Cancel) -> Result<()> {
    const POLL_INTERVAL: Duration = Duration::from_millis(50);
    while !time.is_zero() {
        cancel.check()?;
        let slice = time.min(POLL_INTERVAL);
        thread::sleep(slice);
        time -= slice;
    }
    cancel.check()
}

/// A random number between 0 and 1, to spread the retries of many clients.
pub fn random_fraction() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether the same request may succeed later.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Parses `Retry-After`, in seconds or as a date.
pub fn parse_retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let text = header.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = UNIX_EPOCH + Duration::from_secs(http_date(text)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT` into seconds since 1970 (RFC 9110, section 5.6.7; not the two obsolete
/// forms).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = words[..] else {
        return None;
    };
    let number = |text: &str, max: u64| text.parse::<u64>().ok().filter(|n| *n <= max);
    let (day, year) = (number(day, 31)?, number(year, 9999).filter(|year| *year >= 1970)?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut parts = clock.split(':').map(|part| number(part, 60));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // Days since 1970 in the proleptic Gregorian calendar, years counted from March.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day;
    Some((days.checked_sub(719_469)?) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2028 12:00:00 GMT", Some(1_835_438_400 - 784_111_777)),
            ("soon", None),
            ("-5", None),
            ("Sun, 06 Nov 1994", None),
        ];
        for (header, expected) in cases {
            assert_eq!(parse_retry_after(header, now), expected.map(Duration::from_secs), "{header}");
        }
    }

    #[test]
    fn pauses_grow_and_a_servers_wish_is_kept_up_to_a_cap_or_ends_the_retries() {
        use std::sync::Mutex;
        struct Recorded(Mutex<Vec<Duration>>);
        impl Watch for Recorded {
            fn event(&self, event: Event<'_>) {
                if let Event::Retry { after, .. } = event {
                    self.0.lock().unwrap().push(after);
                }
            }
        }
        let (recorded, cancel) = (Recorded(Mutex::default()), Cancel::default());
        let access = Access { retry_pause: Duration::from_micros(10), retries: 3, ..Access::default() };
        let mut retries = RetryPolicy::new(&access, &recorded, &cancel, 0);
        while retries.may_retry() {
            retries.wait("the test", "it fails", None).unwrap();
        }
        let waits = recorded.0.lock().unwrap().clone();
        assert_eq!(waits.len(), 3);
        assert!(waits[2] > waits[0] * 2, "{waits:?}");
        let began = std::time::Instant::now();
        let mut retries = RetryPolicy::new(&access, &recorded, &cancel, 0);
        let error = retries.wait("the test", "status 429", Some(Duration::from_secs(99_999_999))).unwrap_err();
        assert!(error.to_string().contains("1158 days"), "{error}");
        assert!(began.elapsed() < MAX_RETRY_AFTER && recorded.0.lock().unwrap().len() == 3);
        cancel.raise();
        assert!(retries.wait("the test", "it fails", Some(MAX_RETRY_AFTER)).is_err());
        assert_eq!(recorded.0.lock().unwrap().last(), Some(&MAX_RETRY_AFTER));
    }
}
