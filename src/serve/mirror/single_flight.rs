//! Coalesces identical concurrent lookups: a caller that arrives while a lookup is running gets the same result.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The interval between two checks while waiting.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The running lookups.
pub struct SingleFlight<K, T> {
    running: Mutex<HashMap<K, Arc<Lookup<T>>>>,
}

struct Lookup<T> {
    result: Mutex<Option<Result<T>>>,
    result_set: Condvar,
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        SingleFlight { running: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> SingleFlight<K, T> {
    /// Runs `work`, or waits for the result if a lookup of `key` is already running.
    pub fn run(&self, key: K, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (lookup, is_first) = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(&key) {
                Some(lookup) => (lookup.clone(), false),
                None => {
                    let lookup = Arc::new(Lookup { result: Mutex::new(None), result_set: Condvar::new() });
                    running.insert(key.clone(), lookup.clone());
                    (lookup, true)
                }
            }
        };
        if !is_first {
            return lookup.wait();
        }
        let guard = LookupGuard { single_flight: self, key, lookup: &lookup };
        let result = work();
        lookup.set(result.clone());
        drop(guard);
        result
    }
}

impl<T: Clone> Lookup<T> {
    fn set(&self, result: Result<T>) {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
        self.result_set.notify_all();
    }

    /// Waits for the result. The first caller always provides one, an error if its lookup panicked.
    fn wait(&self) -> Result<T> {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = &*result {
                return result.clone();
            }
            result = self.result_set.wait_timeout(result, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Ends a lookup, also after a panic.
struct LookupGuard<'o, K: Eq + Hash, T: Clone> {
    single_flight: &'o SingleFlight<K, T>,
    key: K,
    lookup: &'o Lookup<T>,
}

impl<K: Eq + Hash, T: Clone> Drop for LookupGuard<'_, K, T> {
    fn drop(&mut self) {
        self.single_flight.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.lookup.set(Err(Error::failed("internal error: a shared lookup ended without a result")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_question_under_way_is_not_asked_again_and_a_later_one_is() {
        let (single_flight, asked) = (SingleFlight::<&str, usize>::default(), AtomicUsize::new(0));
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    let result = single_flight.run("size", || {
                        std::thread::sleep(Duration::from_millis(300));
                        asked.fetch_add(1, Ordering::SeqCst);
                        Ok(7)
                    });
                    assert_eq!(result.unwrap(), 7);
                });
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(single_flight.run("size", || Err(Error::network("gone"))).is_err());
        assert_eq!(single_flight.run("size", || Ok(8)).unwrap(), 8);
    }
}
