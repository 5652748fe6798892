//! The repositories into which a sync writes, each with the names that all entries together want there.

use super::source_tags::SourceTags;
use crate::error::Error;
use crate::image::{Name, is_tag};
use std::collections::{BTreeMap, HashSet};

/// All destinations of a run. A repository is identified by its canonical spelling.
#[derive(Debug, Default)]
pub struct Scope {
    repositories: BTreeMap<Box<str>, WantedNames>,
    problems: Vec<String>,
}

impl Scope {
    /// Adds an entry that writes `names` into `repository`. Entries that write into one repository are united.
    pub fn add(&mut self, repository: &str, names: impl IntoIterator<Item = Name>, source: SourceTags) {
        let wanted = self.repositories.entry(repository.into()).or_default();
        names.into_iter().for_each(|name| wanted.insert(name));
        wanted.sources.push(source);
    }

    /// Notes that `image` was not copied, so its tag at the destination may be missing or old.
    pub fn add_failed(&mut self, image: &str, error: &Error) {
        self.problems.push(format!("{image} was not copied: {error}"));
    }

    /// The repositories, in alphabetical order.
    pub fn repositories(&self) -> impl Iterator<Item = (&str, &WantedNames)> {
        self.repositories.iter().map(|(repository, wanted)| (&**repository, wanted))
    }

    /// The reasons for which nothing may be deleted in the whole run, each once.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.repositories.iter().flat_map(|(repository, wanted)| wanted.problems(repository)).collect();
        problems.extend(self.problems.iter().cloned());
        problems.sort();
        problems.dedup();
        problems
    }
}

/// The names that are wanted in one repository or layout.
#[derive(Debug, Default)]
pub struct WantedNames {
    names: HashSet<Name>,
    /// The tags of all names.
    tags: HashSet<String>,
    /// Those of the names that are only a tag, as a layout has them.
    bare_tags: HashSet<String>,
    sources: Vec<SourceTags>,
}

impl WantedNames {
    fn insert(&mut self, name: Name) {
        if let Some(tag) = name.tag() {
            if is_tag(name.as_str()) {
                self.bare_tags.insert(tag.clone());
            }
            self.tags.insert(tag);
        }
        self.names.insert(name);
    }

    /// Whether an entry wants `name`. A name that is only a tag stands for every name with that tag.
    pub fn contains(&self, name: &Name) -> bool {
        self.names.contains(name)
            || is_tag(name.as_str()) && self.tags.contains(name.as_str())
            || !self.bare_tags.is_empty() && name.tag().is_some_and(|tag| self.bare_tags.contains(&tag))
    }

    fn problems(&self, repository: &str) -> Vec<String> {
        let mut problems: Vec<String> = self.sources.iter().filter_map(SourceTags::problem).collect();
        if self.names.is_empty() {
            problems.push(format!("no tag is wanted in {repository}"));
        }
        problems
    }
}
