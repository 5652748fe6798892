//! Which manifests of an image come along: its whole tree, or the platforms that are wanted of it.

use super::{ATTESTS, Platforms, Sparse, Wish};
use crate::error::{Error, Kind, Result};
use crate::image::{Config, Descriptor, Digest, MAX_MANIFEST_BYTES, MAX_NAMES, Manifest, Platform, media_type};
use crate::progress::{Event, Watch};
use crate::sink::{Shape, SinkCapabilities};
use crate::source::Store;
use crate::source::documents::config;
use std::collections::HashSet;

/// Indexes inside indexes, at most.
const MAX_DEPTH: usize = 8;
/// Bytes of manifests in one image's tree, at most.
const MAX_TREE: u64 = 24 << 20;

/// The manifests of the image at `root` that come along, children before parents, and how many bytes were read of them.
/// `label` is what a person calls the image.
pub(super) fn choose(
    store: &dyn Store,
    root: &Descriptor,
    wish: &Wish,
    takes: &SinkCapabilities,
    watch: &dyn Watch,
    label: &str,
) -> Result<(Vec<Manifest>, u64)> {
    let mut chooser = Chooser { store, wish, takes, watch, label, bytes: 0, seen: HashSet::new() };
    let tree = chooser.tree(root)?;
    Ok((tree, chooser.bytes))
}

pub(super) struct Chooser<'a> {
    pub store: &'a dyn Store,
    pub wish: &'a Wish,
    pub takes: &'a SinkCapabilities,
    pub watch: &'a dyn Watch,
    /// The image, as a person knows it.
    pub label: &'a str,
    bytes: u64,
    seen: HashSet<Digest>,
}

/// What lies under an index, as far as the source has it.
pub(super) struct Found {
    /// Children first, without the index itself.
    pub tree: Vec<Manifest>,
    pub absent: Vec<Descriptor>,
}

impl Chooser<'_> {
    fn tree(&mut self, root: &Descriptor) -> Result<Vec<Manifest>> {
        let top = self.fetch(root)?;
        if top.children().is_empty() {
            self.agree(&top)?;
            return Ok(vec![top]);
        }
        let entries = counted(top.children().len());
        match (&self.wish.platforms, &self.takes.shape) {
            (Platforms::Only(wanted), _) => {
                let chosen = self.chosen(&top, wanted)?;
                self.asked(top, chosen)
            }
            (Platforms::All, Shape::One(_)) => Err(Error::usage(format!(
                "{}: the destination holds one platform of an image; use --platform",
                self.label
            ))),
            (Platforms::Default, Shape::One(platform)) => {
                let chosen = self.chosen(&top, std::slice::from_ref(platform))?;
                self.watch.say(&format!("{}: of {entries}, {platform} goes there", self.label));
                self.asked(top, chosen)
            }
            (Platforms::Default, Shape::Sparse(platform)) => {
                let chosen = self.chosen(&top, std::slice::from_ref(platform))?;
                self.native(top, chosen, platform)
            }
            _ => self.all(top),
        }
    }

    /// The whole tree under `top`.
    fn all(&mut self, top: Manifest) -> Result<Vec<Manifest>> {
        let mut found = Found { tree: Vec::new(), absent: Vec::new() };
        self.descend(&top, 0, &mut found)?;
        if !found.absent.is_empty() {
            return self.incomplete(top, found);
        }
        found.tree.push(top);
        Ok(found.tree)
    }

    /// Finds everything below `top`.
    fn descend(&mut self, top: &Manifest, depth: usize, found: &mut Found) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        for child in top.children() {
            if self.seen.contains(&child.digest) {
                continue;
            }
            if !self.has(&child.digest)? {
                found.absent.push(child.clone());
                continue;
            }
            let manifest = match self.fetch(child) {
                // A registry is not asked beforehand, and a missing child is an error there unless the user allows it.
                Err(error) if error.kind() == Kind::NotFound && self.tolerates_missing() => {
                    found.absent.push(child.clone());
                    continue;
                }
                manifest => manifest?,
            };
            if self.store.is_sparse() && !self.complete(&manifest)? {
                found.absent.push(child.clone());
                continue;
            }
            self.descend(&manifest, depth + 1, found)?;
            found.tree.push(manifest);
        }
        Ok(())
    }

    fn tolerates_missing(&self) -> bool {
        matches!(self.wish.sparse, Sparse::Keep | Sparse::Narrow)
    }

    fn too_deep(&self) -> Error {
        Error::invalid(format!("{}: indexes are nested more than {MAX_DEPTH} deep", self.label))
    }

    /// Whether the store is to be asked for the manifest `digest`.
    pub(super) fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(!self.store.is_sparse() || self.store.find(digest)?.is_some())
    }

    fn complete(&self, manifest: &Manifest) -> Result<bool> {
        for blob in manifest.blobs() {
            if self.store.find(&blob.digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the source says of a blob that is missing although the manifest is there.
    pub(super) fn reason(&mut self, absent: &[Descriptor]) -> Result<Option<Error>> {
        for child in absent {
            if self.store.find(&child.digest)?.is_none() {
                continue;
            }
            for blob in self.fetch(child)?.blobs() {
                if self.store.find(&blob.digest)?.is_none() {
                    return Ok(self.store.open(blob, 0).err());
                }
            }
        }
        Ok(None)
    }

    /// The images under `top` that are best for each of `wanted`, each once.
    fn chosen(&mut self, top: &Manifest, wanted: &[Platform]) -> Result<Vec<Descriptor>> {
        let mut leaves = self.leaves(top)?;
        for leaf in &mut leaves {
            if leaf.platform.is_none() && self.has(&leaf.digest)? {
                let manifest = self.fetch(leaf)?;
                leaf.platform = self.config(&manifest).ok().flatten().map(|config| config.platform());
            }
        }
        let mut chosen: Vec<Descriptor> = Vec::new();
        for platform in wanted {
            let best = platform.best(leaves.iter().map(|leaf| leaf.platform.as_ref()));
            let best = best.ok_or_else(|| {
                Error::not_found(format!("{} has no image for {platform}; it has {}", self.label, listed(&leaves)))
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

    /// The index lists an image for `platform`, and the source is without it.
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

    /// Says which build was taken where several would do.
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
                "{}: {} are for {wanted}; the newest, {taken}, is taken (--os-version chooses another)",
                self.label,
                listed(&builds)
            ));
        }
    }

    /// Every manifest under `top` that is not an index.
    pub(super) fn leaves(&mut self, top: &Manifest) -> Result<Vec<Descriptor>> {
        let mut leaves = Vec::new();
        // An index that is listed again and again is opened once.
        let mut opened = HashSet::new();
        let mut below = vec![(top.children().to_vec(), 0)];
        while let Some((children, depth)) = below.pop() {
            for child in children {
                if !media_type::is_index(&child.media_type) {
                    leaves.push(child);
                } else if depth >= MAX_DEPTH {
                    return Err(self.too_deep());
                } else if opened.insert(child.digest) && self.has(&child.digest)? {
                    below.push((self.fetch(&child)?.children().to_vec(), depth + 1));
                }
                if leaves.len() > MAX_NAMES {
                    return Err(Error::invalid(format!(
                        "{}: its index lists more than {MAX_NAMES} images",
                        self.label
                    )));
                }
            }
        }
        Ok(leaves)
    }

    /// Of what is under `top`, what attests one of `images` and is there.
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
        if !self.store.is_sparse() {
            return Ok(true);
        }
        if !self.has(&leaf.digest)? {
            return Ok(false);
        }
        let manifest = self.fetch(leaf)?;
        self.complete(&manifest)
    }

    /// A single image, when platforms were asked for, has to be for one of them.
    fn agree(&self, manifest: &Manifest) -> Result<()> {
        let Platforms::Only(wanted) = &self.wish.platforms else { return Ok(()) };
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

    pub(super) fn fetch(&mut self, at: &Descriptor) -> Result<Manifest> {
        let bytes = match at.embedded() {
            Some(bytes) => bytes,
            None if at.size > MAX_MANIFEST_BYTES => {
                return Err(Error::invalid(format!(
                    "manifest {} has {} bytes by its descriptor, more than {MAX_MANIFEST_BYTES}",
                    at.digest, at.size
                )));
            }
            None => self.store.manifest(at)?,
        };
        if self.seen.insert(at.digest) {
            self.bytes += bytes.len() as u64;
        }
        if self.bytes > MAX_TREE {
            return Err(Error::invalid(format!("{}: its manifests have more than {MAX_TREE} bytes", self.label)));
        }
        let manifest = Manifest::parse(bytes, at)?;
        let own = &manifest.descriptor.media_type;
        if *own != at.media_type && media_type::same_kind(own, &at.media_type) {
            let (digest, listed) = (at.digest, &at.media_type);
            self.watch.event(Event::Detail(&format!("manifest {digest} is listed as {listed}; its own type is {own}")));
        }
        Ok(manifest)
    }
}

pub(super) fn counted(n: usize) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") }
}

/// The platforms of `entries`, or their digests where they have none.
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
