//! The reason behind an error, for an image of which a part is missing or wrong: the engine removed it meanwhile, or it
//! is damaged.

use super::known::Blob;
use super::{EngineDirectory, ImageAt, RebuiltStore};
use crate::error::{Error, Kind};

/// A change of an image since its name was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another image has its name.
    Replaced,
    /// Its name or the image does not exist any more.
    Removed,
}

/// Whether an error may mean that the engine changed the image meanwhile.
pub(super) fn is_explained(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Invalid)
}

impl<D: EngineDirectory> RebuiltStore<D> {
    /// The error for `error`, which something of `image` caused. `layer` is the layer that was read, with its label.
    pub(super) fn explained(&self, image: &ImageAt, layer: Option<(&D::Layer, &str)>, error: Error) -> Error {
        if !is_explained(&error) {
            return self.directory().with_hint(error);
        }
        let (directory, engine) = (self.directory(), self.directory().engine());
        let change = || match directory.change_of(image)? {
            Change::Removed => Some(format!("removed from {engine}")),
            Change::Replaced => Some("replaced by another image of the same name".to_owned()),
        };
        let is_other = |(layer, label)| directory.is_replaced(image, layer, label);
        let stored_again = || layer.is_some_and(is_other).then(|| format!("removed from {engine} and stored again"));
        // A name is removed before its layers: after they were looked up, it tells what their absence means.
        let change = change().or_else(stored_again).or_else(change);
        let image = image.label();
        match change {
            Some(change) => Error::not_found(format!(
                "image {image} was {change} while it was read; run the same command again for the image that {engine} \
                 has now"
            )),
            None if error.kind() == Kind::NotFound => Error::invalid(format!("image {image} is damaged: {error}")),
            None => error.at(format!("image {image}")),
        }
    }

    /// The error for `blob` whose bytes have another digest. [`LayerTar`](crate::tarsplit::LayerTar) compares each file of a
    /// layer with its checksum in the tar-split.
    pub(super) fn with_place(&self, blob: &Blob<D::Layer>, error: Error) -> Error {
        let Some(layer) = &blob.layer else { return self.explained(&blob.image, None, error) };
        let stored = match self.directory().layer(&blob.image, &layer.stored) {
            Ok(stored) => stored,
            Err(missing) => return self.explained(&blob.image, None, missing),
        };
        let place = format!(
            "{}: its files have the checksums of its tar-split {}, which is damaged itself",
            stored.label, stored.tar_split_path
        );
        self.explained(&blob.image, None, error.at(place))
    }
}
