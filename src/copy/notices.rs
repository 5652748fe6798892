//! Messages about conversions and skipped layers, before anything is transferred.

use super::attach::label;
use super::convert::Format;
use super::unchanged;
use super::{Compress, CopyRun, Foreign, Work};
use crate::error::Result;
use crate::image::{Coding, Descriptor, Digest, Image, Manifest, Name};
use crate::progress::Event;
use crate::source::Store;
use std::collections::HashSet;

impl CopyRun<'_> {
    pub(super) fn tell_recompression(&self, work: &[Work]) {
        let mut counts: Vec<((Coding, Coding), usize)> = Vec::new();
        for how in work.iter().filter_map(|work| work.recompress) {
            match counts.iter_mut().find(|(kind, _)| *kind == (how.was, how.to)) {
                Some((_, count)) => *count += 1,
                None => counts.push(((how.was, how.to), 1)),
            }
        }
        for ((was, to), count) in counts {
            let layers = if count == 1 { "1 layer is".to_owned() } else { format!("{count} layers are") };
            let (was, to) = (described(was), described(to));
            self.watch.say(&format!("{layers} recompressed for the destination ({was} to {to}); their digests change"));
        }
    }

    /// Reports layers of `image`, among `kept`, that would be recompressed without its referrers.
    pub(super) fn tell_kept(&self, image: &Image, kept: &HashSet<Digest>) {
        let is_kept = |layer: &&Descriptor| {
            let how = layer.coding().and_then(|coding| self.recompression_from(coding));
            how.is_some() && kept.contains(&layer.digest) && self.recompressed(&layer.digest).is_none()
        };
        if image.tree.iter().flat_map(Manifest::layers).any(|layer| is_kept(&layer)) {
            self.watch.event(Event::Detail(&format!(
                "{}: uncompressed layers keep their digests, since signatures or other referrers belong to the image; \
                 --compress gzip compresses them and leaves out what belongs to the image",
                label(image)
            )));
        }
    }

    /// Reports manifests that were made here because the source stores none, where it wants that.
    pub(super) fn tell_synthesised(&self, images: &[Image]) {
        for image in images.iter().filter(|image| image.synthesised && self.profile.reports_synthesised) {
            let Some(config) = image.root().config() else { continue };
            let (root, config) = (image.root().digest(), config.digest);
            let label = image.label();
            let why = match image.lost_manifest {
                None => "the source has no manifest of this image".to_owned(),
                Some(lost) => format!("the source does not have the compressed layers of its manifest {lost}"),
            };
            self.watch.say(&format!(
                "{label}: {why}; it gets a new one, {root}; its config (the image ID), {config}, does not change"
            ));
        }
    }

    /// Reports links that are broken at the source. What they lead to is copied nevertheless.
    pub(super) fn tell_broken_links(&self, store: &dyn Store, images: &[Image]) -> Result<()> {
        for image in images {
            let broken = store.broken_links(image)?;
            if broken.count() > 0 {
                let label = image.names.first().map_or_else(|| image.source_digest.to_string(), Name::to_string);
                self.watch.say(&format!(
                    "{label}: the image is copied, although its registry cannot serve it as it is: {}",
                    broken.sentences().join("; ")
                ));
            }
        }
        Ok(())
    }

    pub(super) fn tell_foreign(&self, images: &[Image]) {
        let mut seen = HashSet::new();
        let why = match self.options.foreign {
            Foreign::Carry => "the source does not have it",
            Foreign::Leave => "--foreign leave was given",
        };
        for layer in images.iter().flat_map(Image::skipped_foreign_layers).filter(|layer| seen.insert(layer.digest)) {
            let digest = layer.digest;
            self.watch.say(&format!("layer {digest} is not copied: its type is nondistributable, and {why}"));
        }
    }

    /// Reports artifacts that are not converted although the user asked for a conversion.
    pub(super) fn tell_artifacts(&self, images: &[Image]) {
        let is_other = |manifest: &Manifest| match self.options.compress {
            Compress::To(wanted) => manifest.layers().iter().any(|l| l.coding().is_some_and(|coding| coding != wanted)),
            Compress::Default | Compress::Keep => false,
        };
        for artifact in unchanged::artifacts(images) {
            if is_other(artifact) || self.options.format != Format::Keep {
                self.watch.say(&format!(
                    "artifact {} stays as it is: --compress and --format convert container images only",
                    artifact.digest()
                ));
            }
        }
    }
}

fn described(coding: Coding) -> &'static str {
    match coding {
        Coding::Raw => "uncompressed",
        other => other.name(),
    }
}
