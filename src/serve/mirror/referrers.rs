//! The referrers of an upstream's image. The last known list is kept as tags are: an index in the cache, under the
//! referrers tag of its subject, as in a registry without the referrers API.

use super::repository::MirroredRepository;
use crate::error::{Error, Kind, Result};
use crate::image::{Body, Descriptor, Digest, LayoutIndex, Manifest, media_type, referrers_tag};
use crate::serve::access_log::add;
use crate::serve::backend::catalog::Search;
use crate::source::{ReferrerList, Store};

impl MirroredRepository {
    /// The referrers of `subject`: those that upstream lists, else the last known ones.
    pub(super) fn find_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        if self.search == Search::Local {
            return Ok(self.last_known_referrers(subject)?.unwrap_or_default());
        }
        // A host may be a mirror that has the image without its referrers, so an empty list is not an answer yet.
        let listed = self.lookup_upstream(|store| {
            let found = store.referrers(subject)?;
            Ok(Some(found).filter(|found| !found.entries.is_empty()))
        });
        match listed {
            Ok(found) => {
                let ReferrerList { entries, incomplete } = found.unwrap_or_default();
                if incomplete.is_none() {
                    self.warn_on_error(self.remember_referrers(subject, &entries));
                }
                Ok(entries)
            }
            Err(error) if error.kind() == Kind::Denied && self.hide_upstream_errors => Ok(Vec::new()),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Interrupted) => Err(error),
            Err(error) => self.instead_of(subject, error),
        }
    }

    /// The last known list of the referrers of `subject`, or `error` if there is none: an empty list would say that the
    /// image is not signed.
    fn instead_of(&self, subject: &Digest, error: Error) -> Result<Vec<Descriptor>> {
        let Some(known) = self.last_known_referrers(subject)? else { return Err(error) };
        add(&self.state.metrics.stale_tags, 1);
        self.state.watch.say(&format!(
            "{}: cannot list the referrers of {subject} upstream; serving the last known list: {error}",
            self.repository_id.repository
        ));
        Ok(known)
    }

    fn remember_referrers(&self, subject: &Digest, found: &[Descriptor]) -> Result<()> {
        let (Some(name), Some(cache)) = (self.full_name(&referrers_tag(subject)), self.cache()) else { return Ok(()) };
        // A client may ask for any digest, and an entry for each would fill the list of names.
        if found.is_empty() && !cache.has(subject) && cache.last_known(&name)?.is_none() {
            return Ok(());
        }
        let mut found = found.to_vec();
        // The same list gives the same bytes.
        found.sort_by_key(|entry| entry.digest);
        let index = Manifest::from_bytes(LayoutIndex::of(&found).bytes(), media_type::OCI_INDEX)?;
        if !cache.has(&index.digest()) {
            cache.put_manifest(&index)?;
        }
        cache.set_name(&name, &index)
    }

    fn last_known_referrers(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        let Some(name) = self.full_name(&referrers_tag(subject)) else { return Ok(None) };
        let Some(digest) = self.last_known(&name)? else { return Ok(None) };
        Ok(self.cached(&digest)?.and_then(|index| match index.body {
            Body::Index { manifests, blobs } => Some([manifests, blobs].concat()),
            Body::Image { .. } | Body::Opaque => None,
        }))
    }
}
