//! The end of a list of tags, for callers that delete tags which a list does not have.

use std::ops::AddAssign;

/// A list of tags that was read to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TagListing {
    /// The number of entries that are not tags. They were not visited.
    pub skipped: usize,
    /// The registry may have cut the list: the last page has as many tags as were requested and names no next page, or it
    /// is empty and names a next page.
    pub may_be_cut: bool,
}

impl TagListing {
    /// Whether a tag that was not visited does not exist.
    pub fn is_complete(&self) -> bool {
        self.skipped == 0 && !self.may_be_cut
    }
}

impl AddAssign for TagListing {
    /// Adds the list of another store.
    fn add_assign(&mut self, other: TagListing) {
        self.skipped += other.skipped;
        self.may_be_cut |= other.may_be_cut;
    }
}
