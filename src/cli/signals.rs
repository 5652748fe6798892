//! Ctrl-C and `kill`: the first signal asks the run to end and gives it a second, the next one ends the process at
//! once. Nothing half-written has a name (see ARCHITECTURE.md), so either is safe.

use super::output::progress::Screen;
use crate::Error;
use crate::cancel::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What a run gets to end by itself after the first signal, in milliseconds, unless it asks for more.
const GRACE: u64 = 1000;

/// Which signal came first, if one did.
#[derive(Clone)]
pub struct Signals {
    first: Arc<AtomicI32>,
    grace: Arc<AtomicU64>,
}

impl Signals {
    pub fn seen(&self) -> Option<i32> {
        Some(self.first.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// From now on a run gets `grace` to end by itself after the first signal.
    pub fn patience(&self, grace: Duration) {
        self.grace.store(grace.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

/// The exit status of a process that `signal` ended, as shells tell it.
pub fn status(signal: i32) -> u8 {
    128 + u8::try_from(signal).unwrap_or(0)
}

/// Listens for the rest of the process's life.
pub fn listen(cancel: Cancel, screen: Arc<Screen>) -> Signals {
    let signals = Signals { first: Arc::default(), grace: Arc::new(AtomicU64::new(GRACE)) };
    let Ok(mut coming) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
        // Without a handler the system ends the process, which is as safe.
        return signals;
    };
    let seen = signals.clone();
    thread::spawn(move || {
        for signal in coming.forever() {
            if seen.first.swap(signal, Ordering::SeqCst) != 0 {
                end(signal, &screen);
            }
            let (cancel, screen, grace) = (cancel.clone(), screen.clone(), seen.grace.clone());
            // Apart from this thread, which has to hear the second signal; a hook may take its time.
            thread::spawn(move || {
                cancel.raise();
                thread::sleep(Duration::from_millis(grace.load(Ordering::SeqCst)));
                end(signal, &screen);
            });
        }
    });
    signals
}

fn end(signal: i32, screen: &Screen) -> ! {
    screen.end();
    super::output::terminal::line(&format!("imgmv: {}", Error::interrupted()));
    std::process::exit(status(signal).into())
}
