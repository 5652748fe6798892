//! Images in the directory of an engine that extracts layers and does not store them: docker's, podman's.
//!
//! A transport implements [`EngineDirectory`] for the files of its engine. [`RebuiltStore`] is the store over it: it
//! selects images, makes the manifests that are missing, and rebuilds each layer while it is read
//! ([`crate::tarsplit`]).
//!
//! Engines write layer, config and name in this order, and remove them in the opposite order. So names are read first,
//! then configs, then layers. Where something is missing or wrong, [`EngineDirectory::change_of`] reads the names
//! again: they tell whether the image was removed meanwhile or is damaged.

mod contested;
mod explanation;
mod form;
mod id_prefix;
mod known;
mod measuring;
mod select;
mod store;

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, Reference, media_type};
use crate::progress::Watch;
use crate::source::Root;
use crate::tarsplit::StoredLayer;

pub use explanation::Change;
pub(crate) use form::{Form, MAX_LAYERS, missing_part, some_reasons, with_hint};
pub(crate) use id_prefix::IdPrefix;
pub use store::RebuiltStore;

/// An image in one of the directory's parts, and the name by which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAt {
    /// The position of the part that has it: of the engine's storage driver. The one in use is the first.
    pub driver: usize,
    /// The ID by which the engine knows it.
    pub id: Digest,
    /// Its name; `None` for an image that was found by another way.
    pub name: Option<Name>,
    /// The manifest by whose digest it was selected.
    pub selected_by: Option<Digest>,
}

impl ImageAt {
    /// The image `id` of the part `driver`, under `name`.
    pub fn new(driver: usize, id: Digest, name: Option<Name>) -> ImageAt {
        ImageAt { driver, id, name, selected_by: None }
    }

    /// The name, else the ID.
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.to_string(), Name::to_string)
    }

    /// The image as a root whose manifest is not made yet: its descriptor has the ID.
    fn provisional(&self) -> Root {
        let descriptor = Descriptor::new(media_type::OCI_CONFIG, self.id, 0);
        Root { synthesised: true, ..Root::new(self.name.clone(), descriptor) }
    }
}

/// The parts of an image in an engine's directory.
pub struct Contents<L> {
    /// The config, which was hashed.
    pub config: Vec<u8>,
    /// Each layer with its diff ID, lowest first.
    pub layers: Vec<(Digest, L)>,
    /// A stored manifest of which every blob can be read: its layers are not compressed.
    pub manifest: Option<Manifest>,
    /// The manifest that the engine recorded, without one that can be used.
    pub lost_manifest: Option<Digest>,
}

/// The directory of an engine. Everything in it is untrusted.
pub trait EngineDirectory: Send + Sync {
    /// A layer of an image, before it is opened. Two of the same driver are equal if they are in the same place.
    type Layer: Clone + Eq + Send + Sync;

    /// The engine in messages: `docker`.
    fn engine(&self) -> &'static str;

    /// The directory in messages: `docker's directory /var/lib/docker`.
    fn label(&self) -> &str;

    /// The name of the storage driver that has `image`.
    fn driver_name(&self, image: &ImageAt) -> &'static str;

    /// Where messages go.
    fn watch(&self) -> &dyn Watch;

    /// The error message for a directory without an image.
    fn empty_message(&self) -> String;

    /// The images that have names, by each name.
    ///
    /// # Errors
    /// - `Invalid`: the records are damaged.
    fn named(&self) -> Result<Vec<ImageAt>>;

    /// The sentence about records of names that are damaged and passed over by [`EngineDirectory::named`].
    fn names_damage(&self) -> Option<String> {
        None
    }

    /// The images without a name that the engine lists.
    ///
    /// # Errors
    /// As [`EngineDirectory::named`].
    fn unnamed(&self) -> Result<Vec<ImageAt>>;

    /// The images as the engine lists them: those with names by each name, then those without.
    ///
    /// # Errors
    /// As [`EngineDirectory::named`].
    fn listed(&self) -> Result<Vec<ImageAt>> {
        let mut listed = self.named()?;
        listed.extend(self.unnamed()?);
        Ok(listed)
    }

    /// Every image once, without names; those too that the engine does not list.
    ///
    /// # Errors
    /// As [`EngineDirectory::named`].
    fn every(&self) -> Result<Vec<ImageAt>>;

    /// The image of which the engine recorded the manifest `digest`; of `repository`, where one is given.
    ///
    /// # Errors
    /// As [`EngineDirectory::named`].
    fn with_manifest(&self, digest: &Digest, repository: Option<&Reference>) -> Result<Option<ImageAt>>;

    /// The names with a digest of `image`: the manifests by which it was pulled.
    fn pulled_as(&self, _image: &ImageAt) -> Vec<Reference> {
        Vec::new()
    }

    /// The name that the engine tries first for the name `text`, where the engine has such a rule.
    fn local_name(&self, _text: &str) -> Option<String> {
        None
    }

    /// The reason why `image` cannot be read by itself, for one that is skipped when all are copied.
    fn unreadable(&self, _image: &ImageAt) -> Option<String> {
        None
    }

    /// Adds to a permission error what to do.
    fn with_hint(&self, error: Error) -> Error {
        error
    }

    /// The parts of `image`. No layer is opened.
    ///
    /// # Errors
    /// - `NotFound`: a part is missing.
    /// - `Invalid`: a part is damaged.
    /// - `Failed`: its layers have a form that imgmv does not read.
    fn contents(&self, image: &ImageAt) -> Result<Contents<Self::Layer>>;

    /// Opens a layer of `image`.
    ///
    /// # Errors
    /// As [`EngineDirectory::contents`].
    fn layer(&self, image: &ImageAt, layer: &Self::Layer) -> Result<StoredLayer>;

    /// The change of `image` since its name was read, by the records, which are read again. `None`: it is still there, or
    /// the records cannot be read.
    fn change_of(&self, image: &ImageAt) -> Option<Change>;

    /// Whether `layer` is not the one any more that was opened under `label`.
    fn is_replaced(&self, image: &ImageAt, layer: &Self::Layer, label: &str) -> bool;
}
