//! The same work for several items at the same time.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls `work` for each of `items` in at most `threads` threads, one of which is the caller's. Returns the results in the
/// order of `items`.
///
/// # Errors
/// The error of the first item that failed. After an error no other item is started.
pub(crate) fn try_map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(slot)) = (items.get(at), results.get(at)) else { return };
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            // Without another thread, this one does all of the work.
            let _ = thread::Builder::new().spawn_scoped(scope, worker);
        }
        worker();
    });
    // An item that was not started comes after one that failed.
    let not_started = || Err(Error::failed("a request was not started"));
    let result = |slot: Mutex<Option<Result<R>>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|slot| result(slot).unwrap_or_else(not_started)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [0, 1, 3, 1000] {
            let doubled = try_map(&items, threads, |item| Ok(item * 2)).unwrap();
            assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
        assert!(try_map(&[], 4, |_: &u8| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn items_are_worked_on_at_the_same_time() {
        let all_started = Barrier::new(3);
        try_map(&[0, 1, 2], 3, |_| Ok(all_started.wait())).unwrap();
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let started = AtomicUsize::new(0);
        let work = |item: &usize| {
            started.fetch_add(1, Ordering::Relaxed);
            if *item < 3 { Ok(()) } else { Err(Error::failed(format!("item {item}"))) }
        };
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(try_map(&items, 1, work).unwrap_err().to_string(), "item 3");
        assert_eq!(started.into_inner(), 4);
    }
}
