//! `images.json` and `layers.json`: untrusted JSON, of which every ID is checked before it enters a path.

use super::driver::with_owner_hint;
use crate::disk::rooted::Rooted;
use crate::error::{Error, Result};
use crate::image::{Digest, MAX_NAMES, Name, Reference, json_bounds};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

/// The maximum size of a file of records: an image or a layer takes about 1500 bytes.
const MAX_BYTES: u64 = 16 << 20;
/// The maximum number of manifests of one image.
const MAX_MANIFESTS: usize = 64;
/// The start of the name of a document that is a manifest.
const MANIFEST_KEY: &str = "manifest-";
/// A document of every manifest list that podman or buildah made.
const INSTANCES_KEY: &str = "instances.json";

/// An image in `images.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageRecord {
    /// Usually the digest of the config, but not of every image that was pulled in part.
    pub id: Digest,
    /// The digest that `podman images --digests` prints.
    pub digest: Option<Digest>,
    /// The valid names; with a digest: the manifest that was pulled.
    pub names: Vec<Reference>,
    /// The topmost layer; `None` for an image without layers.
    pub layer: Option<Digest>,
    /// The digests of the stored manifests, in the order in which they were stored.
    pub manifests: Vec<Digest>,
    /// An index that `podman manifest` made.
    pub is_list: bool,
}

impl ImageRecord {
    /// The names that can be names of a copy.
    pub fn full_names(&self) -> impl Iterator<Item = Name> {
        self.names.iter().filter(|name| name.digest.is_none()).map(Name::from)
    }
}

/// A layer in `layers.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerRecord {
    pub id: Digest,
    pub parent: Option<Digest>,
    /// `None` for a layer of a container, and for some that were pulled in part.
    pub diff_id: Option<Digest>,
    /// The size of the tar in bytes.
    pub bytes: Option<u64>,
    /// The time at which the layer was stored.
    pub created: String,
    /// The layer was not stored to its end.
    pub is_incomplete: bool,
    /// Its files are those of composefs.
    pub is_composefs: bool,
}

/// The layers of one file, by ID.
pub(super) type LayerRecords = HashMap<Digest, LayerRecord>;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StoredImage {
    id: String,
    digest: Option<String>,
    names: Option<Vec<String>>,
    layer: Option<String>,
    big_data_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StoredRecord {
    id: String,
    parent: Option<String>,
    diff_digest: Option<String>,
    diff_size: Option<i64>,
    created: Option<String>,
    flags: Option<BTreeMap<String, IgnoredAny>>,
}

/// Parses `images.json`. The error is the reason as the end of a sentence.
pub(super) fn image_records(text: &[u8]) -> Result<Vec<ImageRecord>, String> {
    let mut names = 0;
    let stored: Vec<StoredImage> = parse(text)?;
    let mut records = Vec::with_capacity(stored.len());
    for image in stored {
        let documents = image.big_data_names.unwrap_or_default();
        let manifests = documents.iter().filter_map(|key| key.strip_prefix(MANIFEST_KEY)?.parse().ok());
        let layer = image.layer.filter(|layer| !layer.is_empty());
        let is_list = layer.is_none() && documents.iter().any(|key| key == INSTANCES_KEY);
        let stored_names = image.names.unwrap_or_default();
        names += stored_names.len();
        records.push(ImageRecord {
            id: id(&image.id, "an image")?,
            digest: image.digest.and_then(|digest| digest.parse().ok()),
            // A name that is not valid is left out: no tool could ask for it.
            names: stored_names.iter().filter_map(|name| Some(name.parse::<Reference>().ok()?.tagged())).collect(),
            layer: layer.map(|layer| id(&layer, "an image's layer")).transpose()?,
            manifests: manifests.take(MAX_MANIFESTS).collect(),
            is_list,
        });
    }
    match names {
        names if names <= MAX_NAMES => Ok(records),
        names => Err(format!("it has {names} names; at most {MAX_NAMES} are allowed")),
    }
}

/// Parses `layers.json`. The error is the reason as the end of a sentence.
pub(super) fn layer_records(text: &[u8]) -> Result<LayerRecords, String> {
    let mut records = LayerRecords::new();
    for layer in parse::<StoredRecord>(text)? {
        let flags = layer.flags.unwrap_or_default();
        let parent = layer.parent.filter(|parent| !parent.is_empty());
        let diff_id = layer.diff_digest.filter(|digest| !digest.is_empty());
        let wrong = |digest: &str| format!("the diff digest {:?} of a layer is not a digest", shown(digest));
        let record = LayerRecord {
            id: id(&layer.id, "a layer")?,
            parent: parent.map(|parent| id(&parent, "a layer's parent")).transpose()?,
            diff_id: diff_id.map(|digest| digest.parse().map_err(|_| wrong(&digest))).transpose()?,
            bytes: layer.diff_size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
            created: layer.created.unwrap_or_default(),
            is_incomplete: flags.contains_key("incomplete"),
            is_composefs: flags.keys().any(|flag| flag.contains("composefs")),
        };
        records.entry(record.id).or_insert(record);
    }
    Ok(records)
}

fn parse<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<Vec<T>, String> {
    json_bounds(text)?;
    let records: Option<Vec<T>> = serde_json::from_slice(text).map_err(|error| format!("it is not valid ({error})"))?;
    Ok(records.unwrap_or_default())
}

/// An ID, which is 64 hexadecimal characters.
fn id(text: &str, what: &str) -> Result<Digest, String> {
    let parsed = format!("sha256:{text}").parse();
    parsed.map_err(|_| format!("the ID {:?} of {what} is not 64 hexadecimal characters", shown(text)))
}

/// The start of an untrusted text.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The records of one file, parsed again when the file was replaced.
#[derive(Default)]
pub(super) struct Cached<T>(Mutex<Option<(Stamp, Arc<T>)>>);

/// A file as it was read: containers/storage replaces it by a rename.
type Stamp = [i128; 5];

fn stamp(file: &Metadata) -> Stamp {
    [file.dev().into(), file.ino().into(), file.len().into(), file.mtime().into(), file.mtime_nsec().into()]
}

impl<T: Default> Cached<T> {
    /// The records of the file `path` in `root`, by `parse`; none if it does not exist.
    ///
    /// # Errors
    /// - `Invalid`: the file is damaged or too large.
    /// - `Denied`: it may not be read.
    pub fn read(&self, root: &Rooted, path: &str, parse: fn(&[u8]) -> Result<T, String>) -> Result<Arc<T>> {
        let Some(file) = root.file(path).map_err(with_owner_hint)? else { return Ok(Arc::default()) };
        let stamp = stamp(&file.metadata().map_err(|error| Error::reading(root.display(path), error))?);
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, records)) = &*cached
            && *known == stamp
        {
            return Ok(records.clone());
        }
        let bytes = root.read(path, MAX_BYTES).map_err(with_owner_hint)?.unwrap_or_default();
        let wrong = |why: String| Error::invalid(format!("{}: {why}", root.display(path)));
        let records = Arc::new(if bytes.is_empty() { T::default() } else { parse(&bytes).map_err(wrong)? });
        *cached = Some((stamp, records.clone()));
        Ok(records)
    }
}
