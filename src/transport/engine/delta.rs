//! What a copy leaves out, decided once, when the host has answered: layers that it holds, images that are there.

use super::inventory::Query;
use super::kind::{DetectedEngine, Loader};
use super::session::Answer;
use crate::image::Image;
use crate::image::{Coding, Descriptor, Digest, Manifest, Name, layer_coding};
use crate::progress::{Event, Watch};
use std::collections::HashSet;

/// What is known of a host before anything is sent; nothing of it where it was not asked.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// Layers that the host holds and that are not sent.
    pub skipped: HashSet<Digest>,
    /// Names that point at the right image already.
    current: HashSet<(Name, Digest)>,
    /// Manifests and blobs that only those images need.
    unneeded: HashSet<Digest>,
    /// Whether every layer that goes is packed already.
    pub all_compressed: bool,
    /// Whether a single name is to be given.
    pub one_name: bool,
}

impl Delta {
    /// Of `images`, of which `blobs` would go. `in_full` gives a name as the engine keeps it.
    pub fn new(
        found: &DetectedEngine,
        images: &[Image],
        blobs: &[Descriptor],
        query: &Query,
        answer: &Answer,
        canonical: &dyn Fn(&Name) -> Option<Name>,
    ) -> Delta {
        let present: HashSet<(Name, Digest)> =
            query.current(found, answer).into_iter().filter_map(|one| Some((one.name.clone(), one.root?))).collect();
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
            // Of an archive with several images it reads only docker's list, by which every layer has to be there.
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

    /// Whether some name points at `root` already.
    pub fn has_name(&self, root: Digest) -> bool {
        self.current.iter().any(|(_, present)| *present == root)
    }

    /// Whether `name` needs nothing to be done.
    pub fn is_current(&self, name: &Name, root: Digest) -> bool {
        self.current.contains(&(name.clone(), root))
    }

    /// Says why layers go that may be there.
    pub fn explain(&self, host: &str, found: &DetectedEngine, query: &Query, answer: &Answer, watch: &dyn Watch) {
        if let Some(why) = &answer.why {
            let why = match (why.as_str(), found.loader) {
                ("no-ctr", _) => "there is no ctr there to ask containerd for it",
                ("denied", Loader::Podman) => "its list of layers may not be read",
                ("denied", _) => "containerd may not be asked for it (root may)",
                ("untold", _) => "this docker does not say which containerd it uses",
                ("elsewhere", _) => "the engine runs on yet another host",
                ("no-awk", _) => "there is no awk there to look it up with",
                _ => "it cannot be asked",
            };
            watch.say(&format!("{host}: which layers are there is not known, {why}; every layer goes"));
        }
        if self.skipped.is_empty() && found.loader == Loader::Podman && !answer.present.is_empty() {
            watch.say(&format!(
                "{host}: {} layers are there, but podman takes several images at once only with all their layers; \
                 every layer goes",
                answer.present.len()
            ));
        }
        match query.count_snapshot_only(answer, &self.skipped) {
            0 => {}
            n => watch.say(&format!(
                "{host}: {n} of the layers are there unpacked only (containerd discards packed layers where it is set \
                 to, or has them in another packing); they go"
            )),
        }
        if answer.pinned && !self.skipped.is_empty() {
            let count = self.skipped.len();
            watch.event(Event::Detail(&format!("{host}: {count} layers are there, pinned meanwhile")));
        }
    }
}

/// Manifests and blobs of `image`.
fn all_digests(image: &Image) -> impl Iterator<Item = Digest> {
    image.tree.iter().map(Manifest::digest).chain(image.blobs().map(|blob| blob.digest))
}
