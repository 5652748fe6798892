//! What is to be copied: images with their trees of manifests, platforms chosen, names given.

mod names;
mod platforms;
mod select;
mod subset;

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Image, Manifest, Name, Platform};
use crate::progress::Watch;
use crate::sink::SinkCapabilities;
use crate::source::{Root, Store, ambiguous};
use std::collections::{HashMap, HashSet};

pub use subset::Sparse;

/// Bytes of manifests of all the images of one copy, at most.
const MAX_TREES: u64 = 64 << 20;
/// On an attestation's entry in an index: the digest of what it attests (BuildKit).
pub(crate) const ATTESTS: &str = "vnd.docker.reference.digest";

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
    /// Those that the source has, or can fetch ([`crate::source::Profile::downloads`]), come along.
    #[default]
    Carry,
    /// None come along.
    Leave,
}

/// What is wanted of the images of a source.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    pub naming: Naming,
    pub platforms: Platforms,
    pub sparse: Sparse,
    pub foreign: Foreign,
}

/// The images that `roots` are, planned for a sink that `takes` so much.
pub fn images(
    store: &dyn Store,
    roots: Vec<Root>,
    wish: &PlanOptions,
    capabilities: &SinkCapabilities,
    watch: &dyn Watch,
) -> Result<Vec<Image>> {
    if let Some(error) = ambiguous(&roots) {
        return Err(error);
    }
    let merged = names::merge(roots);
    let known: HashMap<Digest, &Root> = merged.iter().map(|(_, root)| (root.descriptor.digest, root)).collect();
    let mut planned: Vec<Image> = Vec::new();
    let mut bytes = 0;
    for (names, root) in &merged {
        let label = names.first().map_or_else(|| root.descriptor.digest.to_string(), Name::to_string);
        let (tree, read) = select::choose(store, &known, &root.descriptor, wish, capabilities, watch, &label)?;
        if let Some(index) = tree.last().filter(|top| root.synthesised && !top.children().is_empty()) {
            let platforms = platforms::listed(index.children());
            let digest = index.digest();
            watch.say(&format!("{label}: {platforms} lie side by side at the source; an index is made, {digest}"));
        }
        bytes += read;
        if bytes > MAX_TREES {
            return Err(Error::invalid(format!(
                "the manifests of these images have together more than {MAX_TREES} bytes; copy fewer of them at once"
            )));
        }
        let foreign_layers = foreign_layers(store, &tree, wish.foreign)?;
        let (synthesised, source_digest) = (root.synthesised, root.descriptor.digest);
        planned.push(Image { names: names.clone(), tree, synthesised, source_digest, foreign_layers });
    }
    names::give(&mut planned, &wish.naming, capabilities, watch)?;
    sizes_agree(&planned)?;
    Ok(planned)
}

/// The nondistributable layers of `tree` that come along, each once.
fn foreign_layers(store: &dyn Store, tree: &[Manifest], foreign: Foreign) -> Result<Vec<Descriptor>> {
    let mut foreign_layers: Vec<Descriptor> = Vec::new();
    if foreign == Foreign::Leave {
        return Ok(foreign_layers);
    }
    let downloads = store.profile().downloads;
    let mut seen = HashSet::new();
    for layer in tree.iter().flat_map(Manifest::foreign_layers).filter(|layer| seen.insert(layer.digest)) {
        if layer.embedded().is_some() || downloads(layer) || store.find(&layer.digest)?.is_some() {
            foreign_layers.push(layer.clone());
        }
    }
    Ok(foreign_layers)
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
