//! What a host is to have in the end, noted while it is sent.

use super::kind::DetectedEngine;
use super::verify::Expected;
use crate::image::{Descriptor, Digest, Manifest, Name};
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Promised {
    manifests: HashMap<Digest, Kept>,
    names: Vec<(Name, Digest)>,
}

/// A manifest without its bytes.
struct Kept {
    children: Vec<Descriptor>,
    config: Option<Digest>,
}

impl Promised {
    pub fn note(&mut self, manifest: &Manifest) {
        let kept =
            Kept { children: manifest.children().to_vec(), config: manifest.config().map(|config| config.digest) };
        self.manifests.insert(manifest.digest(), kept);
    }

    /// `name` is to point at `root`, which was noted; the last said counts.
    pub fn name(&mut self, name: &Name, root: Digest) {
        self.names.retain(|(other, _)| other != name);
        self.names.push((name.clone(), root));
    }

    /// Whether `root` has a name.
    pub fn is_named(&self, root: Digest) -> bool {
        self.names.iter().any(|(_, other)| *other == root)
    }

    pub fn expected(&self, found: &DetectedEngine) -> Vec<Expected> {
        let expected = |(name, root): &(Name, Digest)| Expected {
            name: name.clone(),
            root: Some(*root),
            config: self.config(root, found),
        };
        self.names.iter().map(expected).collect()
    }

    /// The config of the image that the far side's platform takes of `root`.
    fn config(&self, root: &Digest, found: &DetectedEngine) -> Option<Digest> {
        let kept = self.manifests.get(root)?;
        if kept.children.is_empty() {
            return kept.config;
        }
        let sent = |child: &&Descriptor| self.manifests.contains_key(&child.digest);
        let here: Vec<&Descriptor> = kept.children.iter().filter(sent).collect();
        let best = found.platform.best(here.iter().map(|child| child.platform.as_ref()))?;
        self.manifests.get(&here[best].digest)?.config
    }
}
