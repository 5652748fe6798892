//! A layer as an engine's own directory has it, and the sizes of layers that were measured.

use super::{LayerTar, Measured, Recorded, measure};
use crate::disk::rooted::{FileStamp, Rooted};
use crate::error::{Error, Result};
use crate::image::Digest;
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// The maximum number of sizes that are kept. A server that runs for years sees more layers than its store has.
const MAX_SIZES: usize = 100_000;

/// The parts of a layer on the disk, open.
pub struct StoredLayer {
    /// The subject of messages about the layer: `layer sha256:… in DIR`.
    pub label: String,
    /// The size that the store recorded.
    pub recorded: Recorded,
    /// The tar-split.
    pub tar_split: File,
    /// Its path, for messages.
    pub tar_split_path: String,
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

/// The sizes of layers that were measured, by the files of their tar-splits: the same layer may be stored twice, and one
/// of both be damaged. A store that is opened again needs not read every tar-split again.
#[derive(Debug, Clone, Default)]
pub struct MeasuredLayers(Arc<Mutex<HashMap<(FileStamp, Recorded), Measured>>>);

impl MeasuredLayers {
    /// The size of the layer `stored`, whose tar-split is read unless it was measured before.
    ///
    /// # Errors
    /// Those of [`measure`].
    pub fn of(&self, stored: StoredLayer) -> Result<Measured> {
        let sizes = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = stored.tar_split.metadata();
        let stamp = FileStamp::of(&metadata.map_err(|error| Error::reading(&stored.label, error))?);
        let key = (stamp, stored.recorded);
        if let Some(measured) = sizes().get(&key) {
            return Ok(*measured);
        }
        let measured = measure(stored.tar_split, stored.recorded, &stored.label)?;
        let mut sizes = sizes();
        if sizes.len() >= MAX_SIZES {
            sizes.clear();
        }
        sizes.insert(key, measured);
        Ok(measured)
    }
}
