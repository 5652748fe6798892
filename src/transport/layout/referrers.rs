//! What refers to what (distribution-spec, "Listing Referrers"), found by looking into every manifest that a layout's
//! index reaches.

use crate::error::Result;
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::source::Store;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// From an image's digest to the descriptors of what refers to it.
pub(super) type Table = HashMap<Digest, Vec<Descriptor>>;

/// Manifests that are looked into, at most; further ones are taken to refer to nothing.
pub(super) const MAX_MANIFESTS: usize = 20_000;

/// Looks into `roots` and everything below them that is there. A manifest that is refused refers to nothing.
pub(super) fn walk<'r>(store: &dyn Store, roots: impl Iterator<Item = &'r Descriptor>) -> Result<Table> {
    let mut table = Table::new();
    let mut seen = HashSet::new();
    let mut ahead: Vec<Descriptor> = roots.cloned().collect();
    while let Some(at) = ahead.pop() {
        if seen.len() >= MAX_MANIFESTS {
            break;
        }
        if !at.names_manifest()
            || at.size > MAX_MANIFEST_BYTES
            || !seen.insert(at.digest)
            || store.find(&at.digest)?.is_none()
        {
            continue;
        }
        let Ok(manifest) = Manifest::parse(store.manifest(&at)?, &at) else { continue };
        if let Some(subject) = &manifest.subject {
            let listed = table.entry(subject.digest).or_default();
            listed.push(listing(&manifest));
        }
        let room = MAX_MANIFESTS.saturating_sub(ahead.len());
        ahead.extend(manifest.children().iter().take(room).cloned());
    }
    Ok(table)
}

/// How a list of referrers shows `manifest`: its artifact type (its config's type where it has none) and annotations.
fn listing(manifest: &Manifest) -> Descriptor {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown {
        artifact_type: Option<String>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let shown: Shown = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let own = shown.artifact_type.filter(|own| !own.is_empty());
    Descriptor {
        artifact_type: own.or_else(|| manifest.config().map(|config| config.media_type.clone())),
        annotations: shown.annotations,
        ..manifest.descriptor.clone()
    }
}
