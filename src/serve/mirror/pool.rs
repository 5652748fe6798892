//! A thread pool with a maximum number of threads; further jobs wait in a queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The stack of each thread; downloads have their buffers on the heap.
const STACK_BYTES: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// A pool whose threads start with a job and end when the queue is empty.
pub struct Pool {
    max_threads: usize,
    state: Mutex<PoolState>,
    changed: Condvar,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Job>,
    threads: usize,
}

impl Pool {
    /// Creates a pool of at most `max_threads` threads.
    pub fn new(max_threads: usize) -> Arc<Pool> {
        Arc::new(Pool { max_threads, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Runs `job`, or drops it if no thread can be started.
    pub fn run(self: &Arc<Pool>, job: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        state.queue.push_back(Box::new(job));
        if state.threads >= self.max_threads {
            return;
        }
        state.threads += 1;
        let thread = Thread { pool: self.clone(), ended: AtomicBool::new(false) };
        drop(state);
        let started =
            std::thread::Builder::new().name("download".into()).stack_size(STACK_BYTES).spawn(move || thread.work());
        if started.is_err() && self.state().threads == 0 {
            self.state().queue.clear();
        }
    }

    /// Waits until no job is running, for at most `timeout`.
    pub fn wait_idle(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.state();
        while state.threads > 0 {
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted thread of the pool.
struct Thread {
    pool: Arc<Pool>,
    ended: AtomicBool,
}

impl Thread {
    fn work(self) {
        loop {
            let mut state = self.pool.state();
            let Some(job) = state.queue.pop_front() else {
                // Under the same lock as the check of the queue, so that a new job starts a new thread.
                self.end_thread(state);
                return;
            };
            drop(state);
            job();
        }
    }

    fn end_thread(&self, mut state: MutexGuard<'_, PoolState>) {
        self.ended.store(true, Ordering::Relaxed);
        state.threads -= 1;
        self.pool.changed.notify_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            self.end_thread(self.pool.state());
        }
    }
}
