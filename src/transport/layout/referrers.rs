//! The referrers of images (distribution-spec, "Listing Referrers"), found by reading every manifest that a layout's
//! index reaches.

use crate::error::Result;
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use crate::source::Store;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Maps an image's digest to the descriptors of its referrers.
pub(super) type Table = HashMap<Digest, Vec<Descriptor>>;

/// The maximum number of manifests read; the others are not listed as referrers.
pub(super) const MAX_MANIFESTS: usize = 20_000;

/// Reads `roots` and all existing manifests below them. Invalid manifests are skipped.
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

/// The entry for `manifest` in a list of referrers: its artifact type (else its config's type) and annotations.
fn listing(manifest: &Manifest) -> Descriptor {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ReferrerFields {
        artifact_type: Option<String>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let fields: ReferrerFields = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let artifact_type = fields.artifact_type.filter(|own| !own.is_empty());
    Descriptor {
        artifact_type: artifact_type.or_else(|| manifest.config().map(|config| config.media_type.clone())),
        annotations: fields.annotations,
        ..manifest.descriptor.clone()
    }
}
