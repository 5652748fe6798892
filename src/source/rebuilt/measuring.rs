//! Measuring the layers of an image.

use super::known::Layer;
use super::{EngineDirectory, ImageAt};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::tarsplit::{Measured, MeasuredLayers};
use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

/// The maximum number of tar-splits that are measured at the same time.
const MAX_MEASURING: usize = 4;

/// Opens and measures `layers`, several at the same time: the text of their tar-splits has to be decompressed.
pub(super) fn measured<D: EngineDirectory>(
    directory: &D,
    sizes: &MeasuredLayers,
    image: &ImageAt,
    layers: Vec<(Digest, D::Layer)>,
) -> Result<Vec<Layer<D::Layer>>> {
    let threads = available_parallelism().map_or(1, NonZero::get).min(MAX_MEASURING).min(layers.len());
    let next = AtomicUsize::new(0);
    let measured: Vec<OnceLock<Result<Measured>>> = layers.iter().map(|_| OnceLock::new()).collect();
    let measure = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(slot), Some((_, stored))) = (measured.get(at), layers.get(at)) else { break };
            let done = directory.layer(image, stored).and_then(|stored| sizes.of(stored));
            slot.get_or_init(|| done);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread, this one measures all.
            let _ = thread::Builder::new().spawn_scoped(scope, measure);
        }
        measure();
    });
    let layer = |((diff_id, stored), slot): ((Digest, D::Layer), OnceLock<Result<Measured>>)| {
        let measured = slot.into_inner().unwrap_or_else(|| Err(Error::failed("a thread panicked")))?;
        Ok(Layer { diff_id, stored, measured })
    };
    layers.into_iter().zip(measured).map(layer).collect()
}
