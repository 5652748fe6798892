//! The layers of an image: a chain of parents in `layers.json`.
//!
//! A storage may have several directories, of which each has a part: the record of a layer, its tar-split, its files.

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

/// The drivers that may have the layers of an image, that of the image first. All have the same form.
pub(super) type Places<'d> = [&'d Driver];

/// The records of all layers.
type AllRecords = Vec<Arc<LayerRecords>>;

fn records(places: &Places<'_>) -> Result<AllRecords> {
    let mut all = Vec::with_capacity(2 * places.len());
    for driver in places {
        all.extend(driver.layers()?);
    }
    Ok(all)
}

/// The layers of the image `record`, lowest first. Their diff IDs have to be `diff_ids`, those of the config.
///
/// # Errors
/// - `NotFound`: the record of a layer is missing.
/// - `Invalid`: the records do not fit the config, or form a cycle.
pub(super) fn chain(places: &Places<'_>, record: &ImageRecord, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    let all = records(places)?;
    let (mut stored, mut next): (Vec<&LayerRecord>, Option<Digest>) = (Vec::new(), record.layer);
    while let Some(id) = next {
        if stored.len() == MAX_LAYERS {
            return Err(Error::invalid(format!(
                "its layers are more than the {MAX_LAYERS} allowed, or their parents form a cycle"
            )));
        }
        let layer = find(&all, &id);
        let layer = layer.ok_or_else(|| Error::not_found(format!("the record of layer {} is missing", id.hex())))?;
        if let Some(why) = &layer.damage {
            return Err(Error::invalid(format!("the record of layer {} is damaged: {why}", id.hex())));
        }
        next = layer.parent;
        stored.push(layer);
    }
    if stored.len() != diff_ids.len() {
        return Err(Error::invalid(format!("it has {} layers, its config lists {}", stored.len(), diff_ids.len())));
    }
    stored.into_iter().rev().zip(diff_ids).map(|(record, diff_id)| layer(record, diff_id)).collect()
}

fn find<'r>(all: &'r [Arc<LayerRecords>], id: &Digest) -> Option<&'r LayerRecord> {
    all.iter().find_map(|records| records.get(id))
}

/// The first layer of the image `record`, from the top, that is stored by composefs. Damaged records have none.
pub(super) fn composefs_layer(places: &Places<'_>, record: &ImageRecord) -> Result<Option<Digest>> {
    let all = records(places)?;
    let mut next = record.layer;
    for _ in 0..MAX_LAYERS {
        let Some(layer) = next.and_then(|id| find(&all, &id)) else { break };
        let mut is_composefs = layer.is_composefs;
        for driver in places {
            is_composefs = is_composefs || driver.has_composefs_data(&layer.id)?;
        }
        if is_composefs {
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
pub(super) fn open(places: &Places<'_>, layer: &Layer) -> Result<StoredLayer> {
    let files_path = |driver: &Driver| driver.files_path(&layer.id);
    let (root, files) = first(places, layer, files_path, |driver, path| driver.root().directory(path))?;
    let tar_split_path = |driver: &Driver| driver.tar_split_path(&layer.id);
    let (split_root, tar_split) = first(places, layer, tar_split_path, |driver, path| driver.root().file(path))?;
    Ok(StoredLayer {
        label: format!("layer {} in {}", layer.diff_id, root.root().display(files_path(root))),
        recorded: layer.bytes.map_or(Recorded::Unknown, Recorded::Tar),
        tar_split,
        tar_split_path: split_root.root().display(tar_split_path(split_root)),
        files,
    })
}

/// The first of `places` that has the part of `layer` at `path`.
fn first<'d, T>(
    places: &Places<'d>,
    layer: &Layer,
    path: impl Fn(&Driver) -> String,
    open: impl Fn(&Driver, &str) -> Result<Option<T>>,
) -> Result<(&'d Driver, T)> {
    let mut missing = None;
    for driver in places {
        let path = path(driver);
        match open(driver, &path).map_err(with_owner_hint)? {
            Some(part) => return Ok((*driver, part)),
            None => missing = missing.or_else(|| Some(missing_part(&layer.diff_id, driver.root(), &path))),
        }
    }
    Err(missing.unwrap_or_else(|| Error::failed("a storage driver's directory is missing")))
}

/// Whether `layer` was stored again since its record was read.
pub(super) fn is_replaced(places: &Places<'_>, layer: &Layer) -> Result<bool> {
    let all = records(places)?;
    let now = find(&all, &layer.id);
    Ok(now.is_some_and(|now| now.created != layer.created))
}
