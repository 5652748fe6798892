//! The content that a copy skips, decided once, after the host's answer: layers and images that the host has.

use super::inventory::Query;
use super::kind::{DetectedEngine, Loader};
use super::session::ScriptAnswer;
use crate::image::Image;
use crate::image::{Coding, Descriptor, Digest, Manifest, Name, layer_coding};
use crate::progress::{Event, Watch};
use std::collections::HashSet;

/// The content that need not be sent; empty if the host was not queried.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// Layers that the host has and that are not sent.
    pub skipped: HashSet<Digest>,
    /// Names that already point at the right image.
    current: HashSet<(Name, Digest)>,
    /// Manifests and blobs that only the current images need.
    unneeded: HashSet<Digest>,
    /// Whether every layer that is sent is compressed.
    pub all_compressed: bool,
    /// Whether exactly one name is given.
    pub one_name: bool,
}

impl Delta {
    /// Compares `images` and their `blobs` with the host's answer. `canonical` returns a name as the engine stores it.
    pub fn new(
        found: &DetectedEngine,
        images: &[Image],
        blobs: &[Descriptor],
        query: &Query,
        answer: &ScriptAnswer,
        canonical: &dyn Fn(&Name) -> Option<Name>,
    ) -> Delta {
        let present: HashSet<(Name, Digest)> = query
            .current(found, answer)
            .into_iter()
            .filter_map(|image| Some((image.name.clone(), image.root?)))
            .collect();
        let is_present = |image: &&Image| {
            let root = image.root().digest();
            let known = |name: &Name| canonical(name).is_some_and(|name| present.contains(&(name, root)));
            !image.names.is_empty() && image.names.iter().all(known)
        };
        let (current, others): (Vec<&Image>, Vec<&Image>) = images.iter().partition(is_present);
        let needed: HashSet<Digest> = others.iter().flat_map(|image| all_digests(image)).collect();
        let unneeded = current.iter().flat_map(|image| all_digests(image)).filter(|digest| !needed.contains(digest));
        let unneeded: HashSet<Digest> = unneeded.collect();
        let roots: HashSet<Digest> = current.iter().map(|image| image.root().digest()).collect();
        let current = present.into_iter().filter(|(_, root)| roots.contains(root)).collect();
        let skipped = match found.loader {
            // podman reads an archive of several images by docker's manifest.json, which needs every layer.
            Loader::Podman if others.len() > 1 => HashSet::new(),
            _ => query.skippable(found, answer),
        };
        let one_name = others.iter().map(|image| image.names.len()).sum::<usize>() == 1;
        let mut delta = Delta { skipped, current, unneeded, all_compressed: false, one_name };
        let is_sent = |blob: &&Descriptor| !delta.skips(&blob.digest);
        let uncompressed = |blob: &Descriptor| layer_coding(&blob.media_type) == Some(Coding::Raw);
        let refused = |blob: &Descriptor| layer_coding(&blob.media_type).is_some_and(|c| found.refuses().contains(&c));
        let compressible =
            blobs.iter().filter(is_sent).any(uncompressed) || images.iter().flat_map(Image::blobs).any(refused);
        delta.all_compressed = !compressible;
        delta
    }

    /// Whether the blob or manifest need not be sent.
    pub fn skips(&self, digest: &Digest) -> bool {
        self.skipped.contains(digest) || self.unneeded.contains(digest)
    }

    /// Whether a name already points at `root`.
    pub fn has_name(&self, root: Digest) -> bool {
        self.current.iter().any(|(_, present)| *present == root)
    }

    /// Whether `name` already points at `root`.
    pub fn is_current(&self, name: &Name, root: Digest) -> bool {
        self.current.contains(&(name.clone(), root))
    }

    /// Reports why layers are sent that the host may have.
    pub fn explain(&self, host: &str, found: &DetectedEngine, query: &Query, answer: &ScriptAnswer, watch: &dyn Watch) {
        if let Some(why) = &answer.why {
            let why = match (why.as_str(), found.loader) {
                ("no-ctr", _) => "ctr was not found, which queries containerd",
                ("denied", Loader::Podman) => "permission to read podman's list of layers was denied",
                ("denied", _) => "permission to query containerd was denied (root has it)",
                ("untold", _) => "this docker does not report which containerd it uses",
                ("elsewhere", _) => "the engine runs on another host",
                ("no-awk", _) => "awk was not found, which reads the list of layers",
                _ => "the engine cannot be queried",
            };
            watch.say(&format!("{host}: the layers on the host are not known: {why}; all layers are sent"));
        }
        if self.skipped.is_empty() && found.loader == Loader::Podman && !answer.present.is_empty() {
            watch.say(&format!(
                "{host}: podman loads several images at once only with all their layers, so those that exist ({}) are sent \
                 too",
                answer.present.len()
            ));
        }
        match query.count_snapshot_only(answer, &self.skipped) {
            0 => {}
            n => watch.say(&format!(
                "{host}: layers that exist only as snapshots are sent ({n}; containerd discarded their blobs, or has \
                 them in another compression)"
            )),
        }
        if answer.pinned && !self.skipped.is_empty() {
            let count = self.skipped.len();
            watch.event(Event::Detail(&format!("{host}: the layers that exist ({count}) are pinned during the copy")));
        }
    }
}

/// The digests of all manifests and blobs of `image`.
fn all_digests(image: &Image) -> impl Iterator<Item = Digest> {
    image.tree.iter().map(Manifest::digest).chain(image.blobs().map(|blob| blob.digest))
}
