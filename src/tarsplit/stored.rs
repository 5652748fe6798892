//! A layer as an engine's own directory has it, and the sizes of layers that were measured.

use super::{LayerTar, Measured, Recorded, measure};
use crate::disk::rooted::Rooted;
use crate::error::Result;
use crate::image::Digest;
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// The parts of a layer on the disk, open.
pub struct StoredLayer {
    /// The subject of messages about the layer: `layer sha256:… in DIR`.
    pub label: String,
    /// The size that the store recorded.
    pub recorded: Recorded,
    /// The tar-split.
    pub tar_split: File,
    /// The directory of the layer's files.
    pub files: Rooted,
}

impl StoredLayer {
    /// Reads the layer's tar from its start. `measured` is its answer of [`MeasuredLayers::of`].
    ///
    /// # Errors
    /// Those of [`LayerTar::new`].
    pub fn tar(self, measured: &Measured, diff_id: Digest) -> Result<LayerTar<'static>> {
        let StoredLayer { label, tar_split, files, .. } = self;
        LayerTar::new(tar_split, measured, diff_id, label, move |name| files.file(name))
    }
}

/// The sizes of layers that were measured. A store that is opened again needs not read every tar-split again.
#[derive(Debug, Clone, Default)]
pub struct MeasuredLayers(Arc<Mutex<HashMap<Digest, Measured>>>);

impl MeasuredLayers {
    /// The size of the layer `diff_id`, which `open` opens unless it was measured before.
    ///
    /// # Errors
    /// Those of `open` and of [`measure`].
    pub fn of(&self, diff_id: Digest, open: impl FnOnce() -> Result<StoredLayer>) -> Result<Measured> {
        let sizes = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(measured) = sizes().get(&diff_id) {
            return Ok(*measured);
        }
        let stored = open()?;
        let measured = measure(stored.tar_split, stored.recorded, &stored.label)?;
        sizes().insert(diff_id, measured);
        Ok(measured)
    }
}
