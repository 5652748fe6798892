//! Ctrl-C and `kill`: the first signal cancels the run and allows it a grace period, the next one ends the process
//! immediately. Both are safe, because incomplete data never has a name (see ARCHITECTURE.md).

use super::output::progress::Screen;
use crate::Error;
use crate::cancel::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Default time from the first signal to the end of the process.
const GRACE_TIMEOUT_MS: u64 = 1000;

/// The first signal that was received, and the grace period after it.
#[derive(Clone)]
pub struct Signals {
    first: Arc<AtomicI32>,
    grace_ms: Arc<AtomicU64>,
}

impl Signals {
    /// Returns the first signal, if any was received.
    pub fn received(&self) -> Option<i32> {
        Some(self.first.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// Sets the time that the run has to end after the first signal.
    pub fn set_grace(&self, grace: Duration) {
        self.grace_ms.store(grace.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

/// The exit status that a shell reports for a process ended by `signal`.
pub fn exit_status(signal: i32) -> u8 {
    128 + u8::try_from(signal).unwrap_or(0)
}

/// Handles signals until the process ends.
pub fn listen(cancel: Cancel, screen: Arc<Screen>) -> Signals {
    let signals = Signals { first: Arc::default(), grace_ms: Arc::new(AtomicU64::new(GRACE_TIMEOUT_MS)) };
    let Ok(mut incoming) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
        // Without a handler, the system ends the process, which is safe too.
        return signals;
    };
    let shared = signals.clone();
    thread::spawn(move || {
        for signal in incoming.forever() {
            if shared.first.swap(signal, Ordering::SeqCst) != 0 {
                exit(signal, &screen);
            }
            let (cancel, screen, grace_ms) = (cancel.clone(), screen.clone(), shared.grace_ms.clone());
            // On another thread, because cancel hooks may be slow and this thread must receive the second signal.
            thread::spawn(move || {
                cancel.raise();
                thread::sleep(Duration::from_millis(grace_ms.load(Ordering::SeqCst)));
                exit(signal, &screen);
            });
        }
    });
    signals
}

fn exit(signal: i32, screen: &Screen) -> ! {
    screen.clear();
    super::output::terminal::line(&format!("imgmv: {}", Error::interrupted()));
    std::process::exit(exit_status(signal).into())
}
