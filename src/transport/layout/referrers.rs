//! The referrers of images (distribution-spec, "Listing Referrers"), found by reading every manifest that a layout's
//! index reaches.

use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name, is_referrers_tag};
use crate::source::{ReferrerList, Root, Store};
use std::collections::{HashMap, HashSet};

/// The maximum number of manifests read; the others are not listed as referrers.
pub(super) const MAX_MANIFESTS: usize = 20_000;

/// The referrers in a layout.
#[derive(Default)]
pub(super) struct Table {
    by_subject: HashMap<Digest, Vec<Descriptor>>,
    /// The first reason why the table is not complete.
    incomplete: Option<String>,
}

impl Table {
    /// The referrers of `subject`.
    pub fn list(&self, subject: &Digest) -> ReferrerList {
        let entries = self.by_subject.get(subject).cloned().unwrap_or_default();
        ReferrerList { entries, incomplete: self.incomplete.clone() }
    }

    fn note(&mut self, why: impl FnOnce() -> String) {
        self.incomplete.get_or_insert_with(why);
    }
}

/// A manifest that was not read yet.
struct Ahead {
    at: Descriptor,
    /// `index.json` or a list of referrers names it. An index of images may list images that the layout does not have.
    is_expected: bool,
    /// It is a list of referrers.
    is_list: bool,
}

/// Reads `roots` and all existing manifests below them. A damaged manifest may be a referrer of any image.
pub(super) fn walk<'r>(store: &dyn Store, roots: impl Iterator<Item = &'r Root>) -> Result<Table> {
    let mut table = Table::default();
    let mut seen = HashSet::new();
    let is_list = |root: &Root| root.name.as_ref().and_then(Name::tag).is_some_and(|tag| is_referrers_tag(&tag));
    let ahead = |root: &Root| Ahead { at: root.descriptor.clone(), is_expected: true, is_list: is_list(root) };
    let mut ahead: Vec<Ahead> = roots.map(ahead).collect();
    while let Some(Ahead { at, is_expected, is_list }) = ahead.pop() {
        if !at.names_manifest() || seen.contains(&at.digest) {
            continue;
        }
        if seen.len() >= MAX_MANIFESTS {
            table.note(|| format!("index.json leads to more than {MAX_MANIFESTS} manifests, and not all were read"));
            break;
        }
        seen.insert(at.digest);
        let manifest = match read(store, &at) {
            Ok(Some(manifest)) => manifest,
            Ok(None) if !is_expected => continue,
            Ok(None) => {
                table.note(|| format!("manifest {}, which may be a referrer, is listed and missing", at.digest));
                continue;
            }
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Denied | Kind::Failed) => {
                table.note(|| format!("manifest {}, which may be a referrer, cannot be read ({error})", at.digest));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(subject) = &manifest.subject {
            table.by_subject.entry(subject.digest).or_default().push(manifest.referrer_entry());
        }
        // One more than is read, so that the loop sees that there are more.
        let room = (MAX_MANIFESTS + 1).saturating_sub(ahead.len());
        let children = manifest.children().iter().take(room).cloned();
        ahead.extend(children.map(|at| Ahead { at, is_expected: is_list, is_list: false }));
    }
    Ok(table)
}

/// Reads the manifest `at`; `None` if it is missing.
fn read(store: &dyn Store, at: &Descriptor) -> Result<Option<Manifest>> {
    if store.find(&at.digest)?.is_none() {
        return Ok(None);
    }
    if at.size > MAX_MANIFEST_BYTES {
        return Err(Error::invalid(format!("it has {} bytes, more than {MAX_MANIFEST_BYTES}", at.size)));
    }
    Manifest::parse(store.manifest(at)?, at).map(Some)
}
