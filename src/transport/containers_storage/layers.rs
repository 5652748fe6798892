//! The layers of an image: a chain of parents in `layers.json`.

use super::driver::{Driver, with_owner_hint};
use super::records::{ImageRecord, LayerRecord};
use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use crate::tarsplit::{Recorded, StoredLayer};

/// The maximum number of layers of an image.
pub(super) const MAX_LAYERS: usize = 256;

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
/// - `Failed`: a layer is stored by composefs.
pub(super) fn chain(driver: &Driver, record: &ImageRecord, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    let all = driver.layers()?;
    let find = |id: &Digest| all.iter().find_map(|records| records.get(id));
    let (mut stored, mut next): (Vec<&LayerRecord>, Option<Digest>) = (Vec::new(), record.layer);
    while let Some(id) = next {
        if stored.len() == MAX_LAYERS {
            return Err(Error::invalid(format!(
                "its layers are more than the {MAX_LAYERS} allowed, or their parents form a cycle"
            )));
        }
        let layer = find(&id);
        let layer = layer.ok_or_else(|| Error::not_found(format!("the record of layer {} is missing", id.hex())))?;
        next = layer.parent;
        stored.push(layer);
    }
    if stored.len() != diff_ids.len() {
        return Err(Error::invalid(format!("it has {} layers, its config lists {}", stored.len(), diff_ids.len())));
    }
    stored.into_iter().rev().zip(diff_ids).map(|(record, diff_id)| layer(record, diff_id)).collect()
}

fn layer(record: &LayerRecord, diff_id: &Digest) -> Result<Layer> {
    let id = record.id.hex();
    if record.is_composefs {
        return Err(composefs(&id));
    }
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
/// - `Failed`: the layer is stored by composefs.
pub(super) fn open(driver: &Driver, layer: &Layer) -> Result<StoredLayer> {
    let root = driver.root();
    if let Some(path) = driver.composefs_path(&layer.id) {
        match root.directory(path) {
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Denied => return Err(with_owner_hint(error)),
            _ => return Err(composefs(&layer.id.hex())),
        }
    }
    let missing =
        |path: &str| Error::not_found(format!("a part of layer {} is missing: {}", layer.diff_id, root.display(path)));
    let files_path = driver.files_path(&layer.id);
    let files = root.directory(&files_path).map_err(with_owner_hint)?.ok_or_else(|| missing(&files_path))?;
    let tar_split_path = driver.tar_split_path(&layer.id);
    let tar_split = root.file(&tar_split_path).map_err(with_owner_hint)?.ok_or_else(|| missing(&tar_split_path))?;
    Ok(StoredLayer {
        label: format!("layer {} in {}", layer.diff_id, root.display(files_path)),
        // Some layers that were pulled in part have no size; their digest decides.
        recorded: Recorded::Tar(layer.bytes.unwrap_or(u64::MAX)),
        tar_split,
        files,
    })
}

/// Whether `layer` was stored again since its record was read.
pub(super) fn is_replaced(driver: &Driver, layer: &Layer) -> Result<bool> {
    let all = driver.layers()?;
    let now = all.iter().find_map(|records| records.get(&layer.id));
    Ok(now.is_some_and(|now| now.created != layer.created))
}

fn composefs(id: &str) -> Error {
    Error::failed(format!(
        "layer {id} is stored by composefs, whose files imgmv does not read; save the image there with podman save"
    ))
}
