//! The referrers and cosign's tags of an upstream's image. The last known state is kept as tags are: an index in the
//! cache, under the referrers tag of its subject, as in a registry without the referrers API. Its annotations name
//! cosign's tags for the subject that upstream does not have, so that an image that is not signed is known as such
//! while upstream does not respond.

use super::repository::MirroredRepository;
use crate::error::{Error, Kind, Result};
use crate::image::{
    Body, Descriptor, Digest, LayoutIndex, Manifest, Name, is_digest_tag, is_referrers_tag, media_type, referrers_tag,
    tagged_subject,
};
use crate::serve::access_log::add;
use crate::serve::backend::catalog::Search;
use crate::source::{ReferrerList, Store};
use std::collections::BTreeSet;
use std::sync::PoisonError;

/// The annotation with the tags that upstream does not have, separated by spaces.
const MISSING_TAGS: &str = "imgmv.missing-tags";
/// The annotation of an index without a list of referrers: upstream was not asked for one.
const NOT_LISTED: &str = "imgmv.not-listed";

/// The last answers of upstream about a subject.
#[derive(Default, Clone, PartialEq)]
struct Known {
    /// In the order of the digests; `None` if upstream was not asked.
    referrers: Option<Vec<Descriptor>>,
    missing_tags: BTreeSet<String>,
}

impl Known {
    /// Reads `index`. Upstream may have anything under a referrers tag, so without an index nothing is known.
    fn read(index: &Manifest) -> Known {
        let Ok(annotations) = LayoutIndex::parse(&index.bytes) else { return Known::default() };
        let missing = annotations.annotation(MISSING_TAGS).unwrap_or_default();
        let referrers = match &index.body {
            Body::Index { manifests, blobs } if annotations.annotation(NOT_LISTED).is_none() => {
                Some(in_order([&manifests[..], blobs].concat()))
            }
            _ => None,
        };
        Known { referrers, missing_tags: missing.split_whitespace().map(str::to_owned).collect() }
    }

    fn index(&self) -> Result<Manifest> {
        let mut index = LayoutIndex::of(self.referrers.as_deref().unwrap_or_default());
        if self.referrers.is_none() {
            index.annotate(NOT_LISTED, "true");
        }
        if !self.missing_tags.is_empty() {
            let missing: Vec<&str> = self.missing_tags.iter().map(String::as_str).collect();
            index.annotate(MISSING_TAGS, &missing.join(" "));
        }
        Manifest::from_bytes(index.bytes(), media_type::OCI_INDEX)
    }
}

/// The same list gives the same bytes.
fn in_order(mut entries: Vec<Descriptor>) -> Vec<Descriptor> {
    entries.sort_by_key(|entry| entry.digest);
    entries
}

impl MirroredRepository {
    /// The referrers of `subject`: those that the hosts of upstream list together. Without an answer of the registry itself
    /// the last known ones are added.
    pub(super) fn find_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        if self.search == Search::Local {
            return Ok(self.known(subject)?.referrers.unwrap_or_default());
        }
        let (lists, error) = self.lookup_all(|store| store.referrers(subject))?;
        let mut found = ReferrerList::default();
        lists.into_iter().for_each(|list| found.merge(list));
        match error {
            None => {
                if found.incomplete.is_none() {
                    let listed = in_order(found.entries.clone());
                    self.warn_on_error(self.remember(subject, |known| known.referrers = Some(listed)));
                }
            }
            Some(error) if matches!(error.kind(), Kind::Interrupted) => return Err(error),
            Some(error) if error.kind() == Kind::Denied => {
                if found.entries.is_empty() && !self.hide_upstream_errors {
                    return Err(error);
                }
            }
            Some(error) => self.add_known(subject, error, &mut found)?,
        }
        Ok(found.entries)
    }

    /// Adds the last known referrers of `subject` to `found`.
    ///
    /// Fails with `error` if there is nothing to serve: an empty list would say that the image is not signed.
    fn add_known(&self, subject: &Digest, error: Error, found: &mut ReferrerList) -> Result<()> {
        match self.known(subject)?.referrers {
            Some(known) => found.merge(ReferrerList::from(known)),
            None if found.entries.is_empty() => return Err(error),
            None => {}
        }
        add(&self.state.metrics.stale_tags, 1);
        self.state.watch.say(&format!(
            "{}: cannot list the referrers of {subject} upstream; serving the last known list: {error}",
            self.repository_id.repository
        ));
        Ok(())
    }

    /// Records whether upstream has `tag`, if it is one of cosign's.
    pub(super) fn remember_digest_tag(&self, tag: &str, exists: bool) {
        let Some(subject) = tagged_subject(tag).filter(|_| is_digest_tag(tag)) else { return };
        let change = |known: &mut Known| {
            match exists {
                true => known.missing_tags.remove(tag),
                false => known.missing_tags.insert(tag.to_owned()),
            };
        };
        self.warn_on_error(self.remember(&subject, change));
    }

    /// Whether upstream had no `tag` when it answered last. Only known of cosign's tags.
    pub(super) fn is_known_missing(&self, tag: &str) -> Result<bool> {
        match tagged_subject(tag).filter(|_| is_digest_tag(tag)) {
            Some(subject) => Ok(self.known(&subject)?.missing_tags.contains(tag)),
            None => Ok(false),
        }
    }

    /// The last known target of `name`, which has the tag `tag`. An index that only says what is missing is none.
    pub(super) fn last_known_target(&self, tag: &str, name: &Name) -> Result<Option<Digest>> {
        if let Some(subject) = tagged_subject(tag).filter(|_| is_referrers_tag(tag))
            && self.known(&subject)?.referrers.is_none()
        {
            return Ok(None);
        }
        self.last_known(name)
    }

    fn known(&self, subject: &Digest) -> Result<Known> {
        let Some(name) = self.full_name(&referrers_tag(subject)) else { return Ok(Known::default()) };
        let Some(digest) = self.last_known(&name)? else { return Ok(Known::default()) };
        Ok(self.cached(&digest)?.map_or_else(Known::default, |index| Known::read(&index)))
    }

    /// Changes what is known about `subject`.
    fn remember(&self, subject: &Digest, change: impl FnOnce(&mut Known)) -> Result<()> {
        let (Some(name), Some(cache)) = (self.full_name(&referrers_tag(subject)), self.cache()) else { return Ok(()) };
        let _lock = self.state.known_lists.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.known(subject)?;
        let mut known = before.clone();
        change(&mut known);
        let has_referrers = known.referrers.as_ref().is_some_and(|referrers| !referrers.is_empty());
        // A client may ask for any digest, and an entry for each would fill the list of names.
        if known == before || (!has_referrers && !cache.has(subject) && cache.last_known(&name)?.is_none()) {
            return Ok(());
        }
        let index = known.index()?;
        if !cache.has(&index.digest()) {
            cache.put_manifest(&index)?;
        }
        cache.set_name(&name, &index)
    }
}
