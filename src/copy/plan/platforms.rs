//! The images of an index that are for a platform, and their attestations.

use super::select::{Chooser, MAX_DEPTH};
use super::{ATTESTS, Platforms};
use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Digest, MAX_NAMES, Manifest, Platform, media_type};
use crate::source::documents::config;
use std::collections::HashSet;

/// The entries of an index and of the indexes below it.
pub(super) struct Leaves {
    /// The manifests that are not indexes.
    pub leaves: Vec<Descriptor>,
    /// The indexes that the source does not have.
    pub absent: Vec<Descriptor>,
}

impl Chooser<'_> {
    /// The best image below `top` for each of `wanted`, each once.
    pub(super) fn chosen(&mut self, top: &Manifest, wanted: &[Platform]) -> Result<Vec<Descriptor>> {
        let Leaves { mut leaves, absent } = self.below(top)?;
        for leaf in &mut leaves {
            if leaf.platform.is_none()
                && let Some(manifest) = self.find(leaf)?
            {
                leaf.platform = self.config(&manifest).ok().flatten().map(|config| config.platform());
            }
        }
        let mut chosen: Vec<Descriptor> = Vec::new();
        for platform in wanted {
            let best = platform.best(leaves.iter().map(|leaf| leaf.platform.as_ref()));
            let best = best.ok_or_else(|| {
                let hidden = if absent.is_empty() {
                    String::new()
                } else {
                    format!(" (and indexes that the source does not have: {})", listed(&absent))
                };
                Error::not_found(format!(
                    "{} has no image for {platform}; it has {}{hidden}",
                    self.label,
                    listed(&leaves)
                ))
            })?;
            let best = &leaves[best];
            if !self.has(&best.digest)? {
                return Err(self.not_here(platform, &leaves)?);
            }
            self.tell_versions(platform, best, &leaves);
            if !chosen.iter().any(|have| have.digest == best.digest) {
                chosen.push(best.clone());
            }
        }
        Ok(chosen)
    }

    /// The error for an image for `platform` that the index lists and the source does not have.
    fn not_here(&self, platform: &Platform, leaves: &[Descriptor]) -> Result<Error> {
        let mut here = Vec::new();
        for leaf in leaves.iter().filter(|leaf| leaf.annotation(ATTESTS).is_none()) {
            if self.has(&leaf.digest)? {
                here.push(leaf.clone());
            }
        }
        let here = if here.is_empty() { "none of its images".to_owned() } else { format!("only {}", listed(&here)) };
        Ok(Error::not_found(format!("{} lists {platform}, but the source has {here}", self.label)))
    }

    /// Reports the selected build where several match.
    fn tell_versions(&self, wanted: &Platform, best: &Descriptor, leaves: &[Descriptor]) {
        let Some(taken) = &best.platform else { return };
        let rank = wanted.rank(taken);
        let same = |leaf: &&Descriptor| {
            let platform = leaf.platform.as_ref();
            platform.is_some_and(|platform| platform.os_version.is_some() && wanted.rank(platform) == rank)
        };
        let builds: Vec<Descriptor> = leaves.iter().filter(same).cloned().collect();
        if builds.iter().any(|build| build.platform != best.platform) {
            self.watch.say(&format!(
                "{}: {} are for {wanted}; the newest, {taken}, is copied (--os-version selects another)",
                self.label,
                listed(&builds)
            ));
        }
    }

    /// Every manifest below `top` that is not an index.
    pub(super) fn leaves(&mut self, top: &Manifest) -> Result<Vec<Descriptor>> {
        Ok(self.below(top)?.leaves)
    }

    /// The leaves below `top`, and the indexes whose leaves are not known.
    pub(super) fn below(&mut self, top: &Manifest) -> Result<Leaves> {
        let (mut leaves, mut absent) = (Vec::new(), Vec::new());
        // An index that is listed several times is read once.
        let mut opened = HashSet::new();
        let mut below = vec![(top.children().to_vec(), 0)];
        while let Some((children, depth)) = below.pop() {
            for child in children {
                if !media_type::is_index(&child.media_type) {
                    leaves.push(child);
                } else if depth >= MAX_DEPTH {
                    return Err(self.too_deep());
                } else if opened.insert(child.digest) {
                    match self.find(&child)? {
                        Some(index) => below.push((index.children().to_vec(), depth + 1)),
                        None => absent.push(child),
                    }
                }
                if leaves.len() > MAX_NAMES {
                    return Err(Error::invalid(format!(
                        "{}: its index lists more than {MAX_NAMES} images",
                        self.label
                    )));
                }
            }
        }
        Ok(Leaves { leaves, absent })
    }

    /// The attestations of `images` below `top` that the source has.
    pub(super) fn attestations(&mut self, top: &Manifest, images: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let images: HashSet<Digest> = images.iter().map(|image| image.digest).collect();
        let mut found = Vec::new();
        for leaf in self.leaves(top)? {
            let about: Option<Digest> = leaf.annotation(ATTESTS).and_then(|digest| digest.parse().ok());
            if about.is_some_and(|about| images.contains(&about)) && self.available(&leaf)? {
                found.push(leaf);
            }
        }
        Ok(found)
    }

    fn available(&mut self, leaf: &Descriptor) -> Result<bool> {
        match self.find(leaf)? {
            None => Ok(false),
            Some(manifest) => Ok(!self.is_sparse || self.complete(&manifest)?),
        }
    }

    /// Checks that a single image is for one of the wanted platforms.
    pub(super) fn agree(&self, manifest: &Manifest) -> Result<()> {
        let Platforms::Only(wanted) = &self.options.platforms else { return Ok(()) };
        let Some(config) = self.config(manifest)? else { return Ok(()) };
        let found = config.platform();
        match config.os.is_empty() || wanted.iter().any(|platform| platform.rank(&found).is_some()) {
            true => Ok(()),
            false => Err(Error::not_found(format!("{} is for {found} only, not for {}", self.label, wanted[0]))),
        }
    }

    fn config(&self, manifest: &Manifest) -> Result<Option<Config>> {
        let Some(at) = manifest.config() else { return Ok(None) };
        if !at.media_type.contains("config") && !at.media_type.contains("container.image") {
            return Ok(None);
        }
        config(self.store, at).map(Some)
    }
}

/// The platforms of `entries`, or their digests where they have no platform.
pub(super) fn listed(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> = Vec::new();
    for entry in entries {
        let name = entry.platform.as_ref().map_or_else(|| entry.digest.short(), Platform::to_string);
        if !names.contains(&name) && names.len() < 12 {
            names.push(name);
        }
    }
    names.join(", ")
}
