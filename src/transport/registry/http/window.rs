//! The number of requests to one host at a time, over all its repositories, logins and copies.
//!
//! A request holds a permit until the head of its response arrives; a streamed body releases it when its first byte is
//! read. So a thread with a permit never waits for another permit of the same host, although an upload may read its
//! bytes from that host. Bodies of downloads are limited by the copy's number of blobs. Other hosts, to which a registry
//! redirects, and token services have no window.
//!
//! The window is measured only while it is full. It grows while a larger one gives more responses a second, and halves
//! after 429 and 503. Requests that started before the last halving do not halve it again.

use crate::cancel::Cancel;
use crate::error::Result;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The size at the start: the requests that one copy sends to a remote registry.
const INITIAL_SIZE: usize = 32;
/// The maximum size, whatever the host allows.
const MAX_SIZE: usize = 64;
/// The minimum number of responses of one measurement.
const MIN_RESPONSES: usize = 8;
/// The measurements without growth after a larger window did not help, or after a refusal.
const REST: u32 = 8;
/// The interval at which waiting threads check the cancel flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The window of one host.
pub struct HostWindow {
    state: Mutex<WindowState>,
    changed: Condvar,
    started: Instant,
}

impl Default for HostWindow {
    fn default() -> HostWindow {
        HostWindow {
            state: Mutex::new(WindowState::new(INITIAL_SIZE)),
            changed: Condvar::new(),
            started: Instant::now(),
        }
    }
}

impl HostWindow {
    /// Waits until the window has room. Fails with `Interrupted` once `cancel` is raised.
    pub fn enter(self: &Arc<Self>, cancel: &Cancel) -> Result<Permit> {
        let mut state = self.state();
        state.waiting += 1;
        while !state.has_room() && !cancel.raised() {
            state = self.changed.wait_timeout(state, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        cancel.check()?;
        state.in_flight += 1;
        Ok(Permit { window: self.clone(), halvings: state.halvings, is_held: true })
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request to the host.
pub struct Permit {
    window: Arc<HostWindow>,
    /// The halvings before the request.
    halvings: u64,
    is_held: bool,
}

impl Permit {
    /// Makes room for the next request, and does not measure this one.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.is_held) {
            let mut state = self.window.state();
            state.in_flight = state.in_flight.saturating_sub(1);
            drop(state);
            self.window.changed.notify_one();
        }
    }

    /// Records the `status` of the response.
    pub fn answered(mut self, status: u16) {
        {
            let now = self.window.started.elapsed();
            let mut state = self.window.state();
            match status {
                429 | 503 => state.refused(self.halvings, now),
                _ if self.is_held => state.answered(now),
                _ => {}
            }
        }
        self.release();
        // A larger window has room for several.
        self.window.changed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

/// The requests of one host, and the measurement of its responses. Times are those since the window exists.
struct WindowState {
    size: usize,
    in_flight: usize,
    /// The requests that wait for a permit.
    waiting: usize,
    halvings: u64,
    /// The number of responses in this measurement.
    responses: usize,
    since: Duration,
    /// The size and the rate (responses a second) of the measurement before the window grew.
    before: Option<(usize, f64)>,
    /// The measurements until the window may grow.
    rest: u32,
}

impl WindowState {
    fn new(size: usize) -> WindowState {
        WindowState {
            size,
            in_flight: 0,
            waiting: 0,
            halvings: 0,
            responses: 0,
            since: Duration::ZERO,
            before: None,
            rest: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight < self.size
    }

    /// A response to a request with a permit, which is still in flight.
    fn answered(&mut self, now: Duration) {
        if self.in_flight + self.waiting < self.size {
            self.measure_again(now);
            return;
        }
        self.responses += 1;
        if self.responses >= self.size.max(MIN_RESPONSES) {
            let elapsed = now.saturating_sub(self.since).max(Duration::from_micros(1));
            self.review(self.responses as f64 / elapsed.as_secs_f64());
            self.measure_again(now);
        }
    }

    /// Decides on the size by the rate of a full window.
    fn review(&mut self, rate: f64) {
        if let Some((size, before)) = self.before.take() {
            // A quarter of the gain that is possible; less is noise.
            let growth = self.size as f64 / size as f64 - 1.0;
            if rate < before * (1.0 + growth / 4.0) {
                (self.size, self.rest) = (size, REST);
                return;
            }
        }
        if self.rest > 0 {
            self.rest -= 1;
        } else if self.size < MAX_SIZE {
            self.before = Some((self.size, rate));
            // Twice the size until the first refusal, afterwards a quarter more.
            let more = if self.halvings == 0 { self.size } else { (self.size / 4).max(1) };
            self.size = (self.size + more).min(MAX_SIZE);
        }
    }

    /// A 429 or 503 to a request that began after `halvings`.
    fn refused(&mut self, halvings: u64, now: Duration) {
        if halvings == self.halvings {
            self.size = (self.size / 2).max(1);
            self.halvings += 1;
            (self.before, self.rest) = (None, REST);
        }
        self.measure_again(now);
    }

    fn measure_again(&mut self, now: Duration) {
        (self.responses, self.since) = (0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers `responses` requests of a full window, `capacity` of them at a time in `latency`: a simulated clock.
    fn load(state: &mut WindowState, now: &mut Duration, responses: usize, capacity: usize, latency: Duration) {
        for _ in 0..responses {
            (state.in_flight, state.waiting) = (state.size, 1);
            *now += latency / state.size.min(capacity) as u32;
            state.answered(*now);
        }
    }

    const LATENCY: Duration = Duration::from_millis(30);

    #[test]
    fn a_window_grows_while_a_larger_one_gives_more_responses() {
        let (mut state, mut now) = (WindowState::new(4), Duration::ZERO);
        load(&mut state, &mut now, 1000, 1000, LATENCY);
        assert_eq!(state.size, MAX_SIZE);
        // A host that answers 16 at a time: the step from 16 to 32 does not help, and is undone.
        let (mut state, mut now) = (WindowState::new(4), Duration::ZERO);
        let mut sizes = Vec::new();
        for _ in 0..2000 {
            load(&mut state, &mut now, 1, 16, LATENCY);
            sizes.push(state.size);
        }
        assert_eq!(sizes.iter().max(), Some(&32));
        assert!(sizes.iter().filter(|size| **size == 16).count() > 1400, "{sizes:?}");
    }

    #[test]
    fn a_window_halves_once_for_the_refusals_of_one_round_and_is_never_zero() {
        let (mut state, mut now) = (WindowState::new(32), Duration::ZERO);
        for _ in 0..32 {
            state.refused(0, now);
        }
        assert_eq!((state.size, state.halvings), (16, 1));
        for round in 1..10 {
            state.refused(round, now);
        }
        assert_eq!(state.size, 1);
        // After a rest it grows again, in small steps.
        load(&mut state, &mut now, MIN_RESPONSES * REST as usize, 1000, LATENCY);
        assert_eq!(state.size, 1);
        load(&mut state, &mut now, MIN_RESPONSES, 1000, LATENCY);
        assert_eq!(state.size, 2);
        load(&mut state, &mut now, 10_000, 1000, LATENCY);
        assert_eq!(state.size, MAX_SIZE);
    }

    #[test]
    fn a_window_that_is_not_full_keeps_its_size() {
        let (mut state, mut now) = (WindowState::new(8), Duration::ZERO);
        for _ in 0..1000 {
            now += LATENCY;
            state.in_flight = 7;
            state.answered(now);
        }
        assert_eq!(state.size, 8);
    }

    #[test]
    fn a_streamed_body_makes_room_and_a_cancelled_wait_ends() {
        let window = Arc::new(HostWindow::default());
        window.state().size = 1;
        let cancel = Cancel::default();
        let mut upload = window.enter(&cancel).unwrap();
        upload.release();
        // The source of the upload is the same host.
        let download = window.enter(&cancel).unwrap();
        upload.answered(503);
        assert_eq!(window.state().in_flight, 1);
        cancel.raise();
        assert!(window.enter(&cancel).is_err());
        drop(download);
        let state = window.state();
        assert_eq!((state.in_flight, state.waiting), (0, 0));
    }
}
