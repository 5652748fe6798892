//! What is to be copied: images with their trees of manifests, platforms chosen, names given.

mod names;
mod select;
mod subset;

use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Digest, MAX_MANIFEST, Manifest, Name, Platform};
use crate::progress::Watch;
use crate::sink::SinkCapabilities;
use crate::source::{Root, Store, ambiguous};
use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

pub use subset::Sparse;

/// Bytes of manifests of all the images of one copy, at most.
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
    /// Layers of a nondistributable type that come along.
    pub carried: Vec<Descriptor>,
}

impl Image {
    pub fn root(&self) -> &Manifest {
        self.tree.last().expect("a tree has a root")
    }

    /// Configs and layers of the whole tree that come along (not yet each once).
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.tree.iter().flat_map(Manifest::blobs).chain(&self.carried)
    }

    /// Layers of a nondistributable type that do not come along.
    pub fn left(&self) -> impl Iterator<Item = &Descriptor> {
        let carried: HashSet<Digest> = self.carried.iter().map(|layer| layer.digest).collect();
        self.tree.iter().flat_map(Manifest::foreign_layers).filter(move |layer| !carried.contains(&layer.digest))
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

/// How to treat layers of a nondistributable type ([`Descriptor::is_foreign`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Foreign {
    /// Those that the source has, or can fetch ([`Store::fetches`]), come along.
    #[default]
    Carry,
    /// None come along.
    Leave,
}

/// What is wanted of the images of a source.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub naming: Naming,
    pub platforms: Platforms,
    pub sparse: Sparse,
    pub foreign: Foreign,
}

/// The images that `roots` are, planned for a sink that `takes` so much.
pub fn images(
    store: &dyn Store,
    roots: Vec<Root>,
    wish: &Wish,
    takes: &SinkCapabilities,
    watch: &dyn Watch,
) -> Result<Vec<Image>> {
    if let Some(error) = ambiguous(&roots) {
        return Err(error);
    }
    let mut planned: Vec<Image> = Vec::new();
    let mut bytes = 0;
    for (names, root) in names::merge(roots) {
        let label = names.first().map_or_else(|| root.descriptor.digest.to_string(), Name::to_string);
        let (tree, read) = select::choose(store, &root.descriptor, wish, takes, watch, &label)?;
        if let Some(index) = tree.last().filter(|top| root.synthesised && !top.children().is_empty()) {
            let platforms = select::listed(index.children());
            let digest = index.digest();
            watch.say(&format!("{label}: {platforms} lie side by side at the source; an index is made, {digest}"));
        }
        bytes += read;
        if bytes > MAX_TREES {
            return Err(Error::invalid(format!(
                "the manifests of these images have together more than {MAX_TREES} bytes; copy fewer of them at once"
            )));
        }
        let carried = carried(store, &tree, wish.foreign)?;
        let (synthesised, source_digest) = (root.synthesised, root.descriptor.digest);
        planned.push(Image { names, tree, synthesised, source_digest, carried });
    }
    names::give(&mut planned, &wish.naming, takes, watch)?;
    sizes_agree(&planned)?;
    Ok(planned)
}

/// The nondistributable layers of `tree` that come along, each once.
fn carried(store: &dyn Store, tree: &[Manifest], foreign: Foreign) -> Result<Vec<Descriptor>> {
    let mut carried: Vec<Descriptor> = Vec::new();
    if foreign == Foreign::Leave {
        return Ok(carried);
    }
    let mut seen = HashSet::new();
    for layer in tree.iter().flat_map(Manifest::foreign_layers).filter(|layer| seen.insert(layer.digest)) {
        if layer.embedded().is_some() || store.fetches(layer) || store.find(&layer.digest)?.is_some() {
            carried.push(layer.clone());
        }
    }
    Ok(carried)
}

/// A blob is moved once, whoever lists it: all have to say the same size.
fn sizes_agree(images: &[Image]) -> Result<()> {
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    let manifests = images.iter().flat_map(|image| &image.tree);
    let listed = manifests.flat_map(|manifest| manifest.config().into_iter().chain(manifest.layers()));
    for blob in listed {
        let size = *sizes.entry(blob.digest).or_insert(blob.size);
        if size != blob.size {
            let digest = blob.digest;
            return Err(Error::invalid(format!("blob {digest} is listed with {size} and with {} bytes", blob.size)));
        }
    }
    Ok(())
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
