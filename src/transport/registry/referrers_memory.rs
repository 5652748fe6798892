//! The properties of a repository's referrers API and of its tags, so that each is asked for once in a run.

use super::http::client::RegistryClient;
use super::pull::tags;
use crate::error::{Kind, Result};
use crate::image::{Digest, digest_tags, is_digest_tag};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The maximum number of pages of a list of tags that is read in place of three requests for each subject.
const MAX_TAG_PAGES: usize = 3;
/// The maximum number of tags that a list is checked for.
const MAX_SEEN_TAGS: usize = 64;
/// The maximum number of repositories of one registry. A list of digest tags takes at most 64 KiB.
const MAX_REPOSITORIES: usize = 128;

/// The repositories of one registry, the latest used last.
#[derive(Default)]
pub struct ReferrersMemories(Mutex<VecDeque<(String, Arc<ReferrersMemory>)>>);

impl ReferrersMemories {
    /// The memory of `repository`, which all users of the repository share.
    pub fn repository(&self, repository: &str) -> Arc<ReferrersMemory> {
        let mut repositories = lock(&self.0);
        let known = repositories.iter().rposition(|(name, _)| name == repository);
        let entry = known.and_then(|at| repositories.remove(at));
        let (name, memory) = entry.unwrap_or_else(|| (repository.to_owned(), Arc::default()));
        if repositories.len() == MAX_REPOSITORIES {
            repositories.pop_front();
        }
        repositories.push_back((name, memory.clone()));
        memory
    }
}

/// One repository.
#[derive(Default)]
pub struct ReferrersMemory {
    /// Whether the registry has the referrers API, once it was asked.
    has_api: OnceLock<bool>,
    tags: Mutex<RepositoryTags>,
    /// Held while the tags are listed, since others wait for the same list.
    listing: Mutex<()>,
}

/// The tags of a repository, as far as they are known.
#[derive(Default)]
struct RepositoryTags {
    /// Digest tags were asked for.
    is_asked: bool,
    /// Tags that the repository has, known before its tags were listed.
    seen: HashSet<String>,
    list: TagList,
}

/// The list of a repository's tags.
#[derive(Default)]
enum TagList {
    #[default]
    Unread,
    /// It cannot be had, or is not complete.
    Unusable,
    DigestTags(TagHashes),
}

/// A set of tags by their hashes. A tag with the hash of another one costs one request.
#[derive(Default)]
struct TagHashes {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl TagHashes {
    fn insert(&mut self, tag: &str) {
        self.hashes.insert(self.hasher.hash_one(tag));
    }

    fn contains(&self, tag: &str) -> bool {
        self.hashes.contains(&self.hasher.hash_one(tag))
    }
}

impl ReferrersMemory {
    /// Whether the registry has the referrers API; `None` before [`ReferrersMemory::found_api`].
    pub fn has_api(&self) -> Option<bool> {
        self.has_api.get().copied()
    }

    /// Records whether the registry has the referrers API.
    pub fn found_api(&self, has_api: bool) {
        let _ = self.has_api.set(has_api);
    }

    /// Records that the repository has `tag`: a list without it is not trusted, and a list that was read before gets it.
    pub fn saw_tag(&self, tag: &str) {
        let mut tags = lock(&self.tags);
        let RepositoryTags { seen, list, .. } = &mut *tags;
        match list {
            TagList::Unread if seen.len() < MAX_SEEN_TAGS => drop(seen.insert(tag.to_owned())),
            TagList::DigestTags(known) if is_digest_tag(tag) => known.insert(tag),
            TagList::Unread | TagList::Unusable | TagList::DigestTags(_) => {}
        }
    }

    /// The tags of [`digest_tags`] for `subject` that `repository` may have: all three for the first subject, and from the
    /// second on those of a list of all tags, which costs one request for many subjects, unless that list is not complete.
    pub fn possible_digest_tags(
        &self,
        client: &RegistryClient,
        repository: &str,
        subject: &Digest,
    ) -> Result<Vec<String>> {
        let wanted = digest_tags(subject);
        if !std::mem::replace(&mut lock(&self.tags).is_asked, true) {
            return Ok(wanted.to_vec());
        }
        let _listing = lock(&self.listing);
        let is_unread = matches!(lock(&self.tags).list, TagList::Unread);
        if is_unread {
            let listed = match tags::list_within(client, repository, MAX_TAG_PAGES) {
                Err(error) if matches!(error.kind(), Kind::Network | Kind::Interrupted) => return Err(error),
                listed => listed.ok().flatten(),
            };
            lock(&self.tags).add_list(listed.unwrap_or_default());
        }
        Ok(match &lock(&self.tags).list {
            TagList::DigestTags(known) => wanted.into_iter().filter(|tag| known.contains(tag)).collect(),
            TagList::Unread | TagList::Unusable => wanted.to_vec(),
        })
    }
}

impl RepositoryTags {
    /// Adds `tags`, a list of all tags. It is not complete if it is empty, or without a tag that the repository has: some
    /// registries list only what they cached, or nothing.
    fn add_list(&mut self, tags: Vec<String>) {
        let listed: HashSet<&str> = tags.iter().map(String::as_str).collect();
        let seen = std::mem::take(&mut self.seen);
        self.list = match !listed.is_empty() && seen.iter().all(|tag| listed.contains(&**tag)) {
            true => {
                let mut known = TagHashes::default();
                listed.iter().filter(|tag| is_digest_tag(tag)).for_each(|tag| known.insert(tag));
                TagList::DigestTags(known)
            }
            false => TagList::Unusable,
        };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_one_memory_and_old_ones_are_forgotten() {
        let memories = ReferrersMemories::default();
        let first = memories.repository("team/app");
        first.found_api(false);
        for other in 0..MAX_REPOSITORIES - 1 {
            memories.repository(&format!("team/{other}"));
        }
        assert_eq!(memories.repository("team/app").has_api(), Some(false));
        memories.repository("team/more");
        // Used later than the others.
        assert!(Arc::ptr_eq(&memories.repository("team/app"), &first));
        assert_eq!(lock(&memories.0).len(), MAX_REPOSITORIES);
    }

    #[test]
    fn a_list_gets_the_digest_tags_that_are_seen_after_it() {
        let [early, late] = ["early", "late"].map(|text| digest_tags(&Digest::of(text.as_bytes()))[1].clone());
        let memory = ReferrersMemory::default();
        memory.saw_tag("1");
        lock(&memory.tags).add_list(vec!["1".to_owned(), early.clone()]);
        memory.saw_tag(&late);
        memory.saw_tag("2");
        let tags = lock(&memory.tags);
        let TagList::DigestTags(known) = &tags.list else { panic!("the list is complete") };
        assert!(known.contains(&early) && known.contains(&late) && known.hashes.len() == 2);
    }

    #[test]
    fn a_list_without_a_tag_that_was_seen_is_not_used() {
        for listed in [vec![], vec!["2".to_owned()]] {
            let memory = ReferrersMemory::default();
            memory.saw_tag("1");
            lock(&memory.tags).add_list(listed);
            assert!(matches!(lock(&memory.tags).list, TagList::Unusable));
        }
    }
}
