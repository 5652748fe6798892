//! The manifest of an image of the old form, which has none: made of its config and its layer files.

use super::contents::{Contents, Layer, document};
use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Manifest, media_type, with_coding};
use crate::tarball::manifest_json::Saved;
use crate::tarball::tar::path::shown;

/// An image that was given a manifest here.
pub(crate) struct Made {
    pub manifest: Manifest,
    pub config: Vec<u8>,
    /// The layers in the manifest's order, with the names of their files.
    pub layers: Vec<(String, Layer)>,
}

/// Makes the manifest of `saved`. Layers that lie there unpacked are their `diff_id`s and are not read for it.
pub(crate) fn image(contents: &dyn Contents, saved: &Saved) -> Result<Made> {
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
    let manifest = Manifest::synthesise(&Descriptor::of(media_type::OCI_CONFIG, &config), &described);
    Ok(Made { manifest, config, layers })
}
