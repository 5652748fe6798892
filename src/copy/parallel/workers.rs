//! Threads that transfer blobs: each takes one after the other from the queue.

use super::queue::Queue;
use super::{BlobSource, LARGE_BYTES, MAX_LARGE, blob, wanted};
use crate::copy::upload_order::LineFill;
use crate::copy::{CopyRun, Work};
use crate::error::{Error, Kind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// Layers that are recompressed at the same time: each uses every core.
const MAX_RECOMPRESSED: usize = 2;
/// A worker that waits to start a large blob checks this often.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(super) struct Workers<'w, 'r> {
    run: &'w CopyRun<'r>,
    source: BlobSource<'w>,
    stop: &'w AtomicBool,
    queue: Mutex<Queue>,
    fill: Mutex<LineFill>,
    failure: Mutex<Option<Error>>,
    recompresses: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'w, 'r> Workers<'w, 'r> {
    pub fn new(
        run: &'w CopyRun<'r>,
        source: BlobSource<'w>,
        stop: &'w AtomicBool,
        queue: Queue,
        fill: LineFill,
        recompresses: bool,
    ) -> Workers<'w, 'r> {
        let (queue, fill, failure) = (Mutex::new(queue), Mutex::new(fill), Mutex::default());
        Workers { run, source, stop, queue, fill, failure, recompresses }
    }

    pub fn run(&self) -> Result<()> {
        lock(&self.queue).workers = 1;
        thread::scope(|scope| self.work(scope));
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// One worker.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        self.start_more(scope);
        while let Some(work) = self.next() {
            let done = blob::transfer(self.run, self.source, &work, self.stop);
            if work.blob.size >= LARGE_BYTES {
                let mut queue = lock(&self.queue);
                queue.active_large = queue.active_large.saturating_sub(1);
            }
            match done {
                Ok(()) => self.start_more(scope),
                Err(error) => self.fail(error),
            }
        }
    }

    /// The next blob; `None` ends this worker, because there are too many or no blob is left for it.
    ///
    /// One worker waits until the next large blob may start, and raises the limit where that helps.
    fn next(&self) -> Option<Work> {
        let mut waits = false;
        loop {
            let (wanted, max_large) = (self.wanted(), self.max_large());
            let mut queue = lock(&self.queue);
            let ends = self.stop.load(Ordering::Relaxed) || queue.workers > wanted || self.run.cancel.raised();
            let next = if ends { None } else { queue.next(max_large) };
            let keeps_waiting = next.is_none() && !ends && !queue.large.is_empty() && (waits || !queue.waits);
            if keeps_waiting {
                (queue.waits, waits) = (true, true);
                drop(queue);
                thread::sleep(POLL_INTERVAL);
                let mut fill = lock(&self.fill);
                fill.review(Instant::now(), self.run.uploads.transferred());
                self.run.uploads.share(fill.is_even());
                continue;
            }
            if waits {
                queue.waits = false;
            }
            if next.is_none() {
                queue.workers -= 1;
            }
            drop(queue);
            lock(&self.fill).restart(Instant::now(), self.run.uploads.transferred());
            return next;
        }
    }

    /// Starts workers up to the wanted number, as far as there are blobs for them.
    fn start_more<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let (wanted, max_large) = (self.wanted(), self.max_large());
        let more = {
            let mut queue = lock(&self.queue);
            let free = max_large.saturating_sub(queue.active_large);
            // One worker may wait.
            let large = queue.large.len().min(free + usize::from(!queue.waits));
            let more = wanted.saturating_sub(queue.workers).min(queue.small.len() + large);
            queue.workers += more;
            more
        };
        for _ in 0..more {
            scope.spawn(move || self.work(scope));
        }
    }

    fn wanted(&self) -> usize {
        let wanted = wanted(self.run, self.source.store);
        if self.recompresses { wanted.min(MAX_RECOMPRESSED) } else { wanted }
    }

    /// The number of large blobs that may be transferred at the same time.
    fn max_large(&self) -> usize {
        match self.run.sink.capabilities().large_uploads {
            Some(_) => lock(&self.fill).at_once(),
            None => MAX_LARGE,
        }
    }

    fn fail(&self, error: Error) {
        let mut first = lock(&self.failure);
        // After the first failure the other workers end as interrupted; the first one is reported.
        if first.as_ref().is_none_or(|first| first.kind() == Kind::Interrupted) {
            *first = Some(error);
        }
        drop(first);
        self.stop.store(true, Ordering::Relaxed);
        // Otherwise more workers would be started for the rest.
        let mut queue = lock(&self.queue);
        queue.large.clear();
        queue.small.clear();
    }
}
