//! `imagedb`: the configs of images.

use super::driver::{Driver, config_path};
use super::names::Names;
use crate::error::{Error, Result};
use crate::image::{Config, Digest, MAX_MANIFEST_BYTES};
use crate::source::rebuilt::MAX_LAYERS;
use std::collections::HashSet;

/// The maximum number of images in one store.
const MAX_IMAGES: usize = 100_000;
/// A digest.
const MAX_PARENT_BYTES: u64 = 200;
const CONTENT: &str = "imagedb/content/sha256";

/// Reads the config of the image `id`, and its diff IDs.
///
/// # Errors
/// - `NotFound`: the store does not have the image.
/// - `Invalid`: the config is damaged, or has more than [`MAX_LAYERS`] layers.
pub(super) fn config(driver: &Driver, id: &Digest) -> Result<(Vec<u8>, Vec<Digest>)> {
    let path = config_path(id);
    let shown = driver.display(&path);
    let bytes = driver.read(&path, MAX_MANIFEST_BYTES)?;
    let bytes = bytes.ok_or_else(|| Error::not_found(format!("the config of image {id} is missing: {shown}")))?;
    let found = Digest::of(&bytes);
    if found != *id {
        return Err(Error::invalid(format!("the config {shown} is damaged: its digest is {found}")));
    }
    let diff_ids = Config::parse(&bytes)?.diff_ids().to_vec();
    match diff_ids.len() {
        layers if layers <= MAX_LAYERS => Ok((bytes, diff_ids)),
        layers => Err(Error::invalid(format!("image {id} has {layers} layers; at most {MAX_LAYERS} are allowed"))),
    }
}

/// The IDs of all images, sorted.
pub(super) fn ids(driver: &Driver) -> Result<Vec<Digest>> {
    let Some(content) = driver.root().directory(driver.path(CONTENT)).map_err(super::data_root::with_root_hint)? else {
        return Ok(Vec::new());
    };
    let id = |name: Vec<u8>| format!("sha256:{}", String::from_utf8_lossy(&name)).parse().ok();
    Ok(content.names(MAX_IMAGES)?.into_iter().filter_map(id).collect())
}

/// The images without a tag, as docker lists them: without those that are only a step of another image's build.
pub(super) fn untagged(driver: &Driver, names: &Names) -> Result<Vec<Digest>> {
    let tagged: HashSet<&Digest> = names.ids.values().collect();
    let all = ids(driver)?;
    let mut parents = HashSet::new();
    for id in &all {
        let path = format!("imagedb/metadata/sha256/{}/parent", id.hex());
        // A damaged entry hides nothing.
        let parent = driver.read(&path, MAX_PARENT_BYTES).unwrap_or(None);
        parents.extend(parent.and_then(|text| String::from_utf8_lossy(&text).trim().parse::<Digest>().ok()));
    }
    Ok(all.into_iter().filter(|id| !tagged.contains(id) && !parents.contains(id)).collect())
}
