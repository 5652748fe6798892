//! The manifests and indexes to which the names of a repository or layout lead, so that a deletion damages no other image.

use crate::cancel::Cancel;
use crate::image::{Descriptor, Digest, Manifest, Name, is_referrers_tag, media_type};
use crate::source::Store;
use crate::transport::address::{Deletable, NameTargets};
use crate::{Kind, Result, parallel};
use std::collections::{HashMap, HashSet};

/// The maximum number of indexes that are read.
const MAX_READ_INDEXES: usize = 2000;
/// The maximum size of these indexes together.
const MAX_READ_BYTES: u64 = 16 << 20;
/// The maximum number of steps from a name to an index.
const MAX_DEPTH: usize = 8;
const MAX_PARALLEL_READS: usize = 8;

/// The manifest or index of a name; of an image without a name, where the layout lists one.
pub struct Target {
    pub name: Option<Name>,
    pub digest: Digest,
}

impl Target {
    /// The name, or `@DIGEST`.
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| format!("@{}", self.digest), Name::to_string)
    }

    /// Whether the name is a referrers tag: its index lists referrers, which are not a part of an image.
    pub fn is_referrers_list(&self) -> bool {
        self.name.as_ref().and_then(Name::tag).is_some_and(|tag| is_referrers_tag(&tag))
    }
}

/// The names of a repository or layout, and what each index lists.
#[derive(Default)]
pub struct Reach {
    targets: Vec<Target>,
    /// The number of names whose target is not known.
    unchecked: usize,
    /// The manifests and indexes that each index lists.
    listed: HashMap<Digest, Vec<Digest>>,
    /// The indexes of which the lists are not known.
    unread: HashSet<Digest>,
    /// The size of the indexes that were read.
    bytes: u64,
}

impl Reach {
    /// Reads the names and indexes in the repository or layout of `target`.
    ///
    /// # Errors
    /// `Network`, `Denied` and `Interrupted`. For other errors a name or an index is not known.
    pub fn read(target: &Deletable, cancel: &Cancel) -> Result<Reach> {
        let NameTargets { targets, unchecked } = target.deleter.targets()?;
        let mut level: Vec<Descriptor> = targets.iter().map(|(_, at)| at.clone()).filter(may_list).collect();
        let targets = targets.into_iter().map(|(name, at)| Target { name, digest: at.digest }).collect();
        let mut reach = Reach { targets, unchecked, ..Reach::default() };
        for _ in 0..MAX_DEPTH {
            level = reach.read_level(&*target.store, level, cancel)?;
        }
        let deeper = level.into_iter().map(|at| at.digest).filter(|digest| !reach.listed.contains_key(digest));
        reach.unread.extend(deeper);
        Ok(reach)
    }

    /// Reads the indexes `level`, each once; returns the indexes that these list.
    fn read_level(&mut self, store: &dyn Store, level: Vec<Descriptor>, cancel: &Cancel) -> Result<Vec<Descriptor>> {
        let (mut chosen, mut known) = (Vec::new(), HashSet::new());
        for at in level {
            if self.listed.contains_key(&at.digest) || self.unread.contains(&at.digest) || !known.insert(at.digest) {
                continue;
            }
            let bytes = self.bytes.saturating_add(at.size);
            if self.listed.len() + chosen.len() >= MAX_READ_INDEXES || bytes > MAX_READ_BYTES {
                self.unread.insert(at.digest);
                continue;
            }
            self.bytes = bytes;
            chosen.push(at);
        }
        let mut next = Vec::new();
        for (digest, listed) in read_all(store, &chosen, cancel)? {
            let Some(listed) = listed else {
                self.unread.insert(digest);
                continue;
            };
            self.listed.insert(digest, listed.iter().map(|at| at.digest).collect());
            next.extend(listed.into_iter().filter(may_list));
        }
        Ok(next)
    }

    /// The names that point to `digest` itself.
    pub fn names_of(&self, digest: &Digest) -> impl Iterator<Item = &Name> {
        self.targets.iter().filter(move |target| target.digest == *digest).filter_map(|target| target.name.as_ref())
    }

    /// The targets that are one of `digests`, or an index that lists one, also through other indexes.
    pub fn leading_to(&self, digests: HashSet<Digest>) -> Vec<&Target> {
        let leading = self.with_listing(digests);
        self.targets.iter().filter(|target| leading.contains(&target.digest)).collect()
    }

    /// The number of names that may lead to any manifest.
    pub fn unknown(&self) -> usize {
        let unknown = self.with_listing(self.unread.clone());
        let names = self.targets.iter().filter(|target| unknown.contains(&target.digest));
        self.unchecked + names.filter(|target| !target.is_referrers_list()).count()
    }

    /// `digests`, and all indexes that list one of them.
    fn with_listing(&self, mut digests: HashSet<Digest>) -> HashSet<Digest> {
        loop {
            let before = digests.len();
            for (index, listed) in &self.listed {
                if listed.iter().any(|digest| digests.contains(digest)) {
                    digests.insert(*index);
                }
            }
            if digests.len() == before {
                return digests;
            }
        }
    }
}

/// Whether `at` may be an index. A response to `HEAD` may be without a type.
fn may_list(at: &Descriptor) -> bool {
    let media_type = at.media_type.as_str();
    media_type.is_empty() || media_type == media_type::OCTETS || media_type::is_index(media_type)
}

/// An index and its entries; `None` if these are not known.
type Listed = (Digest, Option<Vec<Descriptor>>);

/// Reads `indexes` in parallel.
fn read_all(store: &dyn Store, indexes: &[Descriptor], cancel: &Cancel) -> Result<Vec<Listed>> {
    let threads = store.profile().parallel_reads.min(MAX_PARALLEL_READS);
    parallel::try_map(indexes, threads, |at| cancel.check().and_then(|()| Ok((at.digest, read(store, at)?))))
}

/// Reads the entries of the index `at`; `None` if it cannot be read.
fn read(store: &dyn Store, at: &Descriptor) -> Result<Option<Vec<Descriptor>>> {
    match store.manifest(at).and_then(|bytes| Manifest::parse(bytes, at)) {
        Ok(manifest) => Ok(Some(manifest.children().to_vec())),
        // An index may list indexes that the store does not have.
        Err(error) if error.kind() == Kind::NotFound => Ok(Some(Vec::new())),
        Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Failed) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::source::{Root, Selector};
    use crate::transport::address::{Deleter, TagDeletion};
    use std::io::Read;
    use std::sync::Arc;

    /// A place with these names, indexes and unchecked names.
    #[derive(Default)]
    struct Place {
        names: Vec<(Option<Name>, Descriptor)>,
        indexes: HashMap<Digest, Vec<u8>>,
        unchecked: usize,
    }

    impl Place {
        /// Stores an index of `children`, with padding so that it has at least `size` bytes.
        fn index(&mut self, children: &[Descriptor], size: usize) -> Descriptor {
            let padding = "x".repeat(size);
            let index = serde_json::json!({ "schemaVersion": 2, "manifests": children, "padding": padding });
            let bytes = index.to_string().into_bytes();
            let at = Descriptor::of(media_type::OCI_INDEX, &bytes);
            self.indexes.insert(at.digest, bytes);
            at
        }

        fn name(&mut self, name: &str, at: &Descriptor) {
            self.names.push((Some(Name::new(name).unwrap()), at.clone()));
        }

        fn reach(self) -> Reach {
            let (names, unchecked) = (self.names.clone(), self.unchecked);
            let deleter = Box::new(Names(names, unchecked));
            let selector = Selector::Name("1".to_owned());
            let target = Deletable { store: Arc::new(self), selector, digest: None, deleter };
            Reach::read(&target, &Cancel::default()).unwrap()
        }
    }

    impl Store for Place {
        fn roots(&self, _: &[Selector]) -> Result<Vec<Root>> {
            Ok(Vec::new())
        }

        fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
            self.indexes.get(&at.digest).cloned().ok_or_else(|| Error::not_found("no manifest"))
        }

        fn open(&self, _: &Descriptor, _: u64) -> Result<Box<dyn Read + Send + '_>> {
            Err(Error::not_found("no blob"))
        }

        fn find(&self, _: &Digest) -> Result<Option<Descriptor>> {
            Ok(None)
        }
    }

    struct Names(Vec<(Option<Name>, Descriptor)>, usize);

    impl Deleter for Names {
        fn delete_name(&self, _: &Name) -> Result<TagDeletion> {
            Ok(TagDeletion::Deleted)
        }

        fn visit_names(&self, visit: &mut dyn FnMut(Name) -> Result<()>) -> Result<()> {
            self.0.iter().filter_map(|(name, _)| name.clone()).try_for_each(visit)
        }

        fn digest_of(&self, name: &Name) -> Result<Option<Digest>> {
            Ok(self.0.iter().find(|(own, _)| own.as_ref() == Some(name)).map(|(_, at)| at.digest))
        }

        fn has_manifest(&self, _: &Digest) -> Result<bool> {
            Ok(true)
        }

        fn targets(&self) -> Result<NameTargets> {
            Ok(NameTargets { targets: self.0.clone(), unchecked: self.1 })
        }

        fn delete_manifest(&self, _: &Digest) -> Result<bool> {
            Ok(true)
        }
    }

    fn leaf() -> Descriptor {
        Descriptor::of(media_type::OCI_MANIFEST, b"leaf")
    }

    fn leading(reach: &Reach) -> Vec<String> {
        reach.leading_to(HashSet::from([leaf().digest])).into_iter().map(Target::label).collect()
    }

    #[test]
    fn a_name_leads_through_indexes_up_to_a_depth() {
        for steps in [1, MAX_DEPTH, MAX_DEPTH + 1] {
            let mut place = Place::default();
            let outermost = (0..steps).fold(leaf(), |child, _| place.index(&[child], 0));
            place.name("outer", &outermost);
            place.name("other", &Descriptor::of(media_type::OCI_MANIFEST, b"other"));
            let reach = place.reach();
            let is_known = steps <= MAX_DEPTH;
            assert_eq!((leading(&reach).len(), reach.unknown()), (usize::from(is_known), usize::from(!is_known)));
        }
    }

    #[test]
    fn an_index_that_is_not_read_may_lead_anywhere() {
        let mut place = Place { unchecked: 5, ..Place::default() };
        for nth in 0..MAX_READ_INDEXES + 3 {
            let index = place.index(&[leaf()], nth);
            place.name(&format!("t{nth}"), &index);
        }
        let reach = place.reach();
        assert_eq!((leading(&reach).len(), reach.unknown()), (MAX_READ_INDEXES, 5 + 3));

        let mut place = Place::default();
        for nth in 0..5 {
            let index = place.index(&[leaf()], (3 << 20) + nth);
            // Without a type, as some registries answer.
            place.name(&format!("t{nth}"), &Descriptor { media_type: media_type::OCTETS.to_owned(), ..index });
        }
        // A list of referrers is not a part of an image.
        let list = place.index(&[leaf()], (3 << 20) + 9);
        place.name(&crate::image::referrers_tag(&leaf().digest), &list);
        let reach = place.reach();
        assert_eq!((leading(&reach).len(), reach.unknown()), (5, 0));
        let last = reach.targets.last().unwrap();
        assert!(last.is_referrers_list() && reach.unread.contains(&last.digest));
    }
}
