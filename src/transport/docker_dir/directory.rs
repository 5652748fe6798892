//! docker's directory, for the store that rebuilds its layers.

use super::data_root::DataRoots;
use super::driver::{Driver, config_path};
use super::layers::Layer;
use super::names::Named;
use super::{data_root, images, layers, names};
use crate::disk::rooted::Resolution;
use crate::error::{Error, Result};
use crate::image::{Digest, Reference};
use crate::progress::Watch;
use crate::source::rebuilt::{Change, Contents, EngineDirectory, ImageAt, RebuiltStore};
use crate::tarsplit::{MeasuredLayers, StoredLayer};
use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

/// The images of docker's graph drivers in one or several data roots.
///
/// Layers have their digests here only after `roots` returned their image.
pub type DockerDirStore = RebuiltStore<DockerDir>;

/// The stores of docker's graph drivers.
pub struct DockerDir {
    /// The one that was used last comes first.
    drivers: Vec<Driver>,
    /// The directory in messages.
    label: String,
    watch: Arc<dyn Watch>,
}

impl RebuiltStore<DockerDir> {
    /// Opens docker's directory `root`, or this host's own.
    ///
    /// # Errors
    /// - `NotFound`: it does not exist, or has no store of a supported graph driver.
    /// - `Denied`: it may not be read.
    pub fn open(root: Option<&Path>, resolution: Resolution, watch: Arc<dyn Watch>) -> Result<DockerDirStore> {
        let roots = data_root::find(root, resolution)?;
        match roots.drivers.is_empty() {
            true => Err(roots.nothing()),
            false => Ok(DockerDirStore::new(DockerDir::new(roots, watch), MeasuredLayers::default())),
        }
    }
}

impl DockerDir {
    /// The stores of the graph drivers in `roots`.
    pub(crate) fn new(roots: DataRoots, watch: Arc<dyn Watch>) -> DockerDir {
        let searched: Vec<String> = roots.searched.iter().map(|root| root.display().to_string()).collect();
        let label = format!("docker's directory {}", searched.join(" and "));
        let mut drivers = roots.drivers;
        drivers.sort_by_cached_key(|driver| Reverse(names::changed(driver)));
        DockerDir { drivers, label, watch }
    }

    fn driver(&self, image: &ImageAt) -> Result<&Driver> {
        self.drivers.get(image.driver).ok_or_else(|| Error::failed("a graph driver's store is missing"))
    }
}

impl EngineDirectory for DockerDir {
    type Layer = Layer;

    fn engine(&self) -> &'static str {
        "docker"
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
        let drivers: Vec<&str> = self.drivers.iter().map(Driver::name).collect();
        format!("{} has no image (graph driver {})", self.label, drivers.join(", "))
    }

    fn named(&self) -> Result<Vec<ImageAt>> {
        let mut named = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            let names = names::read(driver)?;
            named.extend(names.all.iter().filter_map(|one| Some(ImageAt::new(at, one.id, Some(one.name()?)))));
        }
        Ok(named)
    }

    fn unnamed(&self) -> Result<Vec<ImageAt>> {
        let mut unnamed = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            let names = names::read(driver)?;
            let ids = images::untagged(driver, &names)?;
            unnamed.extend(ids.into_iter().map(|id| ImageAt::new(at, id, None)));
        }
        Ok(unnamed)
    }

    fn every(&self) -> Result<Vec<ImageAt>> {
        let mut every = Vec::new();
        for (at, driver) in self.drivers.iter().enumerate() {
            every.extend(images::ids(driver)?.into_iter().map(|id| ImageAt::new(at, id, None)));
        }
        Ok(every)
    }

    fn names_damage(&self) -> Option<String> {
        let damage = |driver: &Driver| names::read(driver).ok()?.damage.clone();
        let damage: Vec<String> = self.drivers.iter().filter_map(damage).collect();
        (!damage.is_empty()).then(|| damage.join("; "))
    }

    /// The user is told that the manifest itself is not stored.
    fn with_manifest(&self, digest: &Digest, repository: Option<&Reference>) -> Result<Option<ImageAt>> {
        let fits = |named: &Named| {
            named.reference.digest == Some(*digest)
                && repository.is_none_or(|asked| named.reference.full_repository() == asked.full_repository())
        };
        for (at, driver) in self.drivers.iter().enumerate() {
            if let Some(named) = names::read(driver)?.all.iter().find(|named| fits(named)) {
                self.watch.say(&format!(
                    "docker pulled image {} as {}, but does not store that manifest; the image gets a new one",
                    named.id, named.reference
                ));
                return Ok(Some(ImageAt::new(at, named.id, None)));
            }
        }
        Ok(None)
    }

    fn pulled_as(&self, image: &ImageAt) -> Vec<Reference> {
        let Ok(names) = self.driver(image).and_then(names::read) else { return Vec::new() };
        let own = names.all.iter().filter(|named| named.id == image.id && named.reference.digest.is_some());
        own.map(|named| named.reference.clone()).collect()
    }

    fn contents(&self, image: &ImageAt) -> Result<Contents<Layer>> {
        let (config, diff_ids) = images::config(self.driver(image)?, &image.id)?;
        let layers = layers::chain(&diff_ids).into_iter().map(|layer| (layer.diff_id, layer)).collect();
        Ok(Contents { config, layers, manifest: None, lost_manifest: None })
    }

    fn layer(&self, image: &ImageAt, layer: &Layer) -> Result<StoredLayer> {
        layers::open(self.driver(image)?, layer)
    }

    fn change_of(&self, image: &ImageAt) -> Option<Change> {
        let driver = self.driver(image).ok()?;
        let names = names::read(driver).ok().filter(|names| names.damage.is_none())?;
        let now = image.name.as_ref().map(|name| names.ids.get(name));
        match (&image.name, now.flatten()) {
            (Some(_), None) => Some(Change::Removed),
            (Some(_), Some(id)) if *id != image.id => Some(Change::Replaced),
            // docker removes the names of an image before its config.
            _ if names.all.iter().any(|named| named.id == image.id) => None,
            _ => matches!(driver.read(&config_path(&image.id), 0), Ok(None)).then_some(Change::Removed),
        }
    }

    fn is_replaced(&self, image: &ImageAt, layer: &Layer, label: &str) -> bool {
        self.layer(image, layer).is_ok_and(|now| now.label != label)
    }
}
