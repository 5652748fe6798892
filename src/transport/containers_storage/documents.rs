//! The manifests and the config of an image.

use super::driver::{Driver, with_owner_hint};
use super::records::ImageRecord;
use crate::error::{Error, Kind, Result};
use crate::image::{Config, Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, json_tree};
use serde_json::Value;

/// The documents of an image.
pub(super) struct Documents {
    pub config: Vec<u8>,
    pub diff_ids: Vec<Digest>,
    /// A stored manifest of the layers as they are: its layers are the diff IDs.
    pub manifest: Option<Manifest>,
    /// Without such a manifest: the one that is stored.
    pub lost_manifest: Option<Digest>,
    /// A manifest that is damaged.
    pub damaged: Option<Error>,
}

/// A stored manifest of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// The one that was stored last.
    Last,
    Of(Digest),
}

/// Reads the documents of the image `record`. Only `selected_by` is kept, where it is given.
///
/// # Errors
/// - `NotFound`: the config is missing.
/// - `Invalid`: the config is damaged, or no manifest tells which one it is.
pub(super) fn read(driver: &Driver, record: &ImageRecord, selected_by: Option<Digest>) -> Result<Documents> {
    let (mut config, mut last, mut damaged) = (None, None, None);
    for key in keys(record, selected_by) {
        let manifest = match manifest(driver, record, key) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => continue,
            Err(error) if error.kind() == Kind::Invalid => {
                damaged.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        // An index of which this image was pulled is stored too.
        let Some(at) = manifest.config() else { continue };
        last.get_or_insert(manifest.digest());
        let (digest, (bytes, diff_ids)) = match &config {
            Some(known) => known,
            None => config.insert((at.digest, self::config(driver, &record.id, &at.digest)?)),
        };
        let is_same = at.digest == *digest && at.size == bytes.len() as u64;
        let is_uncompressed = manifest.layers().iter().map(|layer| &layer.digest).eq(diff_ids);
        let is_selected = selected_by.is_none_or(|digest| digest == manifest.digest());
        if is_same && is_uncompressed && is_selected {
            let (config, diff_ids) = (bytes.clone(), diff_ids.clone());
            return Ok(Documents { config, diff_ids, manifest: Some(manifest), lost_manifest: None, damaged: None });
        }
    }
    let (config, diff_ids) = match config {
        Some((_, config)) => config,
        // The ID of most images is the digest of their config.
        None => self::config(driver, &record.id, &record.id).map_err(|error| damaged.clone().unwrap_or(error))?,
    };
    let lost_manifest = selected_by.or(record.digest).or(last);
    Ok(Documents { config, diff_ids, manifest: None, lost_manifest, damaged })
}

/// The manifests to look at, the best first.
fn keys(record: &ImageRecord, selected_by: Option<Digest>) -> Vec<Key> {
    let mut keys: Vec<Key> = selected_by.into_iter().chain(record.digest).map(Key::Of).collect();
    keys.push(Key::Last);
    keys.extend(record.manifests.iter().copied().map(Key::Of));
    let mut seen = Vec::with_capacity(keys.len());
    keys.retain(|key| {
        !seen.contains(key) && {
            seen.push(*key);
            true
        }
    });
    keys
}

fn manifest(driver: &Driver, record: &ImageRecord, key: Key) -> Result<Option<Manifest>> {
    let path = match key {
        Key::Last => driver.document_path(&record.id, "manifest"),
        Key::Of(digest) => driver.document_path(&record.id, &format!("manifest-{digest}")),
    };
    let Some(bytes) = driver.root().read(&path, MAX_MANIFEST_BYTES).map_err(with_owner_hint)? else { return Ok(None) };
    let manifest = match key {
        Key::Last => Manifest::from_bytes(bytes, ""),
        Key::Of(digest) => {
            let size = bytes.len() as u64;
            Manifest::parse(bytes, &Descriptor::new("", digest, size))
        }
    };
    manifest.map(Some).map_err(|error| error.at(driver.root().display(path)))
}

/// Reads the config `digest` of the image `id`, and its diff IDs.
fn config(driver: &Driver, id: &Digest, digest: &Digest) -> Result<(Vec<u8>, Vec<Digest>)> {
    let path = driver.document_path(id, &digest.to_string());
    let shown = driver.root().display(&path);
    let bytes = driver.root().read(&path, MAX_MANIFEST_BYTES).map_err(with_owner_hint)?;
    let bytes = bytes.ok_or_else(|| Error::not_found(format!("the config {digest} is missing: {shown}")))?;
    let found = Hasher::new(digest.algorithm()).with(&bytes).finish();
    if found != *digest {
        return Err(Error::invalid(format!("the config {shown} is damaged: its digest is {found}")));
    }
    let diff_ids = Config::parse(&bytes)?.diff_ids().to_vec();
    Ok((bytes, diff_ids))
}

/// The history in the config of an image whose ID is the digest of its config.
pub(super) fn history(driver: &Driver, id: &Digest) -> Option<Vec<Value>> {
    let (config, _) = config(driver, id, id).ok()?;
    match json_tree(&config).ok()?.get_mut("history")?.take() {
        Value::Array(history) => Some(history),
        _ => None,
    }
}
