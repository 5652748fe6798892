//! How the tags of one source were found, and the reasons for which none of them may lead to a deletion.

use crate::error::Error;
use crate::source::TagListing;

/// The tags of one source.
#[derive(Debug, Clone)]
pub enum SourceTags {
    /// The document names this many tags or digests. No tag was listed.
    Literal(usize),
    /// The repository was listed to the end.
    Listed {
        repository: String,
        /// The number of tags in the list.
        listed: usize,
        /// The number of listed tags that pass the filter.
        selected: usize,
        listing: TagListing,
    },
    /// The repository was not listed.
    Failed { repository: String, error: Error },
}

impl SourceTags {
    /// The reason for which a tag that this source does not have may still exist there.
    pub fn problem(&self) -> Option<String> {
        match self {
            SourceTags::Literal(0) => Some("an entry names no tag".to_owned()),
            SourceTags::Literal(_) => None,
            SourceTags::Failed { repository, error } => Some(format!("{repository} was not listed: {error}")),
            SourceTags::Listed { repository, listed: 0, .. } => Some(format!("{repository} has no tags")),
            SourceTags::Listed { repository, selected: 0, .. } => {
                Some(format!("no tag of {repository} passes the filter"))
            }
            SourceTags::Listed { repository, listing, .. } if !listing.is_complete() => {
                Some(format!("the list of the tags of {repository} may not be complete"))
            }
            SourceTags::Listed { .. } => None,
        }
    }
}
