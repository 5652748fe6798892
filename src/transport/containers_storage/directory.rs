//! The storage, for the store that rebuilds its layers.

use super::driver::{Driver, with_owner_hint};
use super::layers::Layer;
use super::records::ImageRecord;
use super::root::{self, Storage};
use super::{documents, layers, listing};
use crate::disk::rooted::Resolution;
use crate::disk::some_of;
use crate::error::{Error, Result};
use crate::image::{Digest, Reference};
use crate::progress::Watch;
use crate::source::rebuilt::{Change, Contents, EngineDirectory, ImageAt, RebuiltStore};
use crate::tarsplit::{MeasuredLayers, StoredLayer};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The images of podman's, CRI-O's and buildah's storage.
///
/// Layers have their digests here only after `roots` returned their image.
pub type ContainersStorageStore = RebuiltStore<ContainersStorage>;

/// The storage drivers of one storage.
pub struct ContainersStorage {
    drivers: Vec<Driver>,
    /// The directory in messages.
    label: String,
    watch: Arc<dyn Watch>,
    /// The images of which the user was told that a manifest is damaged.
    told: Mutex<HashSet<Digest>>,
}

impl RebuiltStore<ContainersStorage> {
    /// Opens the storage `root`, or this user's own.
    ///
    /// # Errors
    /// - `NotFound`: it does not exist, or has no store of a supported storage driver.
    /// - `Denied`: it may not be read.
    pub fn open(root: Option<&Path>, resolution: Resolution, watch: Arc<dyn Watch>) -> Result<ContainersStorageStore> {
        Ok(RebuiltStore::new(ContainersStorage::open(root, resolution, watch)?, MeasuredLayers::default()))
    }
}

impl ContainersStorage {
    /// Opens the storage drivers of the storage `root`, or of this user's own.
    ///
    /// # Errors
    /// As [`ContainersStorageStore::open`].
    pub fn open(root: Option<&Path>, resolution: Resolution, watch: Arc<dyn Watch>) -> Result<ContainersStorage> {
        let storage = root::find(root, resolution)?;
        if storage.drivers.is_empty() {
            return Err(storage.nothing());
        }
        let Storage { label, drivers, unsupported } = storage;
        if !unsupported.is_empty() {
            let unsupported = some_of(&unsupported);
            watch.say(&format!("images of the storage driver {unsupported} are not read; use podman save for them"));
        }
        Ok(ContainersStorage { drivers, label, watch, told: Mutex::default() })
    }

    /// The files that change with the names of images.
    pub(super) fn names_files(&self) -> Vec<PathBuf> {
        self.drivers.iter().map(Driver::names_file).collect()
    }

    fn driver(&self, image: &ImageAt) -> Result<&Driver> {
        self.drivers.get(image.driver).ok_or_else(|| Error::failed("a storage driver's directory is missing"))
    }

    fn record(&self, image: &ImageAt) -> Result<Option<ImageRecord>> {
        Ok(self.driver(image)?.images()?.with_id(&image.id).cloned())
    }

    fn tell_damaged(&self, image: &ImageAt, error: &Error) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(image.id) {
            self.watch.say(&format!("{}: {error}; the image is read without this manifest", image.label()));
        }
    }
}

impl EngineDirectory for ContainersStorage {
    type Layer = Layer;

    fn engine(&self) -> &'static str {
        "the storage"
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn watch(&self) -> &dyn Watch {
        &*self.watch
    }

    fn empty_message(&self) -> String {
        let drivers: Vec<&str> = self.drivers.iter().map(Driver::name).collect();
        format!("{} has no image (storage driver {})", self.label, drivers.join(", "))
    }

    fn named(&self) -> Result<Vec<ImageAt>> {
        let mut named = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            let records = driver.images()?;
            let names = records.all.iter().flat_map(|record| record.full_names().map(|name| (record.id, name)));
            named.extend(names.map(|(id, name)| ImageAt::new(at, id, Some(name))));
        }
        named.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(named)
    }

    fn unnamed(&self) -> Result<Vec<ImageAt>> {
        let mut unnamed = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            let ids = listing::unnamed(driver, &driver.images()?.all)?;
            unnamed.extend(ids.into_iter().map(|id| ImageAt::new(at, id, None)));
        }
        Ok(unnamed)
    }

    fn every(&self) -> Result<Vec<ImageAt>> {
        let mut every = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            every.extend(driver.images()?.all.iter().map(|record| ImageAt::new(at, record.id, None)));
        }
        Ok(every)
    }

    fn with_manifest(&self, digest: &Digest, repository: Option<&Reference>) -> Result<Option<ImageAt>> {
        let in_repository = |record: &ImageRecord| {
            let is_asked = |asked: &Reference| record.names.iter().any(|name| same_repository(name, asked));
            repository.is_none_or(is_asked)
        };
        for (at, driver) in self.drivers.iter().enumerate() {
            let records = driver.images()?;
            let has = |record: &&ImageRecord| {
                (record.digest == Some(*digest) || record.manifests.contains(digest)) && in_repository(record)
            };
            if let Some(record) = records.all.iter().find(has) {
                return Ok(Some(ImageAt { selected_by: Some(*digest), ..ImageAt::new(at, record.id, None) }));
            }
        }
        Ok(None)
    }

    /// podman looks first for a local image, where a name has no registry.
    fn local_name(&self, text: &str) -> Option<String> {
        Some(format!("localhost/{text}"))
    }

    fn unreadable(&self, image: &ImageAt) -> Option<String> {
        let record = self.record(image).ok()??;
        let label = image.label();
        if record.is_list {
            return Some(format!(
                "{label} is a manifest list, of whose images the storage has no compressed layers; copy these images by \
                 their own names"
            ));
        }
        let layer = layers::composefs_layer(self.driver(image).ok()?, &record).ok()??;
        Some(format!(
            "{label} cannot be read: its layer {} is stored by composefs, whose files imgmv does not read; save the image \
             there with podman save",
            layer.hex()
        ))
    }

    fn with_hint(&self, error: Error) -> Error {
        with_owner_hint(error)
    }

    fn contents(&self, image: &ImageAt) -> Result<Contents<Layer>> {
        let driver = self.driver(image)?;
        let record = self.record(image)?.ok_or_else(|| {
            let path = driver.root().display(driver.images_path());
            Error::not_found(format!("{path} has no image {}", image.id.hex()))
        })?;
        let found = documents::read(driver, &record, image.selected_by)?;
        if let Some(error) = &found.damaged {
            self.tell_damaged(image, error);
        }
        let chain = layers::chain(driver, &record, &found.diff_ids)?;
        Ok(Contents {
            config: found.config,
            layers: found.diff_ids.into_iter().zip(chain).collect(),
            manifest: found.manifest,
            lost_manifest: found.lost_manifest,
        })
    }

    fn layer(&self, image: &ImageAt, layer: &Layer) -> Result<StoredLayer> {
        layers::open(self.driver(image)?, layer)
    }

    fn change_of(&self, image: &ImageAt) -> Option<Change> {
        let records = self.driver(image).ok()?.images().ok()?;
        let now = image.name.as_ref().and_then(|name| records.with_name(name));
        match (&image.name, now) {
            (Some(_), None) => Some(Change::Removed),
            (Some(_), Some(record)) if record.id != image.id => Some(Change::Replaced),
            _ => records.with_id(&image.id).is_none().then_some(Change::Removed),
        }
    }

    fn is_replaced(&self, image: &ImageAt, layer: &Layer, _label: &str) -> bool {
        self.driver(image).and_then(|driver| layers::is_replaced(driver, layer)).unwrap_or(false)
    }
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    one.full_repository() == other.full_repository()
}
