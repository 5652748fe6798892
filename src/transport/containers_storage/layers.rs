//! The layers of an image: a chain of parents in `layers.json`.

use super::driver::{Driver, with_owner_hint};
use super::records::{ImageRecord, LayerRecord, LayerRecords};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::source::rebuilt::{MAX_LAYERS, missing_part};
use crate::tarsplit::{Recorded, StoredLayer};
use std::sync::Arc;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub(super) id: Digest,
    diff_id: Digest,
    /// The recorded size of the tar in bytes.
    bytes: Option<u64>,
    created: String,
}

/// The layers of the image `record`, lowest first. Their diff IDs have to be `diff_ids`, those of the config.
///
/// # Errors
/// - `NotFound`: the record of a layer is missing.
/// - `Invalid`: the records do not fit the config, or form a cycle.
pub(super) fn chain(driver: &Driver, record: &ImageRecord, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    let all = driver.layers()?;
    let (mut stored, mut next): (Vec<&LayerRecord>, Option<Digest>) = (Vec::new(), record.layer);
    while let Some(id) = next {
        if stored.len() == MAX_LAYERS {
            return Err(Error::invalid(format!(
                "its layers are more than the {MAX_LAYERS} allowed, or their parents form a cycle"
            )));
        }
        let layer = find(&all, &id);
        let layer = layer.ok_or_else(|| Error::not_found(format!("the record of layer {} is missing", id.hex())))?;
        next = layer.parent;
        stored.push(layer);
    }
    if stored.len() != diff_ids.len() {
        return Err(Error::invalid(format!("it has {} layers, its config lists {}", stored.len(), diff_ids.len())));
    }
    stored.into_iter().rev().zip(diff_ids).map(|(record, diff_id)| layer(record, diff_id)).collect()
}

fn find<'r>(all: &'r [Arc<LayerRecords>; 2], id: &Digest) -> Option<&'r LayerRecord> {
    all.iter().find_map(|records| records.get(id))
}

/// The first layer of the image `record`, from the top, that is stored by composefs. Damaged records have none.
pub(super) fn composefs_layer(driver: &Driver, record: &ImageRecord) -> Result<Option<Digest>> {
    let all = driver.layers()?;
    let mut next = record.layer;
    for _ in 0..MAX_LAYERS {
        let Some(layer) = next.and_then(|id| find(&all, &id)) else { break };
        if layer.is_composefs || driver.has_composefs_data(&layer.id)? {
            return Ok(Some(layer.id));
        }
        next = layer.parent;
    }
    Ok(None)
}

fn layer(record: &LayerRecord, diff_id: &Digest) -> Result<Layer> {
    let id = record.id.hex();
    if record.is_incomplete {
        return Err(Error::invalid(format!(
            "layer {id} is incomplete: its pull was interrupted; pull the image again"
        )));
    }
    match record.diff_id {
        Some(found) if found != *diff_id => Err(Error::invalid(format!(
            "the record of layer {id} is damaged: expected the diff digest {diff_id}, found {found}"
        ))),
        // Without a diff digest, the config's decides.
        _ => Ok(Layer { id: record.id, diff_id: *diff_id, bytes: record.bytes, created: record.created.clone() }),
    }
}

/// Opens the tar-split and the files of `layer`.
///
/// # Errors
/// - `NotFound`: one of them does not exist.
pub(super) fn open(driver: &Driver, layer: &Layer) -> Result<StoredLayer> {
    let root = driver.root();
    let missing = |path: &str| missing_part(&layer.diff_id, root, path);
    let files_path = driver.files_path(&layer.id);
    let files = root.directory(&files_path).map_err(with_owner_hint)?.ok_or_else(|| missing(&files_path))?;
    let tar_split_path = driver.tar_split_path(&layer.id);
    let tar_split = root.file(&tar_split_path).map_err(with_owner_hint)?.ok_or_else(|| missing(&tar_split_path))?;
    Ok(StoredLayer {
        label: format!("layer {} in {}", layer.diff_id, root.display(files_path)),
        recorded: layer.bytes.map_or(Recorded::Unknown, Recorded::Tar),
        tar_split,
        files,
    })
}

/// Whether `layer` was stored again since its record was read.
pub(super) fn is_replaced(driver: &Driver, layer: &Layer) -> Result<bool> {
    let all = driver.layers()?;
    let now = find(&all, &layer.id);
    Ok(now.is_some_and(|now| now.created != layer.created))
}
