//! The store over an engine's directory.

use super::contested::ByName;
use super::explanation::is_explained;
use super::known::{Blob, Known, Layer};
use super::{Contents, EngineDirectory, ImageAt, measuring};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, Name, media_type, synthesised, uncompressed_layer};
use crate::source::{Profile, Root, Selector, Store};
use crate::tarsplit::{MeasuredLayers, ParkedReaders};
use std::io::{self, Cursor, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum number of broken images that an error names.
const MAX_NAMED: usize = 20;

/// The images of an engine's directory.
///
/// Layers have their digests here only after `roots` returned their image.
pub struct RebuiltStore<D: EngineDirectory> {
    directory: D,
    measured: MeasuredLayers,
    known: Mutex<Known<D::Layer>>,
    /// By driver and layer.
    readers: ParkedReaders<(usize, D::Layer)>,
}

/// The manifest of an image.
pub(super) struct ImageManifest {
    pub manifest: Manifest,
    /// Made here, and not stored.
    synthesised: bool,
    /// The manifest in whose place it was made.
    lost: Option<Digest>,
}

impl<D: EngineDirectory> RebuiltStore<D> {
    /// The store over `directory`. `measured` has the layers that were measured before.
    pub(crate) fn new(directory: D, measured: MeasuredLayers) -> RebuiltStore<D> {
        let known = Mutex::new(Known::default());
        RebuiltStore { directory, measured, known, readers: ParkedReaders::default() }
    }

    pub(super) fn directory(&self) -> &D {
        &self.directory
    }

    /// The name of each image, and the ID of each image without one. No layer is read. Of images that cannot be read the
    /// user is told why.
    pub(crate) fn names_and_ids(&self) -> Result<Vec<Name>> {
        let images = self.readable(self.by_name()?.for_list())?.into_iter();
        images.map(|image| image.name.map_or_else(|| Name::new(image.id.to_string()), Ok)).collect()
    }

    /// All images: those by their names, those of other drivers with the same names, those without names.
    fn all(&self) -> Result<Vec<ImageAt>> {
        let ByName { mut named, others } = self.by_name()?;
        others.iter().for_each(|other| self.tell_contested(other));
        named.extend(others.into_iter().map(|other| ImageAt { name: None, ..other }));
        self.readable(named)
    }

    /// `named` and the images without names, without those that cannot be read, of which the user is told why.
    fn readable(&self, named: Vec<ImageAt>) -> Result<Vec<ImageAt>> {
        if let Some(damage) = self.directory.names_damage() {
            self.directory.watch().say(&format!("{damage}; this is passed over"));
        }
        let mut images = named;
        images.extend(self.directory.unnamed()?);
        images.retain(|image| match self.directory.unreadable(image) {
            Some(reason) => {
                self.directory.watch().say(&format!("{reason}; it is skipped"));
                false
            }
            None => true,
        });
        Ok(images)
    }

    /// The manifest of `image`. Its blobs can be opened from now on.
    pub(super) fn manifest_of(&self, image: &ImageAt) -> Result<ImageManifest> {
        if let Some(reason) = self.directory.unreadable(image) {
            return Err(Error::failed(reason));
        }
        let made = self.make(image).or_else(|error| match self.directory.change_of(image) {
            // The engine may have removed the image and stored it again meanwhile.
            None if is_explained(&error) => self.make(image),
            _ => Err(error),
        });
        made.map_err(|error| self.explained(image, None, error))
    }

    fn make(&self, image: &ImageAt) -> Result<ImageManifest> {
        let Contents { config, layers, manifest, lost_manifest } = self.directory.contents(image)?;
        let mut blobs = vec![Blob {
            image: image.clone(),
            descriptor: Descriptor::of(media_type::OCI_CONFIG, &config),
            layer: None,
        }];
        for layer in measuring::measured(&self.directory, &self.measured, image, layers)? {
            let descriptor = uncompressed_layer(&layer.diff_id, layer.measured.bytes);
            blobs.push(Blob { image: image.clone(), descriptor, layer: Some(layer) });
        }
        let made = match manifest {
            Some(manifest) => {
                sizes_agree(&manifest, &blobs)?;
                ImageManifest { manifest, synthesised: false, lost: None }
            }
            None => {
                let layers: Vec<Descriptor> = blobs.iter().skip(1).map(|blob| blob.descriptor.clone()).collect();
                let manifest = synthesised(&config, &layers)?;
                ImageManifest { manifest, synthesised: true, lost: lost_manifest }
            }
        };
        let mut known = self.known();
        blobs.into_iter().for_each(|blob| known.add(blob));
        known.manifests.insert(made.manifest.digest(), made.manifest.clone());
        Ok(made)
    }

    /// The error for images that cannot be read, of `count` images.
    fn broken(&self, count: usize, errors: &[Error]) -> Error {
        let label = self.directory.label();
        if let ([error], 1) = (errors, count) {
            return error.clone();
        }
        let causes: Vec<String> = errors.iter().take(MAX_NAMED).map(Error::to_string).collect();
        let message = format!(
            "{label}: {} of {count} images cannot be read; copy the others by name (imgmv list shows the names)",
            errors.len()
        );
        Error::several(errors[0].kind(), &message, &causes)
    }

    fn known(&self) -> MutexGuard<'_, Known<D::Layer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_at(&self, place: &Blob<D::Layer>, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let size = place.descriptor.size;
        if size != blob.size || from > size {
            return Err(Error::invalid(format!(
                "{}: blob {} does not match: expected {} bytes by its descriptor, got {size}",
                self.directory.label(),
                blob.digest,
                blob.size
            )));
        }
        match &place.layer {
            Some(layer) => self.open_layer(place, layer, from),
            None => self.open_config(&place.image, from),
        }
    }

    fn open_layer(
        &self,
        blob: &Blob<D::Layer>,
        layer: &Layer<D::Layer>,
        from: u64,
    ) -> Result<Box<dyn Read + Send + '_>> {
        let mut label = None;
        let open = || {
            let stored = self.directory.layer(&blob.image, &layer.stored)?;
            label = Some(stored.label.clone());
            stored.tar(&layer.measured, layer.diff_id)
        };
        let reader = self.readers.read((blob.image.driver, layer.stored.clone()), from, open);
        Ok(Box::new(ExplainingReader {
            reader: reader.map_err(|error| self.explained(&blob.image, None, error))?,
            store: self,
            image: blob.image.clone(),
            layer: layer.stored.clone(),
            label,
        }))
    }

    fn open_config(&self, image: &ImageAt, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let contents = self.directory.contents(image);
        let contents = contents.map_err(|error| self.explained(image, None, error))?;
        let mut config = Cursor::new(contents.config);
        config.set_position(from);
        Ok(Box::new(config))
    }
}

/// Checks that the stored manifest `manifest` lists the sizes of `blobs`.
fn sizes_agree<L>(manifest: &Manifest, blobs: &[Blob<L>]) -> Result<()> {
    for (listed, blob) in manifest.blobs().into_iter().flat_map(|listed| blobs.iter().map(move |blob| (listed, blob))) {
        let (expected, found) = (listed.size, blob.descriptor.size);
        if listed.digest == blob.descriptor.digest && expected != found {
            return Err(Error::invalid(format!(
                "manifest {} lists blob {} with {expected} bytes, found {found}",
                manifest.digest(),
                listed.digest
            )));
        }
    }
    Ok(())
}

impl<D: EngineDirectory> Store for RebuiltStore<D> {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let images = match selectors.is_empty() {
            true => self.all()?,
            false => selectors.iter().map(|selector| self.find_image(selector)).collect::<Result<Vec<_>>>()?,
        };
        let with_manifest = |image: ImageAt| {
            let made = self.manifest_of(&image)?;
            let (descriptor, synthesised, lost_manifest) = (made.manifest.descriptor, made.synthesised, made.lost);
            Ok(Root { synthesised, lost_manifest, ..Root::new(image.name, descriptor) })
        };
        if !selectors.is_empty() {
            return images.into_iter().map(with_manifest).collect();
        }
        let (count, mut roots, mut broken) = (images.len(), Vec::new(), Vec::new());
        for image in images {
            match with_manifest(image.clone()) {
                Ok(root) if root.name.is_none() => {
                    let name = self.name_by_digest(&image, &root.descriptor.digest);
                    roots.push(Root { name, ..root });
                }
                Ok(root) => roots.push(root),
                Err(error) => broken.push(error),
            }
        }
        if broken.is_empty() { Ok(roots) } else { Err(self.broken(count, &broken)) }
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let known = self.known();
        let manifest = known.manifests.get(&at.digest);
        manifest
            .map(|manifest| manifest.bytes.clone())
            .ok_or_else(|| Error::not_found(format!("{}: it has no manifest {}", self.directory.label(), at.digest)))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if let Some(manifest) = self.known().manifests.get(&blob.digest) {
            let mut bytes = Cursor::new(manifest.bytes.clone());
            bytes.set_position(from);
            return Ok(Box::new(bytes));
        }
        let places = self.known().blobs.get(&blob.digest).cloned().unwrap_or_default();
        let mut first = None;
        for place in &places {
            match self.open_at(place, blob, from) {
                // The same layer may be undamaged in another place.
                Err(error) if is_explained(&error) => first = first.or(Some(error)),
                opened => return opened,
            }
        }
        let missing = || Error::not_found(format!("{}: it has no blob {}", self.directory.label(), blob.digest));
        Err(first.unwrap_or_else(missing))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let known = self.known();
        let manifest = known.manifests.get(digest).map(|manifest| manifest.descriptor.clone());
        Ok(manifest.or_else(|| known.blobs.get(digest).and_then(|places| Some(places.first()?.descriptor.clone()))))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.directory.listed()?.into_iter().filter_map(|image| image.name).collect())
    }

    fn located(&self, blob: &Descriptor, error: Error) -> Error {
        let places = self.known().blobs.get(&blob.digest).cloned().unwrap_or_default();
        match places.first() {
            Some(place) => self.with_place(place, error),
            None => error,
        }
    }

    fn profile(&self) -> Profile {
        Profile { empty_message: self.directory.empty_message(), reports_synthesised: true, ..Profile::default() }
    }
}

/// A layer's reader whose errors tell whether the image was removed meanwhile.
struct ExplainingReader<'a, D: EngineDirectory> {
    reader: Box<dyn Read + Send + 'a>,
    store: &'a RebuiltStore<D>,
    image: ImageAt,
    layer: D::Layer,
    /// The layer's label; `None` for a parked reader.
    label: Option<String>,
}

impl<D: EngineDirectory> Read for ExplainingReader<'_, D> {
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
