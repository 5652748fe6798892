//! Creates the manifest of an image in docker-save's legacy form, from its config and its layer files.

use super::contents::{Contents, Layer, document};
use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Manifest, media_type, synthesised, with_coding};
use crate::tarball::manifest_json::SavedImage;
use crate::tarball::tar::path::shown;

/// A legacy image with its new manifest.
pub(crate) struct LegacyImage {
    pub manifest: Manifest,
    pub config: Vec<u8>,
    /// The layers in the manifest's order, with the names of their files.
    pub layers: Vec<(String, Layer)>,
}

/// Creates the manifest of `saved`. The digest of an uncompressed layer is its diff ID, so the layer is not read.
pub(crate) fn create(contents: &dyn Contents, saved: &SavedImage) -> Result<LegacyImage> {
    let config = document(contents, &saved.config)?;
    let parsed = Config::parse(&config)?;
    let diff_ids = parsed.diff_ids();
    if diff_ids.len() != saved.layers.len() {
        return Err(Error::invalid(format!(
            "the image {} has {} layers in manifest.json and {} in its config {}",
            saved.tags.first().map_or("without a name", |name| name.as_str()),
            saved.layers.len(),
            diff_ids.len(),
            shown(&saved.config)
        )));
    }
    let files = saved.layers.iter().zip(diff_ids);
    let layers: Vec<(String, Layer)> =
        files.map(|(name, diff_id)| Ok((name.clone(), contents.layer(name, diff_id)?))).collect::<Result<_>>()?;
    let described: Vec<Descriptor> = layers
        .iter()
        .map(|(_, layer)| Descriptor::new(with_coding(media_type::OCI_LAYER, layer.coding), layer.digest, layer.size))
        .collect();
    let manifest = synthesised(&config, &described)?;
    Ok(LegacyImage { manifest, config, layers })
}
