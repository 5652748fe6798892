//! Runs one promise over all rows of a table.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The promises that do not apply to a row, each with the reason; in groups that rows share.
pub type Except = &'static [&'static [(&'static str, &'static str)]];

/// Checks `promise` for each `(name, except, row)`; fails with the names of the rows that break it.
pub fn check<R>(promise: &str, rows: Vec<(&'static str, Except, R)>, check: impl Fn(&R)) {
    let mut broken = Vec::new();
    for (name, except, row) in rows {
        if let Some((_, reason)) = except.iter().copied().flatten().find(|(excepted, _)| *excepted == promise) {
            println!("skipped: {name}: {promise}: {reason}");
            continue;
        }
        println!("row: {name}");
        if catch_unwind(AssertUnwindSafe(|| check(&row))).is_err() {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "{promise} is broken by: {}", broken.join(", "));
}

/// Each exception names a promise: a test function in `sources`.
pub fn names_promises(rows: impl Iterator<Item = (&'static str, Except)>, sources: &[&str]) {
    for (name, except) in rows {
        for (promise, _) in except.iter().copied().flatten() {
            let function = format!("fn {promise}()");
            assert!(sources.iter().any(|source| source.contains(&function)), "{name}: {promise} is not a promise");
        }
    }
}
