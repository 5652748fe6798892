//! The comparison of two images: their platforms, layers and configs, and the files in their layers.
//!
//! Layers are the same if their digests are. Layers with one diff ID have the same files: another tool compressed them
//! in another way, so their bytes have to be moved, but their files need no comparison.

mod config;
mod file_table;
pub mod files;
mod layers;
mod platforms;

use crate::Result;
use crate::cli::context::CliRun;
use crate::image::{Digest, Image};
use crate::source::Store;
pub use config::ConfigDifference;
pub use layers::LayerEntry;

use file_table::Budget;
use files::FileDifferences;
use layers::LayerDifferences;
use platforms::PlatformImage;
use serde::Serialize;
use std::collections::HashMap;

/// An image that is compared, and its store.
pub struct Side<'s> {
    pub image: &'s Image,
    pub store: &'s dyn Store,
}

/// The differences of two images.
#[derive(Serialize)]
pub struct Comparison {
    /// The blobs that B has and A does not have.
    pub blobs_to_move: usize,
    /// The size of these blobs in bytes.
    pub bytes_to_move: u64,
    /// The platforms that only B has.
    pub new_platforms: Vec<String>,
    /// The platforms that only A has.
    pub gone_platforms: Vec<String>,
    /// One for each platform of both images.
    pub images: Vec<PlatformComparison>,
}

/// The differences of the images of one platform.
#[derive(Serialize)]
pub struct PlatformComparison {
    pub platform: Option<String>,
    /// The digests of the manifests.
    pub a: Digest,
    pub b: Digest,
    pub layers: LayerDifferences,
    pub config: Vec<ConfigDifference>,
    /// Null without `--files`.
    pub files: Option<FileDifferences>,
}

impl Comparison {
    /// Compares `a` with `b`; also their files if `with_files`.
    ///
    /// # Errors
    /// - `NotFound`, `Invalid`: a config or a layer is missing or damaged.
    /// - Those of the stores.
    pub fn new(a: &Side<'_>, b: &Side<'_>, with_files: bool, run: &CliRun) -> Result<Comparison> {
        let (of_a, of_b) = (platforms::images(a)?, platforms::images(b)?);
        let pairs = platforms::pairs(&of_a, &of_b);
        let names = |images: &[PlatformImage<'_>], paired: &dyn Fn(usize) -> bool| -> Vec<String> {
            let alone = images.iter().enumerate().filter(|(at, _)| !paired(*at));
            alone.map(|(_, image)| image.name().unwrap_or_else(|| image.manifest.digest().to_string())).collect()
        };
        let gone_platforms = names(&of_a, &|at| pairs.iter().any(|(own, _)| *own == at));
        let new_platforms = names(&of_b, &|at| pairs.iter().any(|(_, own)| *own == at));
        let (mut images, mut budget) = (Vec::new(), Budget::default());
        for (at_a, at_b) in pairs {
            let (image_a, image_b) = (&of_a[at_a], &of_b[at_b]);
            let files = match with_files && image_a.manifest.digest() != image_b.manifest.digest() {
                true => Some(files::differences((a.store, image_a), (b.store, image_b), &mut budget, run)?),
                false => with_files.then(FileDifferences::default),
            };
            images.push(PlatformComparison {
                platform: image_b.name().or_else(|| image_a.name()),
                a: image_a.manifest.digest(),
                b: image_b.manifest.digest(),
                layers: layers::differences(image_a, image_b),
                config: config::differences(&image_a.config, &image_b.config),
                files,
            });
        }
        let (blobs_to_move, bytes_to_move) = to_move(a.image, b.image);
        Ok(Comparison { blobs_to_move, bytes_to_move, new_platforms, gone_platforms, images })
    }

    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        let differs = |image: &PlatformComparison| {
            image.a != image.b
                && (image.layers.differ()
                    || !image.config.is_empty()
                    || image.files.as_ref().is_some_and(|files| !files.0.is_empty()))
        };
        !self.new_platforms.is_empty() || !self.gone_platforms.is_empty() || self.images.iter().any(differs)
    }
}

/// Number and size of the configs and layers that `b` has and `a` does not have.
fn to_move(a: &Image, b: &Image) -> (usize, u64) {
    let listed = |image: &Image| -> HashMap<Digest, u64> {
        let blobs = image.tree.iter().flat_map(|manifest| manifest.config().into_iter().chain(manifest.layers()));
        blobs.map(|blob| (blob.digest, blob.size)).collect()
    };
    let (of_a, mut of_b) = (listed(a), listed(b));
    of_b.retain(|digest, _| !of_a.contains_key(digest));
    (of_b.len(), of_b.values().sum())
}
