//! Conversions, and layers that stay behind, are said before anything moves.

use super::convert::Format;
use super::unchanged;
use super::{Compress, Foreign, Run, Work};
use crate::image::Image;
use crate::image::{Coding, Manifest};
use std::collections::HashSet;

impl Run<'_> {
    pub(super) fn tell_packing(&self, work: &[Work]) {
        let packed = work.iter().filter_map(|work| work.recode);
        let mut counts: Vec<((Coding, Coding), usize)> = Vec::new();
        for recode in packed {
            match counts.iter_mut().find(|(kind, _)| *kind == (recode.was, recode.to)) {
                Some((_, count)) => *count += 1,
                None => counts.push(((recode.was, recode.to), 1)),
            }
        }
        for ((was, to), count) in counts {
            let layers = if count == 1 { "1 layer is".to_owned() } else { format!("{count} layers are") };
            self.watch.say(&format!(
                "{layers} packed anew there ({} to {}); their digests change",
                plain(was),
                plain(to)
            ));
        }
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

    /// Says which artifacts are not converted although that was asked for.
    pub(super) fn tell_artifacts(&self, images: &[Image]) {
        let repacked = |manifest: &Manifest| match self.options.compress {
            Compress::To(wanted) => manifest.layers().iter().any(|l| l.coding().is_some_and(|coding| coding != wanted)),
            Compress::Default | Compress::Keep => false,
        };
        for artifact in unchanged::artifacts(images) {
            if repacked(artifact) || self.options.format != Format::Keep {
                self.watch.say(&format!(
                    "artifact {} stays as it is: --compress and --format convert container images only",
                    artifact.digest()
                ));
            }
        }
    }
}

fn plain(coding: Coding) -> &'static str {
    match coding {
        Coding::Raw => "raw",
        other => other.name(),
    }
}
