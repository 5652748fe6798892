//! The deletions in one repository or layout.

use super::owner::{self, Owner};
use super::scope::WantedNames;
use crate::error::{Kind, Result};
use crate::image::{Digest, Name};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// A name at the destination.
#[derive(Debug, Clone)]
pub struct DestinationTag {
    pub name: Name,
    /// The digest of its manifest or index; `None` if it could not be read.
    pub digest: Option<Digest>,
}

/// A name that is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDeletion {
    pub name: Name,
    /// The digest that the name must still have when it is deleted.
    pub digest: Digest,
    /// A name with the same digest that stays.
    pub kept: Option<Name>,
}

/// A name that no entry wants, and that stays.
#[derive(Debug, Clone)]
pub struct SparedTag {
    pub name: Name,
    pub reason: SparedReason,
}

/// The reason for which a name stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SparedReason {
    /// The digest of the name could not be read, or the name has several.
    UnknownDigest,
    /// The name belongs to this manifest, which the destination has.
    Owned(Digest),
    /// The name belongs to a manifest that the destination may have.
    UnknownOwner,
    /// The name has another digest than when it was listed.
    Moved,
    /// The name was deleted by another client.
    Gone,
    /// A name that stays has the same manifest, which the registry may remove with the tag.
    SharedManifest,
    /// The registry cannot delete tags, and its answer.
    Unsupported(String),
    /// The deletion failed, or was not tried after another one failed.
    Failed(String),
}

impl fmt::Display for SparedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SparedReason::UnknownDigest => f.write_str("its digest is not known"),
            SparedReason::Owned(digest) => write!(f, "it belongs to {digest}, which exists"),
            SparedReason::UnknownOwner => f.write_str("it belongs to a manifest that may exist"),
            SparedReason::Moved => f.write_str("it was moved during the run"),
            SparedReason::Gone => f.write_str("another client deleted it"),
            SparedReason::SharedManifest => {
                f.write_str("the registry may remove its manifest, which another tag needs")
            }
            SparedReason::Unsupported(answer) => write!(f, "the registry cannot delete tags ({answer})"),
            SparedReason::Failed(why) => f.write_str(why),
        }
    }
}

/// The names of one repository or layout that are deleted, and those that are spared.
#[derive(Debug)]
pub struct RepositoryPlan {
    pub repository: String,
    /// Names without another name for their digest are first.
    pub deletions: Vec<PlannedDeletion>,
    pub spared: Vec<SparedTag>,
    /// The number of names at the destination: of images, and of what belongs to a manifest.
    pub(super) images: usize,
    pub(super) owned: usize,
}

impl RepositoryPlan {
    /// Plans the deletion of the names in `listed` that are not `wanted`. `exists` returns whether the destination has a
    /// manifest, or an index there lists it; it is asked once for each manifest.
    ///
    /// # Errors
    /// `Interrupted`. After another error of `exists` the names of that manifest are spared.
    pub fn new(
        repository: &str,
        wanted: &WantedNames,
        listed: Vec<DestinationTag>,
        exists: &mut dyn FnMut(&Digest) -> Result<bool>,
    ) -> Result<RepositoryPlan> {
        let names = by_name(listed);
        let owner = |name: &Name| name.tag().map_or(Owner::Unknown, |tag| owner::of(&tag));
        let owned = names.keys().filter(|name| owner(name) != Owner::None).count();
        let images = names.len() - owned;
        let mut manifests = Manifests { known: HashMap::new(), exists };
        for digest in names.values().flatten() {
            manifests.known.insert(*digest, Some(true));
        }
        let (mut deletions, mut spared) = (Vec::new(), Vec::new());
        for (name, digest) in names.iter().filter(|(name, _)| !wanted.contains(name)) {
            let reason = match (digest, owner(name)) {
                (None, _) => Some(SparedReason::UnknownDigest),
                (Some(_), Owner::None) => None,
                (Some(_), Owner::Unknown) => Some(SparedReason::UnknownOwner),
                (Some(_), Owner::Manifest(owner)) => match manifests.exists(owner)? {
                    Some(true) => Some(SparedReason::Owned(owner)),
                    Some(false) => None,
                    None => Some(SparedReason::UnknownOwner),
                },
            };
            match (reason, digest) {
                (None, Some(digest)) => deletions.push((name.clone(), *digest)),
                (reason, _) => {
                    let reason = reason.unwrap_or(SparedReason::UnknownDigest);
                    spared.push(SparedTag { name: name.clone(), reason });
                }
            }
        }
        let deletions = with_kept(deletions, &names);
        Ok(RepositoryPlan { repository: repository.to_owned(), deletions, spared, images, owned })
    }
}

/// The digest of each name. A name that is listed with two digests has none.
fn by_name(listed: Vec<DestinationTag>) -> BTreeMap<Name, Option<Digest>> {
    let mut names: BTreeMap<Name, Option<Digest>> = BTreeMap::new();
    for DestinationTag { name, digest } in listed {
        let known = names.entry(name).or_insert(digest);
        if *known != digest {
            *known = None;
        }
    }
    names
}

/// `deletions`, each with a name of the same digest that stays. Those without one come first.
fn with_kept(deletions: Vec<(Name, Digest)>, names: &BTreeMap<Name, Option<Digest>>) -> Vec<PlannedDeletion> {
    let is_deleted = |name: &Name| deletions.binary_search_by(|(deleted, _)| deleted.cmp(name)).is_ok();
    let staying = names.iter().filter(|(name, _)| !is_deleted(name));
    let staying: HashMap<Digest, &Name> = staying.filter_map(|(name, digest)| Some(((*digest)?, name))).collect();
    let planned = deletions.iter().map(|(name, digest)| PlannedDeletion {
        name: name.clone(),
        digest: *digest,
        kept: staying.get(digest).map(|name| (*name).clone()),
    });
    let (shared, mut planned): (Vec<_>, Vec<_>) = planned.partition(|deletion| deletion.kept.is_some());
    planned.extend(shared);
    planned
}

/// The manifests at the destination; `None` where that is not known.
struct Manifests<'e> {
    known: HashMap<Digest, Option<bool>>,
    exists: &'e mut dyn FnMut(&Digest) -> Result<bool>,
}

impl Manifests<'_> {
    fn exists(&mut self, digest: Digest) -> Result<Option<bool>> {
        if let Some(known) = self.known.get(&digest) {
            return Ok(*known);
        }
        let found = match (self.exists)(&digest) {
            Ok(exists) => Some(exists),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(_) => None,
        };
        self.known.insert(digest, found);
        Ok(found)
    }
}
