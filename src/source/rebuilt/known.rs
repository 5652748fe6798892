//! The blobs that a store can open: those of the images that were found. The same layer may be in several places, of
//! which one may be damaged.

use super::ImageAt;
use crate::image::{Descriptor, Digest, Manifest};
use crate::tarsplit::Measured;
use std::collections::HashMap;

/// The maximum number of places of one blob that are known.
const MAX_PLACES: usize = 8;

/// The manifests of images that were found, and their blobs.
pub(super) struct Known<L> {
    pub manifests: HashMap<Digest, Manifest>,
    /// Each blob in the places that have it.
    pub blobs: HashMap<Digest, Vec<Blob<L>>>,
}

#[derive(Clone)]
pub(super) struct Blob<L> {
    /// The image that has the blob.
    pub image: ImageAt,
    pub descriptor: Descriptor,
    /// `None`: the config.
    pub layer: Option<Layer<L>>,
}

impl<L> Default for Known<L> {
    fn default() -> Self {
        Known { manifests: HashMap::new(), blobs: HashMap::new() }
    }
}

impl<L: Eq> Known<L> {
    /// Adds a place of a blob.
    pub fn add(&mut self, blob: Blob<L>) {
        let places = self.blobs.entry(blob.descriptor.digest).or_default();
        if places.len() < MAX_PLACES && places.iter().all(|known| !known.is_at(&blob)) {
            places.push(blob);
        }
    }
}

impl<L: Eq> Blob<L> {
    /// Whether `other` is the same file, or the same layer of the same driver.
    fn is_at(&self, other: &Blob<L>) -> bool {
        let same_layer = match (&self.layer, &other.layer) {
            (Some(one), Some(other)) => one.stored == other.stored,
            (None, None) => self.image.id == other.image.id,
            _ => false,
        };
        same_layer && self.image.driver == other.image.driver
    }
}

#[derive(Clone)]
pub(super) struct Layer<L> {
    pub diff_id: Digest,
    pub stored: L,
    pub measured: Measured,
}
