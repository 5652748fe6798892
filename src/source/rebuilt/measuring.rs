//! Measuring the layers of an image.

use super::known::Layer;
use super::{EngineDirectory, ImageAt};
use crate::error::Result;
use crate::image::Digest;
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
    let measure = |(_, stored): &(Digest, D::Layer)| directory.layer(image, stored).and_then(|stored| sizes.of(stored));
    let measured = parallel::try_map(&layers, threads, measure)?;
    let layer = |((diff_id, stored), measured)| Layer { diff_id, stored, measured };
    Ok(layers.into_iter().zip(measured).map(layer).collect())
}
