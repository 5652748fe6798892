//! Copies to several destinations in parallel.

use super::context::CliRun;
use super::output::terminal::lock;
use crate::copy::Report;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The result of one destination, and its duration.
type Finished = (Result<Report>, Duration);

/// Calls `copy` for each of `names` with its index and its context, at most `parallel` at a time. Returns the results
/// in the order of `names`.
pub fn copy_all(
    names: &[&str],
    parallel: usize,
    run: &CliRun,
    copy: impl Fn(usize, &CliRun) -> Result<Report> + Sync,
) -> Vec<Finished> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Finished>>> = names.iter().map(|_| Mutex::new(None)).collect();
    let worker = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(name) = names.get(index) else { return };
        let started = Instant::now();
        let copy = || run.cancel.check().and_then(|()| copy(index, &run.for_destination(name)));
        // A panic in one copy must not end the others.
        let result = catch_unwind(AssertUnwindSafe(copy))
            .unwrap_or_else(|_| Err(Error::failed("internal error: the thread of this copy panicked")));
        *lock(&results[index]) = Some((result, started.elapsed()));
    };
    thread::scope(|scope| {
        for nth in 0..parallel {
            let thread = thread::Builder::new().name("destination".into()).spawn_scoped(scope, worker);
            // Without any thread, the copies run here.
            if thread.is_err() && nth == 0 {
                worker();
            }
        }
    });
    let not_started = || (Err(Error::failed("the copy was not started")), Duration::ZERO);
    results.into_iter().map(|result| result.into_inner().ok().flatten().unwrap_or_else(not_started)).collect()
}
