//! Lines on standard error.

use serde_json::Value;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

/// One line on standard error; nobody is told when that is closed.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub(crate) fn json_line(value: &Value) {
    line(&value.to_string());
}

/// A lock that outlives a panic elsewhere: what is shown is never worth another one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
