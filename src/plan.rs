//! What is to be copied: images with their trees of manifests, platforms chosen, names given.

use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Digest, MAX_MANIFEST, Manifest, Name, Platform, media_type};
use crate::progress::{Event, Watch};
use crate::sink::{Shape, Takes};
use crate::source::{Root, Store, ambiguous};
use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

/// Indexes inside indexes, at most.
const MAX_DEPTH: usize = 8;
/// Bytes of manifests in one image's tree, at most.
const MAX_TREE: u64 = 24 << 20;
/// The same of all the images of one copy.
const MAX_TREES: u64 = 64 << 20;
/// On an attestation's entry in an index: the digest of what it attests (BuildKit).
pub(crate) const ATTESTS: &str = "vnd.docker.reference.digest";

/// One image on its way, with the names it is to have.
#[derive(Debug, Clone)]
pub struct Image {
    /// At the sink; empty: only the digest.
    pub names: Vec<Name>,
    /// Every manifest that comes along, children before parents; the root is last. Never empty.
    pub tree: Vec<Manifest>,
    /// The root was made here, the source had none.
    pub synthesised: bool,
    /// What the source calls it.
    pub source_digest: Digest,
}

impl Image {
    pub fn root(&self) -> &Manifest {
        self.tree.last().expect("a tree has a root")
    }

    /// Configs and layers of the whole tree (not yet each once).
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.tree.iter().flat_map(Manifest::blobs)
    }

    /// The platforms that its index lists, of the images that come along.
    pub fn platforms(&self) -> Vec<Platform> {
        let here: HashSet<Digest> = self.tree.iter().map(Manifest::digest).collect();
        let children = self.tree.iter().flat_map(|manifest| manifest.children());
        let listed = children.filter(|child| here.contains(&child.digest)).filter_map(|child| child.platform.clone());
        listed.filter(|platform| platform.os != "unknown").collect()
    }
}

/// Which platforms of an image are wanted.
#[derive(Debug, Clone, Default)]
pub enum Platforms {
    /// All that the sink can hold.
    #[default]
    Default,
    All,
    /// The best match for each.
    Only(Vec<Platform>),
}

/// What the images are to be called.
#[derive(Debug, Clone, Default)]
pub enum Naming {
    /// As at the source, spelled in full where the sink wants it.
    #[default]
    Keep,
    /// The one image gets these.
    Names(Vec<Name>),
}

/// The images that `roots` are, planned for a sink that `takes` so much.
pub fn images(
    store: &dyn Store,
    roots: Vec<Root>,
    naming: &Naming,
    platforms: &Platforms,
    takes: &Takes,
    watch: &dyn Watch,
) -> Result<Vec<Image>> {
    if let Some(error) = ambiguous(&roots) {
        return Err(error);
    }
    let mut planned: Vec<Image> = Vec::new();
    let mut bytes = 0;
    for root in merge(roots) {
        let (names, root) = root;
        let label = names.first().map_or_else(|| root.descriptor.digest.to_string(), Name::to_string);
        let mut chooser = Chooser { store, takes, watch, label: &label, bytes: 0, seen: HashSet::new() };
        let tree = chooser.tree(&root.descriptor, platforms)?;
        if let Some(index) = tree.last().filter(|top| root.synthesised && !top.children().is_empty()) {
            let platforms = listed(index.children());
            let digest = index.digest();
            watch.say(&format!("{label}: {platforms} lie side by side at the source; an index is made, {digest}"));
        }
        bytes += chooser.bytes;
        if bytes > MAX_TREES {
            return Err(Error::invalid(format!(
                "the manifests of these images have together more than {MAX_TREES} bytes; copy fewer of them at once"
            )));
        }
        planned.push(Image { names, tree, synthesised: root.synthesised, source_digest: root.descriptor.digest });
    }
    name(&mut planned, naming, takes, watch)?;
    sizes_agree(&planned)?;
    Ok(planned)
}

/// A blob is moved once, whoever lists it: all have to say the same size.
fn sizes_agree(images: &[Image]) -> Result<()> {
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    let manifests = images.iter().flat_map(|image| &image.tree);
    let listed = manifests.flat_map(|manifest| manifest.config().into_iter().chain(manifest.layers()));
    for blob in listed.filter(|blob| !blob.is_foreign()) {
        let size = *sizes.entry(blob.digest).or_insert(blob.size);
        if size != blob.size {
            let digest = blob.digest;
            return Err(Error::invalid(format!("blob {digest} is listed with {size} and with {} bytes", blob.size)));
        }
    }
    Ok(())
}

/// Several names of one image are one image.
fn merge(roots: Vec<Root>) -> Vec<(Vec<Name>, Root)> {
    let mut merged: Vec<(Vec<Name>, Root)> = Vec::new();
    let mut places: HashMap<Digest, usize> = HashMap::new();
    for root in roots {
        let at = *places.entry(root.descriptor.digest).or_insert_with(|| {
            merged.push((Vec::new(), root.clone()));
            merged.len() - 1
        });
        let names = &mut merged[at].0;
        names.extend(root.name.filter(|name| !names.contains(name)));
    }
    merged
}

fn name(images: &mut [Image], naming: &Naming, takes: &Takes, watch: &dyn Watch) -> Result<()> {
    match (naming, &mut *images) {
        (Naming::Keep, _) => {}
        (Naming::Names(names), [image]) => image.names = names.clone(),
        (Naming::Names(names), images) => {
            let name = names.first().map_or("one name", Name::as_str);
            return Err(Error::usage(format!(
                "{} images cannot all become {name}; name one of them in SRC",
                images.len()
            )));
        }
    }
    images.iter_mut().for_each(|image| image.names = each_true(image, watch));
    match images.iter().find(|image| image.names.is_empty()) {
        Some(image) if !takes.nameless => Err(Error::usage(format!(
            "image {} has no name and needs one there; give it with --as",
            image.source_digest
        ))),
        _ => Ok(()),
    }
}

/// The names of `image`, tags first: each tag and each digest as a name of its own. A name by another digest than the
/// image's is left out, and said: who asks for it must not get this image.
fn each_true(image: &Image, watch: &dyn Watch) -> Vec<Name> {
    let (root, source) = (image.root().digest(), image.source_digest);
    let mut names: Vec<Name> = Vec::new();
    for name in image.names.iter().cloned().flat_map(Name::apart) {
        match name.digest() {
            Some(digest) if digest == source && digest != root => {
                watch.say(&format!("{name}: what goes there has another digest, {root}; it does not get this name"));
            }
            Some(digest) if digest != root => {
                watch.say(&format!("the name {name} is refused: the image has the digest {root}"));
            }
            _ if names.contains(&name) => {}
            _ => names.push(name),
        }
    }
    names.sort_by_key(|name| name.digest().is_some());
    names
}

struct Chooser<'a> {
    store: &'a dyn Store,
    takes: &'a Takes,
    watch: &'a dyn Watch,
    /// The image, as a person knows it.
    label: &'a str,
    bytes: u64,
    seen: HashSet<Digest>,
}

impl Chooser<'_> {
    fn tree(&mut self, root: &Descriptor, platforms: &Platforms) -> Result<Vec<Manifest>> {
        let top = self.fetch(root)?;
        if top.children().is_empty() {
            self.agree(&top, platforms)?;
            return Ok(vec![top]);
        }
        match (platforms, &self.takes.shape) {
            (Platforms::Only(wanted), _) => {
                let chosen = self.chosen(&top, wanted)?;
                self.just(top, chosen)
            }
            (Platforms::All, Shape::One(_)) => Err(Error::usage(format!(
                "{}: the destination holds one platform of an image; use --platform",
                self.label
            ))),
            (Platforms::Default, Shape::One(platform)) => {
                let chosen = self.chosen(&top, std::slice::from_ref(platform))?;
                self.watch.say(&format!("{}: of {}, {platform} goes there", self.label, counted(top.children().len())));
                self.just(top, chosen)
            }
            (Platforms::Default, Shape::Sparse(platform)) => {
                let chosen = self.chosen(&top, std::slice::from_ref(platform))?;
                self.watch.say(&format!(
                    "{}: of {}, {platform} goes there; the index stays as it is",
                    self.label,
                    counted(top.children().len())
                ));
                self.sparse(top, &chosen)
            }
            _ => self.all(top),
        }
    }

    /// The whole tree under `top`, as far as the source has it.
    fn all(&mut self, top: Manifest) -> Result<Vec<Manifest>> {
        let mut absent = Vec::new();
        let mut tree = Vec::new();
        self.descend(&top, 0, &mut tree, &mut absent)?;
        if absent.is_empty() {
            tree.push(top);
            return Ok(tree);
        }
        let images: Vec<Descriptor> = self
            .leaves(&top)?
            .into_iter()
            .filter(|leaf| tree.iter().any(|have| have.digest() == leaf.digest))
            .collect();
        if images.is_empty() {
            if let Some(reason) = self.reason(&absent)? {
                return Err(reason.at(self.label));
            }
            return Err(Error::not_found(format!(
                "{}: none of {} is complete at the source (missing: {})",
                self.label,
                counted(top.children().len()),
                listed(&absent)
            )));
        }
        let have = listed(&images);
        if self.takes.shape == Shape::Whole {
            self.watch.say(&format!("{}: the source has only {have} of its index; the rest is left out", self.label));
            return self.just(top, images);
        }
        self.watch.say(&format!("{}: the source has only {have} of its index, which stays as it is", self.label));
        tree.push(top);
        Ok(tree)
    }

    /// Puts everything below `top` into `tree`, children first; what the source lacks goes to `absent`.
    fn descend(
        &mut self,
        top: &Manifest,
        depth: usize,
        tree: &mut Vec<Manifest>,
        absent: &mut Vec<Descriptor>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("{}: indexes are nested more than {MAX_DEPTH} deep", self.label)));
        }
        for child in top.children() {
            if self.seen.contains(&child.digest) {
                continue;
            }
            if !self.has(&child.digest)? {
                absent.push(child.clone());
                continue;
            }
            let manifest = self.fetch(child)?;
            if self.store.may_lack() && !self.complete(&manifest)? {
                absent.push(child.clone());
                continue;
            }
            self.descend(&manifest, depth + 1, tree, absent)?;
            tree.push(manifest);
        }
        Ok(())
    }

    /// Whether the store is to be asked for the manifest `digest`.
    fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(!self.store.may_lack() || self.store.find(digest)?.is_some())
    }

    fn complete(&self, manifest: &Manifest) -> Result<bool> {
        for blob in manifest.blobs() {
            if self.store.find(&blob.digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the source says of a blob that it lacks although it has the manifest.
    fn reason(&mut self, absent: &[Descriptor]) -> Result<Option<Error>> {
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
            if leaf.platform.is_none() {
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
            if !self.has(&leaves[best].digest)? {
                let here: Vec<Descriptor> =
                    leaves.iter().filter(|leaf| self.has(&leaf.digest).unwrap_or(false)).cloned().collect();
                let here = if here.is_empty() { "none of its images".to_owned() } else { listed(&here) };
                let label = self.label;
                return Err(Error::not_found(format!("{label} lists {platform}, but the source has only {here}")));
            }
            if !chosen.iter().any(|have| have.digest == leaves[best].digest) {
                chosen.push(leaves[best].clone());
            }
        }
        Ok(chosen)
    }

    /// Everything under `top` that is no index.
    fn leaves(&mut self, top: &Manifest) -> Result<Vec<Descriptor>> {
        let mut leaves = Vec::new();
        // An index that is listed again and again is opened once.
        let mut opened = HashSet::new();
        let mut below = vec![(top.children().to_vec(), 0)];
        while let Some((children, depth)) = below.pop() {
            for child in children {
                if !crate::image::media_type::is_index(&child.media_type) {
                    leaves.push(child);
                } else if depth >= MAX_DEPTH {
                    return Err(Error::invalid(format!(
                        "{}: indexes are nested more than {MAX_DEPTH} deep",
                        self.label
                    )));
                } else if opened.insert(child.digest) && self.has(&child.digest)? {
                    below.push((self.fetch(&child)?.children().to_vec(), depth + 1));
                }
                if leaves.len() > crate::image::MAX_NAMES {
                    return Err(Error::invalid(format!(
                        "{}: its index lists more than {} images",
                        self.label,
                        crate::image::MAX_NAMES
                    )));
                }
            }
        }
        Ok(leaves)
    }

    /// Only `chosen`: as the image itself when it is one, else under a smaller index.
    fn just(&mut self, top: Manifest, chosen: Vec<Descriptor>) -> Result<Vec<Manifest>> {
        if let [one] = &chosen[..] {
            return Ok(vec![self.fetch(one)?]);
        }
        if let Shape::One(_) = self.takes.shape {
            return Err(Error::usage(format!(
                "{}: the destination holds one platform of an image, not {}",
                self.label,
                listed(&chosen)
            )));
        }
        let digests: HashSet<Digest> = chosen.iter().map(|entry| entry.digest).collect();
        let about = |entry: &Descriptor| entry.annotation(ATTESTS).and_then(|digest| digest.parse().ok());
        let kept = |entry: &Descriptor| {
            digests.contains(&entry.digest) || about(entry).is_some_and(|of| digests.contains(&of))
        };
        let index = crate::convert::narrowed(&top, &kept, &chosen)?;
        self.watch.say(&format!("{}: a smaller index of {} is made, with a new digest", self.label, listed(&chosen)));
        let mut tree: Vec<Manifest> = index.children().iter().map(|child| self.fetch(child)).collect::<Result<_>>()?;
        tree.push(index);
        Ok(tree)
    }

    /// The index as it is, with only `chosen` below it.
    fn sparse(&mut self, top: Manifest, chosen: &[Descriptor]) -> Result<Vec<Manifest>> {
        let wanted: HashSet<Digest> = chosen.iter().map(|entry| entry.digest).collect();
        let mut tree: Vec<Manifest> = chosen.iter().map(|entry| self.fetch(entry)).collect::<Result<_>>()?;
        // Indexes between the root and what was chosen come along too.
        let nested: Vec<&Descriptor> =
            top.children().iter().filter(|child| crate::image::media_type::is_index(&child.media_type)).collect();
        for between in nested {
            let index = self.fetch(between)?;
            if index.children().iter().any(|child| wanted.contains(&child.digest)) {
                tree.push(index);
            }
        }
        tree.push(top);
        Ok(tree)
    }

    /// An image that is no index, when platforms were asked for, has to be for one of them.
    fn agree(&self, manifest: &Manifest, platforms: &Platforms) -> Result<()> {
        let Platforms::Only(wanted) = platforms else { return Ok(()) };
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

    fn fetch(&mut self, at: &Descriptor) -> Result<Manifest> {
        let bytes = match at.embedded() {
            Some(bytes) => bytes,
            None if at.size > MAX_MANIFEST => {
                return Err(Error::invalid(format!(
                    "manifest {} has {} bytes by its descriptor, more than {MAX_MANIFEST}",
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

/// An image's config, hashed and read; at most as large as a manifest.
pub fn config(store: &dyn Store, at: &Descriptor) -> Result<Config> {
    Config::parse(&document(store, at)?)
}

/// What the image whose manifest is at `at` runs on, by its config; none where that cannot be read.
pub fn platform(store: &dyn Store, at: &Descriptor) -> Option<Platform> {
    let manifest = Manifest::parse(store.manifest(at).ok()?, at).ok()?;
    let platform = config(store, manifest.config()?).ok()?.platform();
    (!platform.os.is_empty()).then_some(platform)
}

/// A small blob as a whole, hashed; at most as large as a manifest.
pub fn document(store: &dyn Store, at: &Descriptor) -> Result<Vec<u8>> {
    if at.size > MAX_MANIFEST {
        return Err(Error::invalid(format!("config {} has {} bytes, more than {MAX_MANIFEST}", at.digest, at.size)));
    }
    let mut bytes = Vec::with_capacity(at.size as usize);
    store.open(at, 0)?.take(at.size + 1).read_to_end(&mut bytes)?;
    let found = crate::image::Hasher::new(at.digest.algorithm()).with(&bytes).finish();
    match found == at.digest {
        true => Ok(bytes),
        false => Err(Error::invalid(format!("blob {} does not match: got {found}", at.digest))),
    }
}

fn counted(n: usize) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") }
}

fn listed(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> = Vec::new();
    for entry in entries {
        let name = entry.platform.as_ref().map_or_else(|| entry.digest.short(), Platform::to_string);
        if !names.contains(&name) && names.len() < 12 {
            names.push(name);
        }
    }
    names.join(", ")
}
