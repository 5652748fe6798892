//! Measuring the layers of an image.

use super::known::Layer;
use super::{EngineDirectory, ImageAt};
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use crate::parallel;
use crate::tarsplit::MeasuredLayers;
use std::num::NonZero;
use std::thread::available_parallelism;

/// The maximum number of tar-splits that are measured at the same time.
const MAX_MEASURING: usize = 4;

/// Opens and measures `layers`, several at the same time: the text of their tar-splits has to be decompressed.
pub(super) fn measured<D: EngineDirectory>(
    directory: &D,
    sizes: &MeasuredLayers,
    image: &ImageAt,
    layers: Vec<(Digest, D::Layer)>,
) -> Result<Vec<Layer<D::Layer>>> {
    let threads = available_parallelism().map_or(1, NonZero::get).min(MAX_MEASURING);
    let measure = |(diff_id, stored): &(Digest, D::Layer)| {
        let stored = directory.layer(image, stored)?;
        let empty = Error::invalid(format!("{}: its tar-split {} is empty", stored.label, stored.tar_split_path));
        let measured = sizes.of(stored)?;
        match measured.bytes == 0 && *diff_id != Hasher::new(diff_id.algorithm()).finish() {
            true => Err(empty),
            false => Ok(measured),
        }
    };
    let measured = parallel::try_map(&layers, threads, measure)?;
    let layer = |((diff_id, stored), measured)| Layer { diff_id, stored, measured };
    Ok(layers.into_iter().zip(measured).map(layer).collect())
}
