//! Entries of a registry's list that cannot be used: counted and named, so that one of them does not hide the others.

use crate::progress::Watch;
use serde_json::Value;

/// So many are named.
const SHOWN: usize = 3;
/// In characters, of each.
const LENGTH: usize = 60;

/// What was skipped of one list.
#[derive(Default)]
pub struct Skipped {
    count: usize,
    shown: Vec<String>,
}

impl Skipped {
    /// Counts `entry`, which is shown with every control character escaped.
    pub fn add(&mut self, entry: &Value) {
        self.count += 1;
        if self.shown.len() < SHOWN {
            let text = entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
            self.shown.push(format!("{:?}", text.chars().take(LENGTH).collect::<String>()));
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Says how many entries of `list` were skipped since they are not `expected`; nothing where there were none.
    pub fn say(&self, watch: &dyn Watch, list: &str, expected: &str) {
        let more = if self.count > self.shown.len() { ", …" } else { "" };
        let (count, shown) = (self.count, self.shown.join(", "));
        match count {
            0 => {}
            1 => watch.say(&format!("{list}: 1 entry is not {expected} and is skipped: {shown}")),
            _ => watch.say(&format!("{list}: {count} entries are not {expected} and are skipped: {shown}{more}")),
        }
    }
}
