//! docker's directory as a source.

use super::data_root::DataRoots;
use super::driver::{Driver, config_path};
use super::layers::{Layer, StoredLayer};
use super::{data_root, images, layers, names, select};
use crate::disk::rooted::Resolution;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, media_type, synthesised, uncompressed_layer};
use crate::progress::Watch;
use crate::source::{Profile, Root, Selector, Store};
use crate::tarsplit::{LayerTar, Measured, ParkedReaders, measure};
use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sizes of layers that were measured. A store that is opened again needs not read every tar-split again.
#[derive(Debug, Clone, Default)]
pub struct MeasuredLayers(Arc<Mutex<HashMap<Digest, Measured>>>);

/// The images of docker's graph drivers in one or several data roots.
///
/// Layers have their digests here only after `roots` returned their image.
pub struct DockerDirStore {
    drivers: Vec<Driver>,
    /// The directory in messages.
    label: String,
    watch: Arc<dyn Watch>,
    measured: MeasuredLayers,
    known: Mutex<Known>,
    readers: ParkedReaders,
}

/// The manifests that were made here, and their blobs.
#[derive(Default)]
struct Known {
    manifests: HashMap<Digest, Manifest>,
    blobs: HashMap<Digest, Blob>,
}

/// An image of one driver, and the name by which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageAt {
    /// The position of the driver.
    pub driver: usize,
    /// The digest of the config.
    pub id: Digest,
    pub name: Option<Name>,
}

impl ImageAt {
    /// The image as a root whose manifest is not made yet.
    pub fn provisional(&self) -> Root {
        select::provisional(self.name.clone(), &self.id)
    }
}

#[derive(Clone)]
struct Blob {
    /// The image that has the blob.
    image: ImageAt,
    descriptor: Descriptor,
    /// `None`: the config.
    layer: Option<(Layer, Measured)>,
}

impl DockerDirStore {
    /// Opens docker's directory `root`, or this host's own.
    ///
    /// # Errors
    /// - `NotFound`: it does not exist, or has no store of a supported graph driver.
    /// - `Denied`: it may not be read.
    pub fn open(root: Option<&Path>, resolution: Resolution, watch: Arc<dyn Watch>) -> Result<DockerDirStore> {
        let roots = data_root::find(root, resolution)?;
        match roots.drivers.is_empty() {
            true => Err(roots.nothing()),
            false => Ok(DockerDirStore::new(roots, watch, MeasuredLayers::default())),
        }
    }

    /// The store of the graph drivers in `roots`.
    pub(crate) fn new(roots: DataRoots, watch: Arc<dyn Watch>, measured: MeasuredLayers) -> DockerDirStore {
        let searched: Vec<String> = roots.searched.iter().map(|root| root.display().to_string()).collect();
        DockerDirStore {
            drivers: roots.drivers,
            label: format!("docker's directory {}", searched.join(" and ")),
            watch,
            measured,
            known: Mutex::default(),
            readers: ParkedReaders::default(),
        }
    }

    pub(super) fn drivers(&self) -> &[Driver] {
        &self.drivers
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn watch(&self) -> &dyn Watch {
        &*self.watch
    }

    /// Every image, as `docker images` lists them: those with tags by each tag, then those without.
    pub(super) fn listed_images(&self) -> Result<Vec<ImageAt>> {
        let (mut tagged, mut untagged) = (Vec::new(), Vec::new());
        for (driver, files) in self.drivers.iter().enumerate() {
            let names = names::read(files)?;
            let image = |id, name| ImageAt { driver, id, name };
            tagged.extend(names.iter().filter_map(|named| Some(image(named.id, Some(named.name()?)))));
            untagged.extend(images::untagged(files, &names)?.into_iter().map(|id| image(id, None)));
        }
        tagged.extend(untagged);
        Ok(tagged)
    }

    /// The name of each image, and the ID of each image without one. No layer is read.
    pub(crate) fn names_and_ids(&self) -> Result<Vec<Name>> {
        let images = self.listed_images()?.into_iter();
        images.map(|image| image.name.map_or_else(|| Name::new(image.id.to_string()), Ok)).collect()
    }

    /// The manifest that `image` gets. Its blobs can be opened from now on.
    pub(super) fn manifest_of(&self, image: &ImageAt) -> Result<Manifest> {
        let made = self.make(image).or_else(|error| match self.change_of(image) {
            // docker may have removed the image and stored it again meanwhile.
            None if is_explained(&error) => self.make(image),
            _ => Err(error),
        });
        made.map_err(|error| self.explained(image, None, error))
    }

    fn make(&self, image: &ImageAt) -> Result<Manifest> {
        let driver = self.driver(image)?;
        let (config, diff_ids) = images::config(driver, &image.id)?;
        let mut blobs = vec![Blob {
            image: image.clone(),
            descriptor: Descriptor::of(media_type::OCI_CONFIG, &config),
            layer: None,
        }];
        for layer in layers::chain(&diff_ids) {
            let measured = self.measured(driver, &layer)?;
            let descriptor = uncompressed_layer(&layer.diff_id, measured.bytes);
            blobs.push(Blob { image: image.clone(), descriptor, layer: Some((layer, measured)) });
        }
        let layers: Vec<Descriptor> = blobs.iter().skip(1).map(|blob| blob.descriptor.clone()).collect();
        let manifest = synthesised(&config, &layers)?;
        let mut known = self.known();
        for blob in blobs {
            known.blobs.entry(blob.descriptor.digest).or_insert(blob);
        }
        known.manifests.insert(manifest.digest(), manifest.clone());
        Ok(manifest)
    }

    fn measured(&self, driver: &Driver, layer: &Layer) -> Result<Measured> {
        let sizes = || self.measured.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(measured) = sizes().get(&layer.diff_id) {
            return Ok(*measured);
        }
        let stored = layers::open(driver, layer)?;
        let measured = measure(stored.tar_split, stored.recorded, &stored.label)?;
        sizes().insert(layer.diff_id, measured);
        Ok(measured)
    }

    fn driver(&self, image: &ImageAt) -> Result<&Driver> {
        self.drivers.get(image.driver).ok_or_else(|| Error::failed("a graph driver's store is missing"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(&self, digest: &Digest) -> Option<Blob> {
        self.known().blobs.get(digest).cloned()
    }

    fn open_layer(
        &self,
        blob: &Blob,
        layer: &Layer,
        measured: &Measured,
        from: u64,
    ) -> Result<Box<dyn Read + Send + '_>> {
        let driver = self.driver(&blob.image)?;
        let mut label = None;
        let open = || {
            let StoredLayer { label: opened, tar_split, files, .. } = layers::open(driver, layer)?;
            label = Some(opened.clone());
            LayerTar::new(tar_split, measured, layer.diff_id, opened, move |name| files.file(name))
        };
        let reader = self.readers.read(layer.diff_id, from, open);
        let explain = |error| self.explained(&blob.image, None, error);
        Ok(Box::new(ExplainingReader {
            reader: reader.map_err(explain)?,
            store: self,
            image: blob.image.clone(),
            layer: *layer,
            label,
        }))
    }

    /// The reason behind `error`, for something of `image` that is missing or wrong: the image was removed meanwhile, or
    /// it is damaged. `layer` is the layer that was read, with its label.
    fn explained(&self, image: &ImageAt, layer: Option<(&Layer, &str)>, error: Error) -> Error {
        let Ok(driver) = self.driver(image) else { return error };
        if !is_explained(&error) {
            return error;
        }
        let is_other = |(layer, label): (&Layer, &str)| layers::open(driver, layer).is_ok_and(|now| now.label != label);
        let replaced = || layer.is_some_and(is_other).then_some("removed from docker and stored again");
        // A name is removed before its layers: after they were looked up, it tells what their absence means.
        let change = self.change_of(image).or_else(replaced).or_else(|| self.change_of(image));
        let shown = image.name.as_ref().map_or_else(|| image.id.to_string(), Name::to_string);
        match change {
            Some(change) => Error::not_found(format!(
                "image {shown} was {change} while it was read; run the same command again for the image that docker has \
                 now"
            )),
            None if error.kind() == Kind::NotFound => Error::invalid(format!("image {shown} is damaged: {error}")),
            None => error.at(format!("image {shown}")),
        }
    }

    /// How docker changed the image since its name was read; `None` if it is still there.
    fn change_of(&self, image: &ImageAt) -> Option<&'static str> {
        let driver = self.driver(image).ok()?;
        let names = names::read(driver).ok()?;
        let now = names.iter().find(|named| image.name.is_some() && named.name() == image.name).map(|named| named.id);
        match (&image.name, now) {
            (Some(_), None) => return Some("removed from docker"),
            (Some(_), Some(id)) if id != image.id => return Some("replaced by another image of the same name"),
            _ => {}
        }
        matches!(driver.read(&config_path(&image.id), 0), Ok(None)).then_some("removed from docker")
    }
}

/// Whether an error may mean that docker changed the image meanwhile.
fn is_explained(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Invalid)
}

impl Store for DockerDirStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let mut images = Vec::new();
        for selector in selectors {
            images.extend(self.find_images(selector)?);
        }
        if selectors.is_empty() {
            images = self.listed_images()?;
        }
        let with_manifest = |image: ImageAt| {
            let descriptor = self.manifest_of(&image)?.descriptor;
            Ok(Root { descriptor, ..image.provisional() })
        };
        images.into_iter().map(with_manifest).collect()
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let known = self.known();
        let manifest = known.manifests.get(&at.digest);
        manifest.map(|manifest| manifest.bytes.clone()).ok_or_else(|| {
            Error::not_found(format!(
                "{}: it has no manifest {}; docker does not store manifests",
                self.label, at.digest
            ))
        })
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let found = self.blob(&blob.digest);
        let found = found.ok_or_else(|| Error::not_found(format!("{}: it has no blob {}", self.label, blob.digest)))?;
        let size = found.descriptor.size;
        if size != blob.size || from > size {
            return Err(Error::invalid(format!(
                "{}: blob {} does not match: expected {} bytes by its descriptor, got {size}",
                self.label, blob.digest, blob.size
            )));
        }
        match &found.layer {
            Some((layer, measured)) => self.open_layer(&found, layer, measured, from),
            None => {
                let config = self.driver(&found.image).and_then(|driver| images::config(driver, &found.image.id));
                let (config, _) = config.map_err(|error| self.explained(&found.image, None, error))?;
                let mut config = Cursor::new(config);
                config.set_position(from);
                Ok(Box::new(config))
            }
        }
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let known = self.known();
        let manifest = known.manifests.get(digest).map(|manifest| manifest.descriptor.clone());
        Ok(manifest.or_else(|| known.blobs.get(digest).map(|blob| blob.descriptor.clone())))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.listed_images()?.into_iter().filter_map(|image| image.name).collect())
    }

    fn profile(&self) -> Profile {
        let drivers: Vec<&str> = self.drivers.iter().map(Driver::name).collect();
        let empty_message = format!("{} has no image (graph driver {})", self.label, drivers.join(", "));
        Profile { empty_message, reports_synthesised: true, ..Profile::default() }
    }
}

/// A layer's reader whose errors tell whether the image was removed meanwhile.
struct ExplainingReader<'a> {
    reader: Box<dyn Read + Send + 'a>,
    store: &'a DockerDirStore,
    image: ImageAt,
    layer: Layer,
    /// The layer's label; `None` for a parked reader.
    label: Option<String>,
}

impl Read for ExplainingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| match Error::carried(error) {
            Ok(error) => {
                let layer = self.label.as_deref().map(|label| (&self.layer, label));
                self.store.explained(&self.image, layer, error).into()
            }
            Err(error) => error,
        })
    }
}
