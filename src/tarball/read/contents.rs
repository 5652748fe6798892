//! The images of an archive: those of `index.json` in an OCI layout, otherwise those of `manifest.json`. If an archive
//! has both files, they must agree, since tools differ in which one they read.

use crate::error::{Error, Result};
use crate::image::{
    Coding, Config, Descriptor, Digest, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name, Platform, implicit_index,
    json_tree, layer_coding,
};
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::{SavedImage, blob_digest};
use crate::tarball::tar::path::shown;
use std::collections::HashMap;

pub(crate) const INDEX: &str = "index.json";
pub(crate) const LAYOUT: &str = "oci-layout";
/// The maximum size of a small file that is read completely.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = MAX_MANIFEST_BYTES;
/// The limit of all manifests that are read to compare the two lists.
const MAX_COMPARED_BYTES: u64 = 32 << 20;
/// The limit of all configs in `manifest.json`: a config is hashed and parsed for each image that has it.
const MAX_CONFIGS_BYTES: u64 = 256 << 20;
/// The maximum nesting of indexes.
pub(crate) const MAX_DEPTH: usize = 8;

/// The files of an archive, either seekable or already streamed.
pub(crate) trait Contents {
    /// Returns the small file `name`; `None` if it does not exist. More than `MAX_DOCUMENT_BYTES` are `Invalid`.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Whether the name of an entry contains a backslash.
    fn has_backslashes(&self) -> bool;
    /// Returns the size of the file `name` in bytes; `None` if it does not exist.
    fn size(&self, name: &str) -> Result<Option<u64>>;
    /// Returns the layer file `name`, which must have the diff ID `diff_id`. The digest of an uncompressed file may
    /// still be unverified; it is hashed when it is read.
    fn layer(&self, name: &str, diff_id: &Digest) -> Result<Layer>;
}

/// A layer file of the legacy form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub digest: Digest,
    /// The size of the file in bytes.
    pub size: u64,
    pub coding: Coding,
}

/// One image of an archive.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveImage {
    /// The names; may be empty.
    pub names: Vec<Name>,
    pub form: ImageForm,
    /// The index that was created for platforms with separate entries in `index.json`; it is not in the archive.
    pub index: Option<Manifest>,
    /// The position in `manifest.json`, if the image is in it.
    pub manifest_json_at: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) enum ImageForm {
    /// A manifest or an index in the archive.
    Manifest(Box<Descriptor>),
    /// An image of docker-save's legacy form, without a manifest.
    Legacy(SavedImage),
}

/// Lists the images of `contents`.
pub(crate) fn list(contents: &dyn Contents) -> Result<Vec<ArchiveImage>> {
    let saved = contents.document(manifest_json::FILE)?.map(|bytes| manifest_json::parse(&bytes)).transpose()?;
    configs_fit(contents, saved.as_deref().unwrap_or_default())?;
    let Some(index) = contents.document(INDEX)? else {
        return Ok(legacy(saved.ok_or_else(|| no_list(contents))?));
    };
    check_version(contents)?;
    let index = LayoutIndex::parse(&index)?;
    let entries = implicit_index::images(index.named()?, &|entry| platform(contents, entry))?;
    let listed = |entry: implicit_index::ListedImage| ArchiveImage {
        names: entry.name.into_iter().collect(),
        form: ImageForm::Manifest(Box::new(entry.root)),
        index: entry.index,
        manifest_json_at: None,
    };
    let mut images: Vec<ArchiveImage> = entries.into_iter().map(listed).collect();
    if images.is_empty() {
        // docker 25.0 wrote an empty list for an image saved by digest, but a complete `manifest.json`.
        return Ok(legacy(saved.unwrap_or_default()));
    }
    if let Some(saved) = saved {
        let mut compared = Compared::new(contents, &images)?;
        for (at, image) in saved.iter().enumerate() {
            compared.merge(at, image, &mut images)?;
        }
    }
    Ok(images)
}

/// Returns the platform in the config of the manifest `entry`; `None` if it cannot be read.
fn platform(contents: &dyn Contents, entry: &Descriptor) -> Option<Platform> {
    let bytes = contents.document(&entry.digest.blob_path()).ok()??;
    let manifest = Manifest::parse(bytes, entry).ok()?;
    let config = contents.document(&manifest.config()?.digest.blob_path()).ok()??;
    Config::parse(&config).ok().map(|config| config.platform()).filter(|platform| !platform.os.is_empty())
}

fn configs_fit(contents: &dyn Contents, saved: &[SavedImage]) -> Result<()> {
    let mut bytes = 0;
    for image in saved {
        bytes += contents.size(&image.config)?.unwrap_or(0).min(MAX_DOCUMENT_BYTES);
    }
    match bytes > MAX_CONFIGS_BYTES {
        true => Err(Error::invalid(format!(
            "the configs in manifest.json have {bytes} bytes in total; at most {MAX_CONFIGS_BYTES} are allowed"
        ))),
        false => Ok(()),
    }
}

fn legacy(saved: Vec<SavedImage>) -> Vec<ArchiveImage> {
    let image = |(at, saved): (usize, SavedImage)| ArchiveImage {
        names: saved.tags.clone(),
        form: ImageForm::Legacy(saved),
        index: None,
        manifest_json_at: Some(at),
    };
    saved.into_iter().enumerate().map(image).collect()
}

fn no_list(contents: &dyn Contents) -> Error {
    match contents.document(manifest_json::REPOSITORIES) {
        Ok(Some(_)) => Error::invalid(
            "this archive is in docker's first form (repositories without manifest.json, before docker 1.10), which has no image configs; load it into docker and save it again",
        ),
        _ => Error::invalid(format!(
            "this is not an image archive: it has neither index.json nor manifest.json{}",
            backslash_hint(contents)
        )),
    }
}

/// Returns the message for the archive `label` that lists no image.
pub(crate) fn empty(contents: &dyn Contents, label: &str) -> String {
    let lists = [(INDEX, "index.json lists no manifests"), (manifest_json::FILE, "manifest.json is an empty list")];
    let present = lists.iter().filter(|(name, _)| matches!(contents.size(name), Ok(Some(_))));
    let reasons: Vec<&str> = present.map(|(_, reason)| *reason).collect();
    format!("{label} contains no images: {}", reasons.join(", and "))
}

fn check_version(contents: &dyn Contents) -> Result<()> {
    let Some(bytes) = contents.document(LAYOUT)? else { return Ok(()) };
    let value = json_tree(&bytes).map_err(|why| Error::invalid(format!("the file oci-layout is refused: {why}")))?;
    match value.get("imageLayoutVersion").and_then(|version| version.as_str()) {
        Some(version) if version.starts_with("1.") => Ok(()),
        Some(version) => {
            Err(Error::invalid(format!("the OCI layout has version {}; only 1.x is supported", shown(version))))
        }
        None => Err(Error::invalid("the file oci-layout has no imageLayoutVersion")),
    }
}

/// The images of `index.json`, for comparison with `manifest.json`.
struct Compared<'c> {
    contents: &'c dyn Contents,
    named: HashMap<Name, usize>,
    /// By the digest of a config: the position of its image, and its layers.
    configs: HashMap<Digest, Vec<(usize, Vec<Descriptor>)>>,
    bytes: u64,
}

impl<'c> Compared<'c> {
    fn new(contents: &'c dyn Contents, images: &[ArchiveImage]) -> Result<Compared<'c>> {
        let mut compared = Compared { contents, named: HashMap::new(), configs: HashMap::new(), bytes: 0 };
        for (at, image) in images.iter().enumerate() {
            compared.named.extend(image.names.iter().map(|name| (name.clone(), at)));
            match (&image.form, &image.index) {
                (_, Some(made)) => made.children().iter().try_for_each(|child| compared.descend(child, at, 1))?,
                (ImageForm::Manifest(root), None) => compared.descend(root, at, 0)?,
                (ImageForm::Legacy(_), None) => {}
            }
        }
        Ok(compared)
    }

    /// Reads the manifests under `entry` that exist; engines store only some manifests of an index.
    fn descend(&mut self, entry: &Descriptor, at: usize, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("indexes are nested more than {MAX_DEPTH} deep")));
        }
        if !entry.names_manifest() {
            return Ok(());
        }
        let Some(bytes) = self.contents.document(&entry.digest.blob_path())? else { return Ok(()) };
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_COMPARED_BYTES {
            return Err(Error::invalid(format!(
                "the manifests in the archive are too large; at most {MAX_COMPARED_BYTES} bytes are allowed"
            )));
        }
        let manifest = Manifest::parse(bytes, entry)?;
        for child in manifest.children() {
            self.descend(child, at, depth + 1)?;
        }
        if let Some(config) = manifest.config() {
            self.configs.entry(config.digest).or_default().push((at, manifest.layers().to_vec()));
        }
        Ok(())
    }

    /// Adds the tags of `saved`, which is at `saved_at` in `manifest.json`, to the same image of `images`. Fails if there
    /// is none, or if a tag belongs to another image.
    fn merge(&mut self, saved_at: usize, saved: &SavedImage, images: &mut [ArchiveImage]) -> Result<()> {
        let config = match blob_digest(&saved.config) {
            Some(digest) => digest,
            None => Digest::of(&document(self.contents, &saved.config)?),
        };
        let same = self.configs.get(&config).into_iter().flatten();
        let matching: Vec<usize> = same.filter(|(_, layers)| same_layers(layers, saved)).map(|(at, _)| *at).collect();
        let disagree = |which: String| {
            Error::invalid(format!(
                "manifest.json and index.json disagree: {which}, so tools would load different images"
            ))
        };
        let has_full_name = |image: &ArchiveImage| image.names.iter().any(|name| name.reference().is_some());
        let target = matching.iter().copied().min_by_key(|at| has_full_name(&images[*at]));
        let target =
            target.ok_or_else(|| disagree(format!("the image with config {config} is only in manifest.json")))?;
        matching.iter().for_each(|at| images[*at].manifest_json_at = Some(saved_at));
        for tag in &saved.tags {
            match self.named.get(tag) {
                Some(at) if matching.contains(at) => {}
                Some(_) => return Err(disagree(format!("{tag} is a different image in each"))),
                None => {
                    // A name in the index that is only this tag means the same name.
                    images[target].names.retain(|name| name.reference().is_some() || name.tag() != tag.tag());
                    images[target].names.push(tag.clone());
                    self.named.insert(tag.clone(), target);
                }
            }
        }
        Ok(())
    }
}

/// Whether `saved` lists `layers` in order. Only foreign layers and blobs that are not filesystem layers may be missing.
fn same_layers(layers: &[Descriptor], saved: &SavedImage) -> bool {
    let mut listed = saved.layers.iter().map(|path| blob_digest(path)).peekable();
    for layer in layers {
        if listed.peek() == Some(&Some(layer.digest)) {
            listed.next();
        } else if !layer.is_foreign() && layer_coding(&layer.media_type).is_some() {
            return false;
        }
    }
    listed.next().is_none()
}

/// Returns a small file that must exist.
pub(crate) fn document(contents: &dyn Contents, name: &str) -> Result<Vec<u8>> {
    let found = contents.document(name)?;
    found.ok_or_else(|| missing(contents, name))
}

/// Returns the error for the missing file `name`, which a list of images refers to.
pub(crate) fn missing(contents: &dyn Contents, name: &str) -> Error {
    let list = if blob_digest(name).is_some() { "the list of images" } else { manifest_json::FILE };
    let hint = backslash_hint(contents);
    Error::invalid(format!("{list} refers to the file {}, which is not in the archive{hint}", shown(name)))
}

/// Returns a hint for names with the path separator of Windows (written by bazel's rules), which no other tool finds.
pub(crate) fn backslash_hint(contents: &dyn Contents) -> &'static str {
    match contents.has_backslashes() {
        true => "; its file names contain \\, as written on Windows; create it again with / in the names",
        false => "",
    }
}
