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
    let timed = |index: usize, run: &CliRun| {
        let started = Instant::now();
        (copy(index, run), started.elapsed())
    };
    let results = run_all(names, parallel, run, timed).into_iter();
    results.map(|result| result.unwrap_or_else(|error| (Err(error), Duration::ZERO))).collect()
}

/// As [`copy_all`], for work with any result.
///
/// # Errors
/// Of each work: `Interrupted` before its start, or `Failed` if its thread panicked.
pub fn run_all<R: Send>(
    names: &[impl AsRef<str> + Sync],
    parallel: usize,
    run: &CliRun,
    work: impl Fn(usize, &CliRun) -> R + Sync,
) -> Vec<Result<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = names.iter().map(|_| Mutex::new(None)).collect();
    let worker = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(name) = names.get(index) else { return };
        // A panic in one copy must not end the others.
        let work = || work(index, &run.for_destination(name.as_ref()));
        let panicked = |_| Error::failed("internal error: the thread of this copy panicked");
        let result = run.cancel.check().and_then(|()| catch_unwind(AssertUnwindSafe(work)).map_err(panicked));
        *lock(&results[index]) = Some(result);
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
    let not_started = || Err(Error::failed("the copy was not started"));
    results.into_iter().map(|result| result.into_inner().ok().flatten().unwrap_or_else(not_started)).collect()
}
