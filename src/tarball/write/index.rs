//! The two lists of images that the universal form ends with: `index.json`, which containerd, podman and docker's
//! containerd store read, and `manifest.json`, which docker's other stores and crane read.

use crate::image::{Descriptor, Digest, LayoutIndex, Manifest, Name, Platform, media_type};
use crate::tarball::manifest_json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Indexes inside indexes, at most.
const MAX_DEPTH: usize = 8;

/// What was put into an archive, and under which names.
#[derive(Default)]
pub(crate) struct Lists {
    manifests: HashMap<Digest, Kept>,
    /// In order, so that the same images give the same bytes.
    names: BTreeSet<(Option<Name>, Digest)>,
}

/// A manifest without its bytes.
struct Kept {
    descriptor: Descriptor,
    children: Vec<Descriptor>,
    config: Option<Descriptor>,
    layers: Vec<Digest>,
}

impl Lists {
    pub fn put(&mut self, manifest: &Manifest) {
        let kept = Kept {
            descriptor: manifest.descriptor.clone(),
            children: manifest.children().to_vec(),
            config: manifest.config().cloned(),
            layers: manifest.layers().iter().map(|layer| layer.digest).collect(),
        };
        self.manifests.insert(manifest.digest(), kept);
    }

    /// `name` (none: only the digest) is to point at `root`. One name points at one thing: the last said.
    pub fn publish(&mut self, name: Option<&Name>, root: &Manifest) {
        self.put(root);
        if let Some(name) = name {
            self.names.retain(|(other, _)| other.as_ref() != Some(name));
        }
        self.names.insert((name.cloned(), root.digest()));
    }

    pub fn index(&self) -> LayoutIndex {
        let mut index = LayoutIndex::default();
        for (name, digest) in &self.names {
            index.point(name.as_ref(), &self.manifests[digest].descriptor);
        }
        index
    }

    /// For each image the one that `platform` runs; artifacts, and indexes without such an image, are left out.
    /// `None` where nothing is left.
    pub fn saved(&self, platform: &Platform) -> Option<Vec<manifest_json::Entry>> {
        let mut images: BTreeMap<(String, Vec<String>), BTreeSet<String>> = BTreeMap::new();
        for (name, digest) in &self.names {
            let Some(image) = self.image(digest, platform, 0) else { continue };
            let Some(config) = &image.config else { continue };
            let layers = image.layers.iter().map(Digest::blob_path).collect();
            let tags = images.entry((config.digest.blob_path(), layers)).or_default();
            let tag =
                name.as_ref().and_then(Name::reference).filter(|name| name.tag.is_some() && name.digest.is_none());
            tags.extend(tag.map(|tag| tag.to_string()));
        }
        let entry = |((config, layers), tags): (_, BTreeSet<String>)| manifest_json::Entry {
            config,
            repo_tags: (!tags.is_empty()).then(|| tags.into_iter().collect()),
            layers,
        };
        let mut entries: Vec<manifest_json::Entry> = images.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.repo_tags.cmp(&b.repo_tags));
        (!entries.is_empty()).then_some(entries)
    }

    fn image(&self, digest: &Digest, platform: &Platform, depth: usize) -> Option<&Kept> {
        let kept = self.manifests.get(digest).filter(|_| depth <= MAX_DEPTH)?;
        if kept.children.is_empty() {
            let config = kept.config.as_ref()?;
            return [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&&*config.media_type).then_some(kept);
        }
        let here: Vec<&Descriptor> =
            kept.children.iter().filter(|child| self.manifests.contains_key(&child.digest)).collect();
        let best = platform.best(here.iter().map(|child| child.platform.as_ref()));
        let nested = here.iter().filter(|child| media_type::is_index(&child.media_type));
        let best = best.map(|at| here[at]).into_iter();
        best.chain(nested.copied()).find_map(|child| self.image(&child.digest, platform, depth + 1))
    }
}
