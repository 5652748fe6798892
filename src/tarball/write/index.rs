//! The two lists of images at the end of the universal form: `index.json`, which containerd, podman and docker's
//! containerd store read, and `manifest.json`, which docker's other stores and crane read.

use crate::image::{
    Descriptor, Digest, LayoutIndex, Manifest, Name, ORIGINAL, Platform, REF_NAME, digest_tags, is_digest_tag,
    media_type,
};
use crate::tarball::attached::SUBJECT;
use crate::tarball::manifest_json;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The maximum nesting of indexes.
const MAX_DEPTH: usize = 8;

/// The manifests in an archive, and their names.
#[derive(Default)]
pub(crate) struct ImageLists {
    manifests: HashMap<Digest, ImageSummary>,
    /// Sorted, so that the same images give the same bytes; each with the index that the image is a part of.
    names: BTreeMap<(Option<Name>, Digest), Option<Digest>>,
    /// The image that each name refers to.
    named: HashMap<Name, Digest>,
}

/// How a manifest belongs to another one in the archive.
enum Belonging {
    /// By this subject.
    Referrer(Digest),
    /// By one of cosign's tags.
    Tagged(String),
}

/// A manifest without its bytes.
struct ImageSummary {
    descriptor: Descriptor,
    children: Vec<Descriptor>,
    config: Option<Descriptor>,
    layers: Vec<Digest>,
    subject: Option<Digest>,
    /// The entry in a list of referrers, for a manifest with a subject.
    referrer_entry: Option<Descriptor>,
}

impl ImageLists {
    pub fn put(&mut self, manifest: &Manifest) {
        let summary = ImageSummary {
            descriptor: Descriptor { annotations: None, ..manifest.descriptor.clone() },
            children: manifest.children().to_vec(),
            config: manifest.config().cloned(),
            layers: manifest.layers().iter().map(|layer| layer.digest).collect(),
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            // Annotations may have any length, and the manifest has them.
            referrer_entry: manifest
                .subject
                .as_ref()
                .map(|_| Descriptor { annotations: None, ..manifest.referrer_entry() }),
        };
        self.manifests.insert(manifest.digest(), summary);
    }

    /// Publishes `root` as `name`, or only by its digest. A name refers to the last image published under it.
    pub fn publish(&mut self, name: Option<&Name>, root: &Manifest) {
        self.put(root);
        if let Some(name) = name
            && let Some(replaced) = self.named.insert(name.clone(), root.digest())
        {
            self.names.remove(&(Some(name.clone()), replaced));
        }
        let original = root.descriptor.annotation(ORIGINAL).and_then(|digest| digest.parse().ok());
        match self.names.entry((name.cloned(), root.digest())) {
            // Without names, two images with this manifest are one entry, which can be a part of one index only.
            Entry::Occupied(mut known) if *known.get() != original => drop(known.insert(None)),
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => drop(place.insert(original)),
        }
    }

    pub fn index(&self) -> LayoutIndex {
        let (mut unnamed, mut named) = (Vec::new(), Vec::new());
        for ((name, digest), original) in self.images() {
            let mut entry = self.manifests[digest].descriptor.clone();
            if let Some(original) = original {
                entry.annotate(ORIGINAL, &original.to_string());
            }
            let group = if name.is_none() { &mut unnamed } else { &mut named };
            group.push((name.clone(), entry));
        }
        // The images without a name come first. A name for one of them takes its place.
        let mut index = LayoutIndex::default();
        index.point_all(&unnamed);
        index.point_all(&named);
        index
    }

    /// The published manifests that are listed as images: those that do not belong to another manifest in the archive.
    fn images(&self) -> impl Iterator<Item = (&(Option<Name>, Digest), &Option<Digest>)> {
        let tags = self.digest_tags();
        self.names.iter().filter(move |((name, digest), _)| self.belonging(name.as_ref(), digest, &tags).is_none())
    }

    /// The list of the manifests that belong to the images ([`crate::tarball::attached`]); `None` if there are none.
    pub fn attached(&self) -> Option<LayoutIndex> {
        let tags = self.digest_tags();
        let mut entries: Vec<Descriptor> = Vec::new();
        for (name, digest) in self.names.keys() {
            let manifest = &self.manifests[digest];
            match self.belonging(name.as_ref(), digest, &tags) {
                None => {}
                Some(Belonging::Referrer(subject)) => {
                    let mut entry = manifest.referrer_entry.clone().unwrap_or_else(|| manifest.descriptor.clone());
                    entry.annotate(SUBJECT, &subject.to_string());
                    entries.push(entry);
                }
                Some(Belonging::Tagged(tag)) => {
                    let mut entry = manifest.descriptor.clone();
                    entry.annotate(REF_NAME, &tag);
                    entries.push(entry);
                }
            }
        }
        entries.extend(self.originals());
        (!entries.is_empty()).then(|| LayoutIndex::of(&entries))
    }

    /// The indexes in the archive that images of the archive are a part of, and the indexes below them.
    fn originals(&self) -> Vec<Descriptor> {
        let mut named: BTreeSet<&Digest> = self.names.values().flatten().collect();
        let mut next: Vec<&Digest> = named.iter().copied().collect();
        while let Some(above) = next.pop().and_then(|digest| self.manifests.get(digest)) {
            let indexes = above.children.iter().filter(|child| media_type::is_index(&child.media_type));
            next.extend(indexes.map(|child| &child.digest).filter(|child| named.insert(child)));
        }
        named.into_iter().filter_map(|digest| Some(self.manifests.get(digest)?.descriptor.clone())).collect()
    }

    /// cosign's tags for the manifests in the archive.
    fn digest_tags(&self) -> HashSet<String> {
        let used =
            self.names.keys().any(|(name, _)| name.as_ref().and_then(Name::tag).is_some_and(|tag| is_digest_tag(&tag)));
        if used { self.manifests.keys().flat_map(digest_tags).collect() } else { HashSet::new() }
    }

    fn belonging(&self, name: Option<&Name>, digest: &Digest, tags: &HashSet<String>) -> Option<Belonging> {
        match name {
            Some(name) => name.tag().filter(|tag| tags.contains(tag)).map(Belonging::Tagged),
            None => {
                let subject = self.manifests[digest].subject?;
                self.manifests.contains_key(&subject).then_some(Belonging::Referrer(subject))
            }
        }
    }

    /// Returns the images for `manifest.json`; of an index, the image for `platform`. Artifacts, and indexes without
    /// such an image, are skipped. `None` if no image remains.
    pub fn manifest_json(&self, platform: &Platform) -> Option<Vec<manifest_json::ManifestEntry>> {
        let mut images: BTreeMap<(String, Vec<String>), BTreeSet<String>> = BTreeMap::new();
        for ((name, digest), _) in self.images() {
            let Some(image) = self.find_image(digest, platform, 0) else { continue };
            let Some(config) = &image.config else { continue };
            let layers = image.layers.iter().map(Digest::blob_path).collect();
            let tags = images.entry((config.digest.blob_path(), layers)).or_default();
            let tag =
                name.as_ref().and_then(Name::reference).filter(|name| name.tag.is_some() && name.digest.is_none());
            tags.extend(tag.map(|tag| tag.to_string()));
        }
        let entry = |((config, layers), tags): (_, BTreeSet<String>)| manifest_json::ManifestEntry {
            config,
            repo_tags: (!tags.is_empty()).then(|| tags.into_iter().collect()),
            layers,
        };
        let mut entries: Vec<manifest_json::ManifestEntry> = images.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.repo_tags.cmp(&b.repo_tags));
        (!entries.is_empty()).then_some(entries)
    }

    fn find_image(&self, digest: &Digest, platform: &Platform, depth: usize) -> Option<&ImageSummary> {
        let found = self.manifests.get(digest).filter(|_| depth <= MAX_DEPTH)?;
        if found.children.is_empty() {
            let config = found.config.as_ref()?;
            return [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&&*config.media_type).then_some(found);
        }
        let present: Vec<&Descriptor> =
            found.children.iter().filter(|child| self.manifests.contains_key(&child.digest)).collect();
        let best = platform.best(present.iter().map(|child| child.platform.as_ref()));
        let nested = present.iter().filter(|child| media_type::is_index(&child.media_type));
        let best = best.map(|at| present[at]).into_iter();
        best.chain(nested.copied()).find_map(|child| self.find_image(&child.digest, platform, depth + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(seed: u32) -> Manifest {
        let config = Descriptor::of(media_type::OCI_CONFIG, format!("{seed}").as_bytes());
        let text = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [] });
        Manifest::from_bytes(text.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap()
    }

    /// The lists are those that one entry after the other gives.
    #[test]
    fn a_name_refers_to_its_last_image_and_takes_the_place_of_one_without_a_name() {
        let (names, mut lists) =
            (["h.lan/b:1", "h.lan/a:1", "h.lan/c:1"].map(|name| Name::new(name).unwrap()), ImageLists::default());
        for seed in 0..4 {
            lists.publish(None, &image(seed));
        }
        for (nth, name) in names.iter().enumerate() {
            lists.publish(Some(name), &image(9));
            lists.publish(Some(name), &image(nth as u32 + 2));
        }
        let mut expected = LayoutIndex::default();
        let (mut unnamed, named) = ([0, 1, 2, 3].map(|seed| image(seed).descriptor), [(1, 3), (0, 2), (2, 4)]);
        unnamed.sort_by_key(|at| at.digest);
        unnamed.iter().for_each(|at| expected.point(None, at));
        named.iter().for_each(|(nth, seed)| expected.point(Some(&names[*nth]), &image(*seed).descriptor));
        assert_eq!(lists.index().bytes(), expected.bytes());
        assert_eq!((lists.names.len(), lists.named.len()), (7, 3));
    }
}
