//! `images.json` and `layers.json`: untrusted JSON, of which every ID is checked before it enters a path.

use crate::image::{Digest, MAX_NAMES, Name, Reference, json_bounds};
use crate::message::shortened;
use crate::source::rebuilt::some_reasons;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};

/// The maximum size of a file of records: an image or a layer takes about 1500 bytes.
pub(super) const MAX_BYTES: u64 = 16 << 20;
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

/// The images of one file.
#[derive(Debug, Default)]
pub(super) struct ImageRecords {
    pub all: Vec<ImageRecord>,
    /// Positions in `all`.
    by_id: HashMap<Digest, usize>,
    by_name: HashMap<Name, usize>,
    /// The reasons why entries are passed over, as the end of a sentence.
    pub damage: Option<String>,
}

impl ImageRecords {
    fn new(all: Vec<ImageRecord>, wrong: &[String]) -> ImageRecords {
        let damage = some_reasons(wrong);
        let mut records = ImageRecords { all, by_id: HashMap::new(), by_name: HashMap::new(), damage };
        for (at, record) in records.all.iter().enumerate() {
            records.by_id.entry(record.id).or_insert(at);
            for name in record.full_names() {
                records.by_name.entry(name).or_insert(at);
            }
        }
        records
    }

    /// The image with the ID `id`.
    pub fn with_id(&self, id: &Digest) -> Option<&ImageRecord> {
        self.all.get(*self.by_id.get(id)?)
    }

    /// The image with the full name `name`.
    pub fn with_name(&self, name: &Name) -> Option<&ImageRecord> {
        self.all.get(*self.by_name.get(name)?)
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
    /// The reason why it cannot be used, as the end of a sentence.
    pub damage: Option<String>,
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

/// An entry of a file of records.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry<T> {
    Valid(T),
    Other(IgnoredAny),
}

/// Parses `images.json`. An entry that is damaged hides no other. The error is the reason as the end of a sentence.
pub(super) fn image_records(text: &[u8]) -> Result<ImageRecords, String> {
    let mut names = 0;
    let (mut records, mut wrong) = (Vec::new(), Vec::new());
    for entry in parse::<StoredImage>(text)? {
        let record = match entry {
            Entry::Valid(image) => image_record(image),
            Entry::Other(_) => Err("an entry is not the record of an image".to_owned()),
        };
        match record {
            Ok(record) => {
                names += record.names.len();
                records.push(record);
            }
            Err(why) => wrong.push(why),
        }
    }
    match names {
        names if names <= MAX_NAMES => Ok(ImageRecords::new(records, &wrong)),
        names => Err(format!("it has {names} names; at most {MAX_NAMES} are allowed")),
    }
}

fn image_record(image: StoredImage) -> Result<ImageRecord, String> {
    let documents = image.big_data_names.unwrap_or_default();
    let manifests = documents.iter().filter_map(|key| key.strip_prefix(MANIFEST_KEY)?.parse().ok());
    let layer = image.layer.filter(|layer| !layer.is_empty());
    let is_list = layer.is_none() && documents.iter().any(|key| key == INSTANCES_KEY);
    let names = image.names.unwrap_or_default();
    let of = |what: &str| match names.first() {
        Some(name) => format!("{what} ({})", shortened(name)),
        None => what.to_owned(),
    };
    Ok(ImageRecord {
        id: id(&image.id, &of("an image"))?,
        digest: image.digest.and_then(|digest| digest.parse().ok()),
        layer: layer.map(|layer| id(&layer, &of("an image's layer"))).transpose()?,
        // A name that is not valid is left out: no tool could ask for it.
        names: names.iter().filter_map(|name| Some(name.parse::<Reference>().ok()?.tagged())).collect(),
        manifests: manifests.take(MAX_MANIFESTS).collect(),
        is_list,
    })
}

/// Parses `layers.json`. An entry that is damaged hides no other. The error is the reason as the end of a sentence.
pub(super) fn layer_records(text: &[u8]) -> Result<LayerRecords, String> {
    let mut records = LayerRecords::new();
    for entry in parse::<StoredRecord>(text)? {
        // Without its ID, no image has the layer.
        let Entry::Valid(layer) = entry else { continue };
        let Ok(id) = id(&layer.id, "a layer") else { continue };
        records.entry(id).or_insert_with(|| layer_record(id, layer));
    }
    Ok(records)
}

fn layer_record(layer_id: Digest, layer: StoredRecord) -> LayerRecord {
    let flags = layer.flags.unwrap_or_default();
    let parent = layer.parent.filter(|parent| !parent.is_empty());
    let diff_id = layer.diff_digest.filter(|digest| !digest.is_empty());
    let wrong = |digest: &str| format!("the diff digest {:?} of a layer is not a digest", shortened(digest));
    let parent = parent.map(|parent| id(&parent, "a layer's parent")).transpose();
    let diff_id = diff_id.map(|digest| digest.parse().map_err(|_| wrong(&digest))).transpose();
    LayerRecord {
        id: layer_id,
        damage: parent.as_ref().err().or(diff_id.as_ref().err()).cloned(),
        parent: parent.unwrap_or_default(),
        diff_id: diff_id.unwrap_or_default(),
        bytes: layer.diff_size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
        created: layer.created.unwrap_or_default(),
        is_incomplete: flags.contains_key("incomplete"),
        is_composefs: flags.keys().any(|flag| flag.contains("composefs")),
    }
}

fn parse<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<Vec<Entry<T>>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    json_bounds(text)?;
    // The error may quote a text of the file.
    let wrong = |error: serde_json::Error| format!("it is not valid ({})", shortened(&error.to_string()));
    let records: Option<Vec<Entry<T>>> = serde_json::from_slice(text).map_err(wrong)?;
    Ok(records.unwrap_or_default())
}

/// An ID, which is 64 hexadecimal characters.
fn id(text: &str, what: &str) -> Result<Digest, String> {
    let parsed = format!("sha256:{text}").parse();
    parsed.map_err(|_| format!("the ID {:?} of {what} is not 64 hexadecimal characters", shortened(text)))
}
