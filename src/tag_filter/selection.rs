//! The selection of tags from one list, as the tags arrive.

use super::TagFilter;
use super::version::{MAX_PARTS, Prerelease, Version};
use crate::error::{Error, Result};
use crate::image::is_tag;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};

/// The maximum number of tags that one selection keeps.
pub const MAX_SELECTED_TAGS: usize = 200_000;

/// The tags of one list that pass a filter. The order in which tags are added does not matter.
#[derive(Debug)]
pub struct TagSelection<'f> {
    filter: &'f TagFilter,
    kept: Kept,
    added: usize,
}

#[derive(Debug)]
enum Kept {
    All(BTreeSet<Box<str>>),
    /// The tags with the highest versions, at most this many.
    Latest(BTreeSet<VersionedTag>, usize),
}

impl<'f> TagSelection<'f> {
    pub(super) fn new(filter: &'f TagFilter) -> TagSelection<'f> {
        let kept = match filter.latest {
            None => Kept::All(BTreeSet::new()),
            Some(count) => Kept::Latest(BTreeSet::new(), count),
        };
        TagSelection { filter, kept, added: 0 }
    }

    /// Adds one tag of the list. A tag that was added before is not kept twice.
    ///
    /// # Errors
    /// `Invalid`: more than 200,000 tags pass the filter.
    pub fn add(&mut self, tag: &str) -> Result<()> {
        self.added += 1;
        let Some(version) = self.filter.passes(tag) else { return Ok(()) };
        match (&mut self.kept, version) {
            (Kept::Latest(tags, count), Some(version)) => {
                tags.insert(VersionedTag::new(tag, version));
                if tags.len() > *count {
                    tags.pop_first();
                }
            }
            // `latest` reads the version of each tag that passes.
            (Kept::Latest(..), None) => {}
            (Kept::All(tags), _) => {
                if !tags.contains(tag) {
                    tags.insert(tag.into());
                }
            }
        }
        if self.matched() > MAX_SELECTED_TAGS {
            return Err(Error::invalid(format!(
                "more than {MAX_SELECTED_TAGS} tags pass the filter; write a pattern that fewer tags match, or use latest"
            )));
        }
        Ok(())
    }

    /// The number of tags that were added, whether they pass the filter or not.
    pub fn added(&self) -> usize {
        self.added
    }

    /// The number of tags that are kept now, without `with`. After the last tag, 0 means that no tag passes the filter.
    pub fn matched(&self) -> usize {
        match &self.kept {
            Kept::All(tags) => tags.len(),
            Kept::Latest(tags, _) => tags.len(),
        }
    }

    /// Returns the tags: with `latest` the highest version first, else in alphabetical order; then those of `with`.
    /// Each is returned once. The result is empty if no tag passes and `with` is empty, which the caller reports.
    ///
    /// # Errors
    /// `Usage`: a word of `with` is not a tag.
    pub fn finish(self) -> Result<Vec<Box<str>>> {
        let mut tags: Vec<Box<str>> = match self.kept {
            Kept::All(tags) => tags.into_iter().collect(),
            Kept::Latest(tags, _) => tags.into_iter().rev().map(|versioned| versioned.tag).collect(),
        };
        let literals = &self.filter.with;
        if let Some(wrong) = literals.iter().find(|literal| !is_tag(literal)) {
            return Err(Error::usage(format!("{wrong} in with is not a tag; write the tags themselves")));
        }
        let mut known: HashSet<&str> = tags.iter().map(|tag| &**tag).collect();
        let new: Vec<Box<str>> = literals.iter().filter(|literal| known.insert(literal)).cloned().collect();
        tags.extend(new);
        Ok(tags)
    }
}

/// A tag with its version, sorted by [`Version::order`], then by its text.
#[derive(Debug, PartialEq, Eq)]
struct VersionedTag {
    parts: [u64; MAX_PARTS],
    written: usize,
    prerelease: Option<Prerelease>,
    rest_start: usize,
    tag: Box<str>,
}

impl VersionedTag {
    fn new(tag: &str, version: Version<'_>) -> VersionedTag {
        let Version { parts, written, prerelease, rest } = version;
        VersionedTag { parts, written, prerelease, rest_start: tag.len() - rest.len(), tag: tag.into() }
    }

    fn version(&self) -> Version<'_> {
        let VersionedTag { parts, written, prerelease, .. } = *self;
        Version { parts, written, prerelease, rest: &self.tag[self.rest_start..] }
    }
}

impl Ord for VersionedTag {
    fn cmp(&self, other: &VersionedTag) -> Ordering {
        self.version().order(&other.version()).then_with(|| self.tag.cmp(&other.tag))
    }
}

impl PartialOrd for VersionedTag {
    fn partial_cmp(&self, other: &VersionedTag) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
