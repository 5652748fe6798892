//! Lines on standard error.

use serde_json::Value;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

/// Writes one line to standard error. Write errors are ignored, because they cannot be reported anywhere.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes one JSON document as a line to standard error.
pub(crate) fn json_line(value: &Value) {
    line(&value.to_string());
}

/// Locks `mutex`, also after a panic of another thread: output must not cause a second panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
