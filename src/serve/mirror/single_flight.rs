//! Coalesces identical concurrent lookups: a caller that arrives while a lookup is running gets the same result.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The interval between two checks while waiting.
const GLANCE: Duration = Duration::from_secs(1);

/// The running lookups.
pub struct Once<K, T> {
    under_way: Mutex<HashMap<K, Arc<Slot<T>>>>,
}

struct Slot<T> {
    answer: Mutex<Option<Result<T>>>,
    given: Condvar,
}

impl<K, T> Default for Once<K, T> {
    fn default() -> Self {
        Once { under_way: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> Once<K, T> {
    /// Runs `question`, or waits for the result if a lookup of `key` is already running.
    pub fn ask(&self, key: K, question: impl FnOnce() -> Result<T>) -> Result<T> {
        let (slot, first) = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            match under_way.get(&key) {
                Some(slot) => (slot.clone(), false),
                None => {
                    let slot = Arc::new(Slot { answer: Mutex::new(None), given: Condvar::new() });
                    under_way.insert(key.clone(), slot.clone());
                    (slot, true)
                }
            }
        };
        if !first {
            return slot.wait();
        }
        let asking = Asking { once: self, key, slot: &slot };
        let answer = question();
        slot.give(answer.clone());
        drop(asking);
        answer
    }
}

impl<T: Clone> Slot<T> {
    fn give(&self, answer: Result<T>) {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(answer);
        self.given.notify_all();
    }

    /// Waits for the result. The first caller always provides one, an error if its lookup panicked.
    fn wait(&self) -> Result<T> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = &*answer {
                return answer.clone();
            }
            answer = self.given.wait_timeout(answer, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Ends a lookup, also after a panic.
struct Asking<'o, K: Eq + Hash, T: Clone> {
    once: &'o Once<K, T>,
    key: K,
    slot: &'o Slot<T>,
}

impl<K: Eq + Hash, T: Clone> Drop for Asking<'_, K, T> {
    fn drop(&mut self) {
        self.once.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.slot.give(Err(Error::failed("internal error: a shared lookup ended without a result")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_question_under_way_is_not_asked_again_and_a_later_one_is() {
        let (once, asked) = (Once::<&str, usize>::default(), AtomicUsize::new(0));
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    let answer = once.ask("size", || {
                        std::thread::sleep(Duration::from_millis(300));
                        asked.fetch_add(1, Ordering::SeqCst);
                        Ok(7)
                    });
                    assert_eq!(answer.unwrap(), 7);
                });
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(once.ask("size", || Err(Error::network("gone"))).is_err());
        assert_eq!(once.ask("size", || Ok(8)).unwrap(), 8);
    }
}
