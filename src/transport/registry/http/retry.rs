//! When a request is tried again, and after how long: the one policy of the whole transport. Exponential pauses with
//! jitter; `Retry-After` (RFC 9110, section 10.2.3) is honoured up to a cap, beyond which the run ends; every wait is told and can be cut short.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Watch};
use crate::transport::registry::options::Access;
use std::{
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that asks for more is not asked again: the run ends and says so.
const LONGEST_WISH: Duration = Duration::from_secs(120);
/// A pause after progress is shorter by so much.
const WHILE_MOVING: u32 = 16;
/// Nobody there: tried again a little, in case a service is just starting.
const TRIES_WHEN_UNREACHABLE: u32 = 2;
/// In bytes: what has to arrive between two breaks for the budget to be full again.
pub const PROGRESS: u64 = 16 << 10;

/// The tries that one request has left.
pub struct RetryPolicy<'a> {
    access: &'a Access,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
    made: u32,
    /// Bytes came between the last failure and this one.
    moving: bool,
}

impl<'a> RetryPolicy<'a> {
    /// `made` tries have failed already.
    pub fn new(access: &'a Access, watch: &'a dyn Watch, cancel: &'a Cancel, made: u32) -> RetryPolicy<'a> {
        RetryPolicy { access, watch, cancel, made, moving: false }
    }

    /// How many have failed.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Progress was made: as if nothing had failed before.
    pub fn refill(&mut self) {
        self.made = 0;
        self.moving = true;
    }

    /// Whether another try is left.
    pub fn left(&self) -> bool {
        self.made < self.access.retries
    }

    /// Whether another try is left for a host that does not answer at all.
    pub fn left_for_unreachable(&self) -> bool {
        self.made < self.access.retries.min(TRIES_WHEN_UNREACHABLE)
    }

    /// The error when no try is left.
    pub fn give_up(&self, what: &str, why: &str) -> Error {
        match self.made {
            0 => Error::network(format!("{what}: {why}")),
            n => Error::network(format!("{what}: {why}; tried {} times", n + 1)),
        }
    }

    /// Waits before the next try of `what`; `wish` is what the server asked for. Fails at once where that is longer than
    /// any wait here.
    pub fn wait(&mut self, what: &str, why: &str, wish: Option<Duration>) -> Result<()> {
        if let Some(wish) = wish.filter(|wish| *wish > LONGEST_WISH) {
            return Err(Error::network(format!(
                "{what}: {why}; it asks for a wait of {}, longer than the {} s that are waited; run this again after it",
                spelled(wish),
                LONGEST_WISH.as_secs()
            ))
            .permanent());
        }
        // A line that delivers between its cuts is taken up quickly: it may be cut hundreds of times.
        let share = if std::mem::take(&mut self.moving) { WHILE_MOVING } else { 1 };
        let doubled = self.access.pause.saturating_mul(1 << self.made.min(16)).min(LONGEST_PAUSE);
        self.made += 1;
        let own = (doubled / share).mul_f64(0.75 + 0.5 * chance());
        let after = wish.map_or(own, |wish| wish.max(own));
        self.watch.event(Event::Retry { what, why, after });
        pause(after, self.cancel)
    }
}

/// `time` in the largest unit that makes it at least two, rounded up.
fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    let (unit, name) = [(86_400, "days"), (3600, "hours"), (60, "minutes")]
        .into_iter()
        .find(|(unit, _)| seconds >= 2 * unit)
        .unwrap_or((1, "seconds"));
    format!("{} {name}", seconds.div_ceil(unit))
}

/// Sleeps, but not past a cancellation.
fn pause(mut time: Duration, cancel: &Cancel) -> Result<()> {
    const SLICE: Duration = Duration::from_millis(50);
    while !time.is_zero() {
        cancel.check()?;
        let slice = time.min(SLICE);
        thread::sleep(slice);
        time -= slice;
    }
    cancel.check()
}

/// Between 0 and 1; only there to spread many clients' retries.
fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether a status says that the same request may do better later.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` in seconds or as a date.
pub fn wish(header: &str, now: SystemTime) -> Option<Duration> {
    let text = header.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = UNIX_EPOCH + Duration::from_secs(date(text)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7; the two old forms are not read).
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = words[..] else {
        return None;
    };
    let number = |text: &str, most: u64| text.parse::<u64>().ok().filter(|n| *n <= most);
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
            assert_eq!(wish(header, now), expected.map(Duration::from_secs), "{header}");
        }
    }

    #[test]
    fn pauses_grow_and_a_servers_wish_is_kept_up_to_a_cap_or_ends_the_tries() {
        use std::sync::Mutex;
        struct Heard(Mutex<Vec<Duration>>);
        impl Watch for Heard {
            fn event(&self, event: Event<'_>) {
                if let Event::Retry { after, .. } = event {
                    self.0.lock().unwrap().push(after);
                }
            }
        }
        let (heard, cancel) = (Heard(Mutex::default()), Cancel::default());
        let access = Access { pause: Duration::from_micros(10), retries: 3, ..Access::default() };
        let mut tries = RetryPolicy::new(&access, &heard, &cancel, 0);
        while tries.left() {
            tries.wait("the test", "it fails", None).unwrap();
        }
        let waits = heard.0.lock().unwrap().clone();
        assert_eq!(waits.len(), 3);
        assert!(waits[2] > waits[0] * 2, "{waits:?}");
        let began = std::time::Instant::now();
        let mut tries = RetryPolicy::new(&access, &heard, &cancel, 0);
        let error = tries.wait("the test", "status 429", Some(Duration::from_secs(99_999_999))).unwrap_err();
        assert!(error.to_string().contains("1158 days"), "{error}");
        assert!(began.elapsed() < LONGEST_WISH && heard.0.lock().unwrap().len() == 3);
        cancel.raise();
        assert!(tries.wait("the test", "it fails", Some(LONGEST_WISH)).is_err());
        assert_eq!(heard.0.lock().unwrap().last(), Some(&LONGEST_WISH));
    }
}
