//! What a copy leaves out, decided once, when the host has answered: layers that it holds, images that are there.

use super::inventory::Wanted;
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
    pub left_out: HashSet<Digest>,
    /// Names that point at the right image already.
    current: HashSet<(Name, Digest)>,
    /// Manifests and blobs that only those images need.
    unneeded: HashSet<Digest>,
    /// Whether every layer that goes is packed already.
    pub all_packed: bool,
    /// Whether a single name is to be given.
    pub one_name: bool,
}

impl Delta {
    /// Of `images`, of which `blobs` would go. `in_full` gives a name as the engine keeps it.
    pub fn new(
        found: &DetectedEngine,
        images: &[Image],
        blobs: &[Descriptor],
        wanted: &Wanted,
        answer: &Answer,
        in_full: &dyn Fn(&Name) -> Option<Name>,
    ) -> Delta {
        let there: HashSet<(Name, Digest)> =
            wanted.current(found, answer).into_iter().filter_map(|one| Some((one.name.clone(), one.root?))).collect();
        let is_there = |image: &&Image| {
            let root = image.root().digest();
            let known = |name: &Name| in_full(name).is_some_and(|name| there.contains(&(name, root)));
            !image.names.is_empty() && image.names.iter().all(known)
        };
        let (current, others): (Vec<&Image>, Vec<&Image>) = images.iter().partition(is_there);
        let needed: HashSet<Digest> = others.iter().flat_map(|image| everything(image)).collect();
        let unneeded = current.iter().flat_map(|image| everything(image)).filter(|digest| !needed.contains(digest));
        let unneeded: HashSet<Digest> = unneeded.collect();
        let roots: HashSet<Digest> = current.iter().map(|image| image.root().digest()).collect();
        let current = there.into_iter().filter(|(_, root)| roots.contains(root)).collect();
        let left_out = match found.loader {
            // Of an archive with several images it reads only docker's list, by which every layer has to be there.
            Loader::Podman if others.len() > 1 => HashSet::new(),
            _ => wanted.held(found, answer),
        };
        let one_name = others.iter().map(|image| image.names.len()).sum::<usize>() == 1;
        let mut delta = Delta { left_out, current, unneeded, all_packed: false, one_name };
        let goes = |blob: &&Descriptor| !delta.has(&blob.digest);
        let unpacked = |blob: &Descriptor| layer_coding(&blob.media_type) == Some(Coding::Raw);
        let refused = |blob: &Descriptor| layer_coding(&blob.media_type).is_some_and(|c| found.refuses().contains(&c));
        let raw = blobs.iter().filter(goes).any(unpacked) || images.iter().flat_map(Image::blobs).any(refused);
        delta.all_packed = !raw;
        delta
    }

    /// Whether the blob or manifest need not be sent.
    pub fn has(&self, digest: &Digest) -> bool {
        self.left_out.contains(digest) || self.unneeded.contains(digest)
    }

    /// Whether some name points at `root` already.
    pub fn names(&self, root: Digest) -> bool {
        self.current.iter().any(|(_, there)| *there == root)
    }

    /// Whether `name` needs nothing to be done.
    pub fn is_current(&self, name: &Name, root: Digest) -> bool {
        self.current.contains(&(name.clone(), root))
    }

    /// Says why layers go that may be there.
    pub fn explain(&self, host: &str, found: &DetectedEngine, wanted: &Wanted, answer: &Answer, watch: &dyn Watch) {
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
        if self.left_out.is_empty() && found.loader == Loader::Podman && !answer.held.is_empty() {
            watch.say(&format!(
                "{host}: {} layers are there, but podman takes several images at once only with all their layers; \
                 every layer goes",
                answer.held.len()
            ));
        }
        match wanted.only_unpacked(answer, &self.left_out) {
            0 => {}
            n => watch.say(&format!(
                "{host}: {n} of the layers are there unpacked only (containerd discards packed layers where it is set \
                 to, or has them in another packing); they go"
            )),
        }
        if answer.pinned && !self.left_out.is_empty() {
            let count = self.left_out.len();
            watch.event(Event::Detail(&format!("{host}: {count} layers are there, pinned meanwhile")));
        }
    }
}

/// Manifests and blobs of `image`.
fn everything(image: &Image) -> impl Iterator<Item = Digest> {
    image.tree.iter().map(Manifest::digest).chain(image.blobs().map(|blob| blob.digest))
}
