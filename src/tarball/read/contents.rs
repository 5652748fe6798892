//! Which images an archive has: `index.json` where it is an OCI layout, `manifest.json` otherwise. Where it has both
//! they must agree, since tools differ in which they read.

use crate::error::{Error, Result};
use crate::image::{
    Coding, Config, Descriptor, Digest, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name, Platform, implicit_index,
    json_tree, layer_coding,
};
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::{Saved, blob_digest};
use crate::tarball::tar::path::shown;
use std::collections::HashMap;

pub(crate) const INDEX: &str = "index.json";
pub(crate) const LAYOUT: &str = "oci-layout";
/// A small file that is read whole, in bytes at most.
pub(crate) const MAX_DOCUMENT: u64 = MAX_MANIFEST_BYTES;
/// Manifests that are read to compare the two lists, in bytes at most.
const MAX_COMPARED: u64 = 32 << 20;
/// Configs of all images without a manifest, in bytes at most: each is hashed and read for each image that has it.
const MAX_CONFIGS: u64 = 256 << 20;
/// Indexes inside indexes, at most.
pub(crate) const MAX_DEPTH: usize = 8;

/// An archive's files, whether they lie in a file or have passed.
pub(crate) trait Contents {
    /// The small file `name` whole, `None` where there is none; `Invalid` where it is larger than `MAX_DOCUMENT`.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Whether the name of some entry has a backslash in it.
    fn has_backslashes(&self) -> bool;
    /// The size of the file `name`, in bytes; `None` where there is none.
    fn size(&self, name: &str) -> Result<Option<u64>>;
    /// The layer file `name`, which is `diff_id` when unpacked: by what was hashed, or where it lies unpacked, by
    /// what will be hashed as it is read.
    fn layer(&self, name: &str, diff_id: &Digest) -> Result<Layer>;
}

/// A layer file of the old form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub coding: Coding,
}

/// One image of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Empty where it has none.
    pub names: Vec<Name>,
    pub what: What,
    /// The index over its platforms, which lie side by side in `index.json`; it is nowhere in the archive.
    pub made: Option<Manifest>,
    /// Its place in `manifest.json`, if it is there.
    pub saved_at: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A manifest or an index that lies there.
    Manifest(Box<Descriptor>),
    /// An image without a manifest.
    Saved(Saved),
}

/// The images of `contents`.
pub(crate) fn list(contents: &dyn Contents) -> Result<Vec<Listed>> {
    let saved = contents.document(manifest_json::FILE)?.map(|bytes| manifest_json::parse(&bytes)).transpose()?;
    configs_fit(contents, saved.as_deref().unwrap_or_default())?;
    let Some(index) = contents.document(INDEX)? else {
        return Ok(old_form(saved.ok_or_else(|| nothing(contents))?));
    };
    check_version(contents)?;
    let index = LayoutIndex::parse(&index)?;
    let entries = implicit_index::images(index.named()?, &|entry| platform(contents, entry))?;
    let listed = |entry: implicit_index::ListedImage| Listed {
        names: entry.name.into_iter().collect(),
        what: What::Manifest(Box::new(entry.root)),
        made: entry.index,
        saved_at: None,
    };
    let mut images: Vec<Listed> = entries.into_iter().map(listed).collect();
    if images.is_empty() {
        // docker 25.0 left the list out where it saved by digest; `manifest.json` beside it is whole.
        return Ok(old_form(saved.unwrap_or_default()));
    }
    if let Some(saved) = saved {
        let mut compared = Compared::new(contents, &images)?;
        for (at, image) in saved.iter().enumerate() {
            compared.agree(at, image, &mut images)?;
        }
    }
    Ok(images)
}

/// What the config of the manifest at `entry` says; none where it cannot be read.
fn platform(contents: &dyn Contents, entry: &Descriptor) -> Option<Platform> {
    let bytes = contents.document(&entry.digest.blob_path()).ok()??;
    let manifest = Manifest::parse(bytes, entry).ok()?;
    let config = contents.document(&manifest.config()?.digest.blob_path()).ok()??;
    Config::parse(&config).ok().map(|config| config.platform()).filter(|platform| !platform.os.is_empty())
}

fn configs_fit(contents: &dyn Contents, saved: &[Saved]) -> Result<()> {
    let mut bytes = 0;
    for image in saved {
        bytes += contents.size(&image.config)?.unwrap_or(0).min(MAX_DOCUMENT);
    }
    match bytes > MAX_CONFIGS {
        true => Err(Error::invalid(format!(
            "the configs in manifest.json have together {bytes} bytes, more than the {MAX_CONFIGS} allowed"
        ))),
        false => Ok(()),
    }
}

fn old_form(saved: Vec<Saved>) -> Vec<Listed> {
    let image = |(at, saved): (usize, Saved)| Listed {
        names: saved.tags.clone(),
        what: What::Saved(saved),
        made: None,
        saved_at: Some(at),
    };
    saved.into_iter().enumerate().map(image).collect()
}

fn nothing(contents: &dyn Contents) -> Error {
    match contents.document(manifest_json::REPOSITORIES) {
        Ok(Some(_)) => Error::invalid(
            "this archive is of docker's first form (repositories without manifest.json, before docker 1.10), which has no image configs; load it into a docker and save it again",
        ),
        _ => Error::invalid(format!(
            "this is not an archive of images: it has neither index.json nor manifest.json{}",
            backslash_hint(contents)
        )),
    }
}

/// The sentence for an archive, called `label`, that lists no image.
pub(crate) fn empty(contents: &dyn Contents, label: &str) -> String {
    let lists = [(INDEX, "index.json lists no manifests"), (manifest_json::FILE, "manifest.json is an empty list")];
    let there = lists.iter().filter(|(name, _)| matches!(contents.size(name), Ok(Some(_))));
    let found: Vec<&str> = there.map(|(_, what)| *what).collect();
    format!("{label} holds no image: {}", found.join(", and "))
}

fn check_version(contents: &dyn Contents) -> Result<()> {
    let Some(bytes) = contents.document(LAYOUT)? else { return Ok(()) };
    let value = json_tree(&bytes).map_err(|why| Error::invalid(format!("the file oci-layout is refused: {why}")))?;
    match value.get("imageLayoutVersion").and_then(|version| version.as_str()) {
        Some(version) if version.starts_with("1.") => Ok(()),
        Some(version) => {
            Err(Error::invalid(format!("the OCI layout is of version {}; 1.0.0 is known", shown(version))))
        }
        None => Err(Error::invalid("the file oci-layout names no version")),
    }
}

/// What `index.json` has, to compare `manifest.json` with.
struct Compared<'c> {
    contents: &'c dyn Contents,
    named: HashMap<Name, usize>,
    /// By the config's digest: which image it is or belongs to, and its layers.
    configs: HashMap<Digest, Vec<(usize, Vec<Descriptor>)>>,
    bytes: u64,
}

impl<'c> Compared<'c> {
    fn new(contents: &'c dyn Contents, images: &[Listed]) -> Result<Compared<'c>> {
        let mut compared = Compared { contents, named: HashMap::new(), configs: HashMap::new(), bytes: 0 };
        for (at, image) in images.iter().enumerate() {
            compared.named.extend(image.names.iter().map(|name| (name.clone(), at)));
            match (&image.what, &image.made) {
                (_, Some(made)) => made.children().iter().try_for_each(|child| compared.descend(child, at, 1))?,
                (What::Manifest(root), None) => compared.descend(root, at, 0)?,
                (What::Saved(_), None) => {}
            }
        }
        Ok(compared)
    }

    /// Reads what lies under `entry`, as far as it is there: engines keep only some of an index.
    fn descend(&mut self, entry: &Descriptor, at: usize, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("indexes are nested more than {MAX_DEPTH} deep")));
        }
        if !entry.names_manifest() {
            return Ok(());
        }
        let Some(bytes) = self.contents.document(&entry.digest.blob_path())? else { return Ok(()) };
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_COMPARED {
            return Err(Error::invalid(format!("the archive's manifests have more than {MAX_COMPARED} bytes")));
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

    /// `saved`, which is at `saved_at` in its list, must be one of `images`, whose names are then its tags too.
    fn agree(&mut self, saved_at: usize, saved: &Saved, images: &mut [Listed]) -> Result<()> {
        let config = match blob_digest(&saved.config) {
            Some(digest) => digest,
            None => Digest::of(&document(self.contents, &saved.config)?),
        };
        let same = self.configs.get(&config).into_iter().flatten();
        let homes: Vec<usize> = same.filter(|(_, layers)| same_layers(layers, saved)).map(|(at, _)| *at).collect();
        let disagree = |which: String| {
            Error::invalid(format!(
                "manifest.json and index.json disagree: {which}, so tools would load different images from this archive"
            ))
        };
        let full = |image: &Listed| image.names.iter().any(|name| name.reference().is_some());
        let home = homes.iter().copied().min_by_key(|at| full(&images[*at]));
        let home = home.ok_or_else(|| disagree(format!("the image with config {config} is in manifest.json only")))?;
        homes.iter().for_each(|at| images[*at].saved_at = Some(saved_at));
        for tag in &saved.tags {
            match self.named.get(tag) {
                Some(at) if homes.contains(at) => {}
                Some(_) => return Err(disagree(format!("{tag} is another image in each"))),
                None => {
                    // An index that has only the tag means this name by it.
                    images[home].names.retain(|name| name.reference().is_some() || name.tag() != tag.tag());
                    images[home].names.push(tag.clone());
                    self.named.insert(tag.clone(), home);
                }
            }
        }
        Ok(())
    }
}

/// Whether `saved` lists `layers`, in order; only what is foreign or no file system's layer may be left out.
fn same_layers(layers: &[Descriptor], saved: &Saved) -> bool {
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

/// A small file that has to be there.
pub(crate) fn document(contents: &dyn Contents, name: &str) -> Result<Vec<u8>> {
    let found = contents.document(name)?;
    found.ok_or_else(|| missing(contents, name))
}

/// The error for the file `name`, which a list of images names and which is not there.
pub(crate) fn missing(contents: &dyn Contents, name: &str) -> Error {
    let list = if blob_digest(name).is_some() { "the archive's list of images" } else { manifest_json::FILE };
    let hint = backslash_hint(contents);
    Error::invalid(format!("{list} names the file {}, which is not in the archive{hint}", shown(name)))
}

/// Tars parted by the separator of Windows (seen of bazel's rules): no tool on another system finds the files in them.
pub(crate) fn backslash_hint(contents: &dyn Contents) -> &'static str {
    match contents.has_backslashes() {
        true => "; its files have \\ in their names, as written on Windows; write it again with / in the names",
        false => "",
    }
}
