//! Manifests of images that are stored without one: docker-save's old form, and engines' own directories.

use super::{Coding, Config, Descriptor, Manifest, media_type};
use crate::error::{Error, Result};

/// Creates the manifest of the image with the config `config` and the layers `layers`, lowest first. The same config and
/// layers give the same bytes, which a test freezes.
///
/// # Errors
/// - `Invalid`: `config` is not an image config, it has another number of layers, or the digest of an uncompressed layer
///   is not its diff ID.
pub fn synthesised(config: &[u8], layers: &[Descriptor]) -> Result<Manifest> {
    let at = Descriptor::of(media_type::OCI_CONFIG, config);
    let parsed = Config::parse(config)?;
    let diff_ids = parsed.diff_ids();
    if diff_ids.len() != layers.len() {
        return Err(Error::invalid(format!(
            "config {} has {} layers, expected {}",
            at.digest,
            diff_ids.len(),
            layers.len()
        )));
    }
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        if layer.coding() == Some(Coding::Raw) && layer.digest != *diff_id {
            return Err(Error::invalid(format!(
                "the uncompressed layer {} is not the layer {diff_id} of the config {}",
                layer.digest, at.digest
            )));
        }
    }
    Ok(Manifest::synthesise(&at, layers))
}

/// The descriptor of an uncompressed layer, whose digest is its diff ID; `bytes` is its size.
pub fn uncompressed_layer(diff_id: &super::Digest, bytes: u64) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, *diff_id, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn a_manifest_is_made_of_the_configs_own_layers_only() {
        let layers = [Digest::of(b"a"), Digest::of(b"b")];
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#, layers[0], layers[1]);
        let described = layers.map(|diff_id| uncompressed_layer(&diff_id, 1));
        let manifest = synthesised(config.as_bytes(), &described).unwrap();
        assert_eq!(manifest.config().unwrap().digest, Digest::of(config.as_bytes()));
        assert_eq!(manifest.layers(), described);
        let [first, second] = described;
        for wrong in [vec![first.clone()], vec![second.clone(), first.clone()]] {
            assert_eq!(synthesised(config.as_bytes(), &wrong).unwrap_err().kind(), crate::Kind::Invalid);
        }
        let compressed = Descriptor { media_type: media_type::OCI_LAYER_GZIP.to_owned(), ..second };
        assert!(
            synthesised(config.as_bytes(), &[first, Descriptor { digest: Digest::of(b"c"), ..compressed }]).is_ok()
        );
    }
}
