//! The answer of a store that is asked for referrers.

use crate::image::{Descriptor, Digest};
use std::collections::HashSet;

/// The referrers of one subject in a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReferrerList {
    /// The entries of the list, each digest once, in any order.
    pub entries: Vec<Descriptor>,
    /// Why others may exist that are not listed, as a clause that names the place; `None` if the list is complete.
    pub incomplete: Option<String>,
}

impl From<Vec<Descriptor>> for ReferrerList {
    /// A complete list.
    fn from(entries: Vec<Descriptor>) -> ReferrerList {
        ReferrerList { entries, incomplete: None }
    }
}

impl ReferrerList {
    /// Adds those of `other` that this list does not have. The first reason stays.
    pub fn merge(&mut self, other: ReferrerList) {
        let known: HashSet<Digest> = self.entries.iter().map(|entry| entry.digest).collect();
        self.entries.extend(other.entries.into_iter().filter(|entry| !known.contains(&entry.digest)));
        self.incomplete = self.incomplete.take().or(other.incomplete);
    }
}
