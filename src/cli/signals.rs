//! Ctrl-C and `kill`: the first signal asks the run to end and gives it a second, the next one ends the process at
//! once. Nothing half-written has a name (see ARCHITECTURE.md), so either is safe.

use super::progress::Screen;
use imgmv::Error;
use imgmv::cancel::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// What a run gets to end by itself after the first signal.
const GRACE: Duration = Duration::from_secs(1);

/// Which signal came first, if one did.
#[derive(Clone, Default)]
pub struct Signals(Arc<AtomicI32>);

impl Signals {
    pub fn seen(&self) -> Option<i32> {
        Some(self.0.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

/// The exit status of a process that `signal` ended, as shells tell it.
pub fn status(signal: i32) -> u8 {
    128 + u8::try_from(signal).unwrap_or(0)
}

/// Listens for the rest of the process's life.
pub fn listen(cancel: Cancel, screen: Arc<Screen>) -> Signals {
    let signals = Signals::default();
    let Ok(mut coming) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
        // Without a handler the system ends the process, which is as safe.
        return signals;
    };
    let seen = signals.clone();
    thread::spawn(move || {
        for signal in coming.forever() {
            if seen.0.swap(signal, Ordering::SeqCst) != 0 {
                end(signal, &screen);
            }
            let (cancel, screen) = (cancel.clone(), screen.clone());
            // Apart from this thread, which has to hear the second signal; a hook may take its time.
            thread::spawn(move || {
                cancel.raise();
                thread::sleep(GRACE);
                end(signal, &screen);
            });
        }
    });
    signals
}

fn end(signal: i32, screen: &Screen) -> ! {
    screen.end();
    super::progress::line(&format!("imgmv: {}", Error::interrupted()));
    std::process::exit(status(signal).into())
}
