//! The selection of tags: patterns, exclusions, semantic versions, the latest N, and literal tags.
//!
//! The steps have one order in every format: regular expression or glob, then `not`, then `semver`, then `latest`; `with`
//! adds literal tags at the end. Tags are filtered one at a time, so the list of a repository is never in memory.
//!
//! - `semver` and `latest` read the version at the start of a tag ([`version`]) and skip tags without one.
//! - Both skip prereleases, unless `prerelease` is set or a range names a prerelease (`>=1.2-rc.1`, `>=1.2-0`).
//! - `latest` counts tags, so a copy has at most N of them. `1.2.3` and `1.2.3-alpine` are two tags of one version; a
//!   pattern or `not` selects the variant.
//! - Tags of signatures and referrers (`sha256-HEX.sig`) are never selected: they belong to images.

mod glob;
mod pattern;
mod range;
mod selection;
mod version;

#[cfg(test)]
mod tests;

pub use pattern::TagPattern;
pub use range::VersionRange;
pub use selection::TagSelection;

use crate::image::{is_digest_tag, is_referrers_tag};
use version::Version;

/// A filter of tags. The default selects every tag that does not belong to an image.
#[derive(Debug, Clone, Default)]
pub struct TagFilter {
    /// A tag must match one of them; empty: all tags match.
    pub include: Vec<TagPattern>,
    /// A tag that matches one of them is removed.
    pub exclude: Vec<TagPattern>,
    /// The version of a tag must be in one of them; empty: all tags pass.
    pub semver: Vec<VersionRange>,
    /// Whether `semver` and `latest` accept prereleases (`1.2-rc1`).
    pub prerelease: bool,
    /// The number of tags with the highest versions that stay.
    pub latest: Option<usize>,
    /// Tags that are added at the end. The repository need not list them.
    pub with: Vec<Box<str>>,
}

impl TagFilter {
    /// Starts the selection from one list of tags.
    pub fn start(&self) -> TagSelection<'_> {
        TagSelection::new(self)
    }

    /// Whether `tag` passes the steps before `latest`, and its version if one of the steps reads it.
    fn passes<'t>(&self, tag: &'t str) -> Option<Option<Version<'t>>> {
        if is_digest_tag(tag) || is_referrers_tag(tag) {
            return None;
        }
        let is_included = self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(tag));
        if !is_included || self.exclude.iter().any(|pattern| pattern.matches(tag)) {
            return None;
        }
        if self.semver.is_empty() && self.latest.is_none() {
            return Some(None);
        }
        let version = Version::of(tag)?;
        let is_in_range = match &self.semver[..] {
            [] => self.prerelease || version.prerelease.is_none(),
            ranges => ranges.iter().any(|range| range.contains(&version, self.prerelease)),
        };
        is_in_range.then_some(Some(version))
    }
}
