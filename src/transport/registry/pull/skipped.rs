//! Unusable entries of a registry's list: counted and reported, so that one of them does not hide the others.

use crate::progress::Watch;
use serde_json::Value;

/// The number of entries that the report quotes.
const MAX_QUOTED_ENTRIES: usize = 3;
/// The maximum length of a quoted entry.
const MAX_QUOTED_CHARS: usize = 60;

/// The skipped entries of one list.
#[derive(Clone, Default)]
pub struct Skipped {
    count: usize,
    quoted: Vec<String>,
}

impl Skipped {
    /// Counts `entry`; it is quoted with control characters escaped.
    pub fn add(&mut self, entry: &Value) {
        self.count += 1;
        if self.quoted.len() < MAX_QUOTED_ENTRIES {
            let text = entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
            self.quoted.push(format!("{:?}", text.chars().take(MAX_QUOTED_CHARS).collect::<String>()));
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Reports the skipped entries of `list` that are not `expected`, if there are any.
    pub fn report(&self, watch: &dyn Watch, list: &str, expected: &str) {
        let more = if self.count > self.quoted.len() { ", …" } else { "" };
        let (count, quoted) = (self.count, self.quoted.join(", "));
        match count {
            0 => {}
            1 => watch.say(&format!("{list}: skipped 1 entry that is not {expected}: {quoted}")),
            _ => watch.say(&format!("{list}: skipped {count} entries that are not {expected}: {quoted}{more}")),
        }
    }
}
