//! Several destinations side by side, so many at once.

use super::context::Run;
use super::output::terminal::lock;
use crate::copy::Report;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What became of one, and how long it took.
type Done = (Result<Report>, Duration);

/// Runs `one` for each of `words` (its number, and the run as that destination has it), `at_once` of them at a time;
/// what each gave and how long it took, in the order of `words`.
pub fn each(
    words: &[&str],
    at_once: usize,
    run: &Run,
    one: impl Fn(usize, &Run) -> Result<Report> + Sync,
) -> Vec<Done> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Done>>> = words.iter().map(|_| Mutex::new(None)).collect();
    let worker = || loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(word) = words.get(at) else { return };
        let began = Instant::now();
        let copy = || run.cancel.check().and_then(|()| one(at, &run.member(word)));
        // What goes wrong with one is not to end the others.
        let done = catch_unwind(AssertUnwindSafe(copy)).unwrap_or_else(|_| Err(Error::failed("its thread panicked")));
        *lock(&results[at]) = Some((done, began.elapsed()));
    };
    thread::scope(|scope| {
        for nth in 0..at_once {
            let started = thread::Builder::new().name("destination".into()).spawn_scoped(scope, worker);
            if started.is_err() && nth == 0 {
                worker();
            }
        }
    });
    let never = || (Err(Error::failed("it was never begun")), Duration::ZERO);
    results.into_iter().map(|done| done.into_inner().ok().flatten().unwrap_or_else(never)).collect()
}
