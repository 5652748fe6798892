//! Messages about what is left out of a tree's images.

use crate::error::Error;
use crate::progress::{Silent, Watch};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The maximum number of broken entries that a message names.
const MAX_NAMED: usize = 20;
/// The maximum number of messages that are remembered.
const MAX_TOLD: usize = 1000;

/// The receiver of the messages of one tree, each of which it gets once.
pub(super) struct Notes {
    watch: Arc<dyn Watch>,
    told: Mutex<HashSet<String>>,
}

impl Default for Notes {
    fn default() -> Notes {
        Notes::to(Arc::new(Silent))
    }
}

impl Notes {
    pub fn to(watch: Arc<dyn Watch>) -> Notes {
        Notes { watch, told: Mutex::default() }
    }

    /// Sends `text`, unless it was sent before.
    pub fn say(&self, text: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_TOLD && !told.contains(&text) {
            self.watch.say(&text);
            told.insert(text);
        }
    }
}

/// The entries of a tree that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Broken {
    pub count: usize,
    /// The first of them.
    pub shown: Vec<String>,
}

impl Broken {
    pub fn add(&mut self, error: &Error) {
        self.count += 1;
        if self.shown.len() < MAX_NAMED {
            self.shown.push(error.to_string());
        }
    }

    /// The entries as the end of a sentence; `None` if there are none.
    pub fn sentence(&self) -> Option<String> {
        let more = self.count.saturating_sub(self.shown.len());
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        (self.count > 0).then(|| format!("{}{more}", self.shown.join("; ")))
    }
}
