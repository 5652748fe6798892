//! The storage, for the store that rebuilds its layers.

use super::driver::{Driver, with_owner_hint};
use super::layers::Layer;
use super::records::ImageRecord;
use super::root::{self, Storage};
use super::{documents, layers, listing};
use crate::disk::rooted::Resolution;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Name, Reference};
use crate::message::some_of;
use crate::progress::Watch;
use crate::source::rebuilt::{Change, Contents, EngineDirectory, ImageAt, RebuiltStore};
use crate::tarsplit::{MeasuredLayers, StoredLayer};
use std::collections::{BTreeSet, HashSet};
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
    /// Whether the storage has no other directory.
    is_whole: bool,
    /// The messages that the user got.
    told: Mutex<HashSet<String>>,
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
        let Storage { label, drivers, unsupported, unread, is_whole } = storage;
        unread.iter().for_each(|error| watch.say(&format!("{error}; images and layers in it are not read")));
        if !unsupported.is_empty() {
            let unsupported = some_of(&unsupported);
            watch.say(&format!("images of the storage driver {unsupported} are not read; use podman save for them"));
        }
        Ok(ContainersStorage { drivers, label, watch, is_whole, told: Mutex::default() })
    }

    /// The files that change with the names of images.
    pub(super) fn names_files(&self) -> Vec<PathBuf> {
        self.drivers.iter().map(Driver::names_file).collect()
    }

    fn driver(&self, image: &ImageAt) -> Result<&Driver> {
        self.drivers.get(image.driver).ok_or_else(|| Error::failed("a storage driver's directory is missing"))
    }

    /// The drivers that may have layers of `image`, its own first.
    fn places(&self, image: &ImageAt) -> Result<Vec<&Driver>> {
        let own = self.driver(image)?;
        let others =
            self.drivers.iter().enumerate().filter(|(at, other)| *at != image.driver && other.name() == own.name());
        Ok(std::iter::once(own).chain(others.map(|(_, other)| other)).collect())
    }

    /// The earlier drivers of the same form as the one at `at`: what they have counts, as for podman.
    fn earlier(&self, at: usize) -> impl Iterator<Item = &Driver> {
        let name = self.drivers.get(at).map(Driver::name);
        self.drivers.iter().take(at).filter(move |driver| Some(driver.name()) == name)
    }

    /// Whether an earlier directory has the image `id`.
    fn has_earlier(&self, at: usize, id: &Digest) -> Result<bool> {
        for driver in self.earlier(at) {
            if driver.images()?.with_id(id).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn record(&self, image: &ImageAt) -> Result<Option<ImageRecord>> {
        Ok(self.driver(image)?.images()?.with_id(&image.id).cloned())
    }

    /// Sends `text`, unless it was sent before.
    fn tell(&self, text: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(&text) {
            self.watch.say(&text);
            told.insert(text);
        }
    }

    /// The error for a layer, which may be in a directory of the storage that is not known.
    fn maybe_elsewhere(&self, error: Error) -> Error {
        match error.kind() == Kind::NotFound && !self.is_whole {
            true => Error::invalid(format!(
                "{error}; if the storage.conf of this storage names further directories (imagestore, \
                 additionalimagestores), one of them has it: write a storage.conf with all of them and the graphroot, name \
                 it in CONTAINERS_STORAGE_CONF, and leave out --src-root"
            )),
            false => error,
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

    fn driver_name(&self, image: &ImageAt) -> &'static str {
        self.driver(image).map_or("", Driver::name)
    }

    fn watch(&self) -> &dyn Watch {
        &*self.watch
    }

    fn empty_message(&self) -> String {
        let drivers: BTreeSet<&str> = self.drivers.iter().map(Driver::name).collect();
        let drivers: Vec<&str> = drivers.into_iter().collect();
        format!("{} has no image (storage driver {})", self.label, drivers.join(", "))
    }

    fn named(&self) -> Result<Vec<ImageAt>> {
        let mut named = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            let records = driver.images()?;
            let earlier = self.earlier(at).map(Driver::images).collect::<Result<Vec<_>>>()?;
            let is_new = |name: &Name| earlier.iter().all(|records| records.with_name(name).is_none());
            let names = records.all.iter().flat_map(|record| record.full_names().map(|name| (record.id, name)));
            named.extend(names.filter(|(_, name)| is_new(name)).map(|(id, name)| ImageAt::new(at, id, Some(name))));
        }
        named.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(named)
    }

    fn names_damage(&self) -> Option<String> {
        let damage = |driver: &Driver| {
            let why = driver.images().ok()?.damage.clone()?;
            Some(format!("{}: {why}", driver.root().display(driver.images_path())))
        };
        let damage: Vec<String> = self.drivers.iter().filter_map(damage).collect();
        (!damage.is_empty()).then(|| damage.join("; "))
    }

    fn unnamed(&self) -> Result<Vec<ImageAt>> {
        let mut unnamed = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            for id in listing::unnamed(driver, &driver.images()?.all)? {
                if !self.has_earlier(at, &id)? {
                    unnamed.push(ImageAt::new(at, id, None));
                }
            }
        }
        Ok(unnamed)
    }

    fn every(&self) -> Result<Vec<ImageAt>> {
        let mut every = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            for record in &driver.images()?.all {
                if !self.has_earlier(at, &record.id)? {
                    every.push(ImageAt::new(at, record.id, None));
                }
            }
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

    fn pulled_as(&self, image: &ImageAt) -> Vec<Reference> {
        let names = self.record(image).ok().flatten().map(|record| record.names).unwrap_or_default();
        names.into_iter().filter(|name| name.digest.is_some()).collect()
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
                "{label} is a manifest list, whose images podman stores separately and not as the list names them; copy these \
                 images by their own names"
            ));
        }
        let layer = layers::composefs_layer(&self.places(image).ok()?, &record).ok()??;
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
            self.tell(format!("{}: {error}; the image is read without this manifest", image.label()));
        }
        if let (Some(kept), Some(recorded), None) = (&found.manifest, record.digest, image.selected_by)
            && kept.digest() != recorded
        {
            self.tell(format!(
                "{}: podman shows the digest {recorded}, whose layers are not stored as it lists them; imgmv reads the \
                 image by its stored manifest {}",
                image.label(),
                kept.digest()
            ));
        }
        let chain = layers::chain(&self.places(image)?, &record, &found.diff_ids);
        let chain = chain.map_err(|error| self.maybe_elsewhere(error))?;
        Ok(Contents {
            config: found.config,
            layers: found.diff_ids.into_iter().zip(chain).collect(),
            manifest: found.manifest,
            lost_manifest: found.lost_manifest,
        })
    }

    fn layer(&self, image: &ImageAt, layer: &Layer) -> Result<StoredLayer> {
        layers::open(&self.places(image)?, layer).map_err(|error| self.maybe_elsewhere(error))
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
        self.places(image).and_then(|places| layers::is_replaced(&places, layer)).unwrap_or(false)
    }
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    one.full_repository() == other.full_repository()
}
