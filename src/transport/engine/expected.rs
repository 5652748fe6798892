//! The images and names that a host must have after the load, recorded while they are sent.

use super::kind::DetectedEngine;
use super::verify::ExpectedImage;
use crate::image::{Descriptor, Digest, Manifest, Name};
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct ExpectedImages {
    manifests: HashMap<Digest, ManifestSummary>,
    names: Vec<(Name, Digest)>,
}

/// A manifest without its bytes.
struct ManifestSummary {
    children: Vec<Descriptor>,
    config: Option<Digest>,
}

impl ExpectedImages {
    pub fn add_manifest(&mut self, manifest: &Manifest) {
        let children = manifest.children().to_vec();
        let config = manifest.config().map(|config| config.digest);
        self.manifests.insert(manifest.digest(), ManifestSummary { children, config });
    }

    /// Records that `name` points at `root`, a recorded manifest. A later call for the same name replaces the earlier.
    pub fn add_name(&mut self, name: &Name, root: Digest) {
        self.names.retain(|(other, _)| other != name);
        self.names.push((name.clone(), root));
    }

    /// Whether `root` has a name.
    pub fn is_named(&self, root: Digest) -> bool {
        self.names.iter().any(|(_, other)| *other == root)
    }

    pub fn to_verify(&self, found: &DetectedEngine) -> Vec<ExpectedImage> {
        let expected = |(name, root): &(Name, Digest)| ExpectedImage {
            name: name.clone(),
            root: Some(*root),
            config: self.config(root, found),
        };
        self.names.iter().map(expected).collect()
    }

    /// The config of the image below `root` that the remote host's platform selects.
    fn config(&self, root: &Digest, found: &DetectedEngine) -> Option<Digest> {
        let root = self.manifests.get(root)?;
        if root.children.is_empty() {
            return root.config;
        }
        let sent = |child: &&Descriptor| self.manifests.contains_key(&child.digest);
        let children: Vec<&Descriptor> = root.children.iter().filter(sent).collect();
        let best = found.platform.best(children.iter().map(|child| child.platform.as_ref()))?;
        self.manifests.get(&children[best].digest)?.config
    }
}
