//! The selection of tags: patterns, exclusions, semantic versions, the latest N, and literal tags beside them.
//!
//! The steps have one order in every format: regular expression or glob, then `not`, then `semver`, then `latest`; `with`
//! adds literal tags at the end. Tags are filtered one at a time, so the list of a repository is never in memory.

/// A filter of tags. The default selects every tag.
#[derive(Debug, Clone, Default)]
pub struct TagFilter {}
