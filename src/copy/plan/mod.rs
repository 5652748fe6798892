//! The plan of a copy: images with their trees of manifests, the selected platforms, and the names at the destination.

mod names;
mod platforms;
mod select;
mod subset;

use crate::error::{Error, Kind, Result};
use crate::image::{Attached, Descriptor, Digest, Image, Manifest, Name, Platform};
use crate::progress::Watch;
use crate::sink::{Shape, SinkCapabilities};
use crate::source::{Root, Store, ambiguous};
use std::collections::{HashMap, HashSet};

pub(crate) use names::left_out;
use select::Wanted;
pub use subset::Sparse;

/// The manifests of all images of one copy together.
const MAX_MANIFESTS_BYTES: u64 = 64 << 20;
/// The annotation of an attestation's entry in an index: the digest of the image that it attests (BuildKit).
pub(crate) const ATTESTS: &str = "vnd.docker.reference.digest";

/// The platforms of an image to copy.
#[derive(Debug, Clone, Default)]
pub enum Platforms {
    /// All that the sink can store.
    #[default]
    Default,
    /// All that the index lists.
    All,
    /// The best match for each of these.
    Only(Vec<Platform>),
}

/// The names at the destination.
#[derive(Debug, Clone, Default)]
pub enum Naming {
    /// As at the source, in canonical form where the sink needs it.
    #[default]
    Keep,
    /// These, for the only image.
    Names(Vec<Name>),
}

/// The treatment of layers of a nondistributable type ([`Descriptor::is_foreign`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Foreign {
    /// Copied where the source has them or can download them ([`crate::source::Profile::downloads`]).
    #[default]
    Carry,
    /// Skipped.
    Leave,
}

/// The options that a plan needs.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    pub naming: Naming,
    pub platforms: Platforms,
    pub sparse: Sparse,
    pub foreign: Foreign,
    /// The roots were selected: they are not all that the source has.
    pub is_selection: bool,
}

/// Plans the images of `roots` for a sink with these `capabilities`.
///
/// # Errors
/// - `Usage`: two roots have the same name, or the names do not suit the sink.
/// - `Invalid`: a manifest is malformed, or the manifests are too large.
/// - `NotFound`: a platform or a part of an image is missing.
/// - Those of the store.
pub fn images(
    store: &dyn Store,
    roots: Vec<Root>,
    options: &PlanOptions,
    capabilities: &SinkCapabilities,
    watch: &dyn Watch,
) -> Result<Vec<Image>> {
    if let Some(error) = ambiguous(&roots) {
        return Err(error);
    }
    let keeps_originals = matches!(capabilities.shape, Shape::AsFound | Shape::Whole)
        || matches!(options.sparse, Sparse::Keep | Sparse::Fail);
    let merged = names::merge(roots, keeps_originals);
    let known: HashMap<Digest, &Root> = merged.iter().map(|(_, root)| (root.descriptor.digest, root)).collect();
    let mut planned: Vec<Image> = Vec::new();
    let mut bytes = 0;
    for (names, root) in &merged {
        let label = names.first().map_or_else(|| root.descriptor.digest.to_string(), Name::to_string);
        let descriptor = wanted_form(root, options, capabilities);
        let keeps_original = capabilities.shape == Shape::Whole && options.sparse == Sparse::Auto;
        let wanted = Wanted {
            root: descriptor,
            original: root.original.as_ref().filter(|original| keeps_original && original.digest != descriptor.digest),
        };
        let chosen = select::choose(store, &known, wanted, options, capabilities, watch, &label);
        let chosen = chosen.map_err(|error| named(error, &label))?;
        let select::Chosen { tree, narrowed, original, parts, bytes: read } = chosen;
        if let Some(index) = tree.last().filter(|top| root.synthesised && !top.children().is_empty()) {
            let platforms = platforms::listed(index.children());
            let digest = index.digest();
            watch.say(&format!(
                "{label}: the source has {platforms} as separate images; they get a new index, {digest}"
            ));
        }
        bytes += read;
        if bytes > MAX_MANIFESTS_BYTES {
            return Err(Error::invalid(format!(
                "the manifests of these images have more than {MAX_MANIFESTS_BYTES} bytes together; copy fewer images at once"
            )));
        }
        let foreign_layers = foreign_layers(store, &tree, options.foreign)?;
        let (synthesised, lost_manifest, source_digest) = (root.synthesised, root.lost_manifest, descriptor.digest);
        planned.push(Image {
            names: names.clone(),
            tree,
            synthesised,
            lost_manifest,
            source_digest,
            foreign_layers,
            narrowed,
            original,
            attached: parts.into_iter().map(|part| Attached::new(part, None)).collect(),
            is_current: false,
        });
    }
    names::give(&mut planned, options, capabilities, watch)?;
    sizes_agree(&planned)?;
    Ok(planned)
}

/// `error` about a part of an image, with the name of the image.
fn named(error: Error, label: &str) -> Error {
    match error.kind() {
        Kind::NotFound | Kind::Invalid => error.at_once(label),
        _ => error,
    }
}

/// The root's own descriptor, or that of the index that it was narrowed from, where the copy needs the index itself: for
/// a sink that keeps indexes, and to find that parts of it are missing where that is an error.
fn wanted_form<'r>(root: &'r Root, options: &PlanOptions, capabilities: &SinkCapabilities) -> &'r Descriptor {
    let needs_index = match (options.sparse, &capabilities.shape) {
        (Sparse::Auto, Shape::AsFound) | (Sparse::Fail, _) => true,
        (Sparse::Auto, Shape::Whole) => matches!(options.platforms, Platforms::All),
        (Sparse::Keep, shape) => !matches!(shape, Shape::One(_)),
        (Sparse::Auto | Sparse::Narrow, _) => false,
    };
    root.original.as_ref().filter(|_| needs_index).unwrap_or(&root.descriptor)
}

/// The nondistributable layers of `tree` that are copied, each once.
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

/// Checks that all manifests list the same size for a blob, since it is transferred once.
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
