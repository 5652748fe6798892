//! The rewrite of a streamed archive of docker's old form, in one pass and in its own form, with other names.
//!
//! Layers are hashed while they are written. `manifest.json` is written last, with the new names, and only where all
//! layers agree with the configs. Otherwise the tar has no end, and the loader stores nothing.

use crate::error::{Error, Result};
use crate::image::{Name, Reference};
use crate::source::{Root, Selector, select};
use crate::tarball::manifest_json;
use crate::tarball::read::contents::{ArchiveImage, INDEX, ImageForm, LAYOUT};
use crate::tarball::read::documents::StreamContents;
use crate::tarball::read::images::agreed_images;
use crate::tarball::read::steps::{Step, Steps};
use crate::tarball::read::stream::ArchiveStream;
use crate::tarball::read::summary::StreamSummary;
use crate::tarball::tar::entries::{EntryKind, TarEntry};
use crate::tarball::tar::header::HeaderKind;
use crate::tarball::tar::output::{TarOutput, TarWriter};
use crate::tarball::tar::path::{follow, shown};
use std::collections::{BTreeMap, HashMap};

const BUFFER_BYTES: usize = 256 << 10;

/// How [`rewrite`] changes an archive.
pub struct Rewrite<'a> {
    /// The images that `manifest.json` lists; all when empty.
    pub selectors: &'a [Selector],
    /// The new names of an image, by its old ones.
    pub rename: &'a dyn Fn(&[Name]) -> Result<Vec<Name>>,
    /// Receives the number of bytes written since the last call. An error from it ends the rewrite.
    pub moved: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// Writes `stream` to `out` in its own form and in one pass, with other names. It is for archives whose layer digests
/// are not known beforehand. Images that are not selected lose their entry in `manifest.json`.
///
/// # Errors
/// - `Invalid`: a layer does not match the `diff_ids` of its config, or the archive is malformed.
/// - `NotFound`, `Usage`: as [`crate::source::Store::roots`].
/// - `Usage`: a new name is not a full name with a tag, or two images would get the same name.
pub fn rewrite(
    mut stream: ArchiveStream,
    out: &mut (dyn std::io::Write + Send),
    how: Rewrite<'_>,
) -> Result<StreamSummary> {
    let label = stream.label.clone();
    steps(&mut stream, out, how).map_err(|e| e.at(label))
}

fn steps(stream: &mut ArchiveStream, out: &mut (dyn std::io::Write + Send), how: Rewrite<'_>) -> Result<StreamSummary> {
    let Rewrite { selectors, rename, moved } = how;
    let mut tar = TarWriter::new(TarOutput::Pipe(Box::new(out)), "the archive");
    let mut reported = 0;
    let mut moved = |at: u64| moved(at - std::mem::replace(&mut reported, at));
    let mut early = stream.early_steps().into_iter();
    loop {
        let step = match early.next() {
            Some(step) => step,
            None => stream.steps.step()?,
        };
        match step {
            Step::End => break,
            Step::Layer => layer(&mut stream.steps, &mut tar, &mut moved)?,
            Step::Document(name) => document(&stream.steps.held, &mut tar, &name)?,
            Step::Other(entry) => other(&mut tar, &entry)?,
            Step::Skipped(_, bytes) if bytes.is_empty() => {}
            Step::Skipped(name, bytes) => tar.write_entry(&name, &bytes)?,
        }
    }
    let (images, tail) = agreed_images(&stream.steps.held, &stream.label)?;
    let chosen = select(&tail.roots, selectors)?;
    let images = renamed(&images, &chosen, rename)?;
    if let Some(bytes) = stream.steps.held.documents.get(manifest_json::REPOSITORIES) {
        tar.write_entry(manifest_json::REPOSITORIES, &repositories(bytes, &images))?;
    }
    let entries: Vec<manifest_json::ManifestEntry> = images.into_iter().map(|image| image.entry).collect();
    tar.write_entry(manifest_json::FILE, &manifest_json::write(&entries))?;
    moved(tar.at())?;
    tar.finish()?;
    Ok(tail)
}

fn layer(steps: &mut Steps, tar: &mut TarWriter<'_>, moved: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
    let Some((name, size)) = steps.current() else { return Ok(()) };
    tar.write_header(name, HeaderKind::File, size)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match steps.read_current(&mut buffer)? {
            0 => break,
            n => tar.write(&buffer[..n])?,
        }
        moved(tar.at())?;
    }
    tar.write_padding(size)
}

fn document(held: &StreamContents, tar: &mut TarWriter<'_>, name: &str) -> Result<()> {
    match name {
        manifest_json::FILE | manifest_json::REPOSITORIES => Ok(()),
        INDEX | LAYOUT => Err(Error::invalid(format!(
            "{name}: comes after a layer that is not stored under its digest, so the archive cannot be copied in its own form; \
             save it to a file first"
        ))),
        name => match held.documents.get(name) {
            Some(bytes) => tar.write_entry(name, bytes),
            None => Err(Error::failed(format!("the document {} was not stored", shown(name)))),
        },
    }
}

/// Writes a link or a directory. A link that leads out of the archive is skipped.
fn other(tar: &mut TarWriter<'_>, entry: &TarEntry) -> Result<()> {
    match &entry.kind {
        EntryKind::Directory if entry.name.is_empty() => Ok(()),
        EntryKind::Directory => tar.write_header(&format!("{}/", entry.name), HeaderKind::Directory, 0),
        EntryKind::SymbolicLink(target) if follow(&entry.name, target).is_none() => Ok(()),
        EntryKind::SymbolicLink(target) => tar.write_header(&entry.name, HeaderKind::SymbolicLink(target), 0),
        EntryKind::HardLink(target) => tar.write_header(&entry.name, HeaderKind::HardLink(target), 0),
        EntryKind::File => Err(Error::failed("a file is not a link")),
    }
}

/// An image with its new names.
struct RenamedImages {
    entry: manifest_json::ManifestEntry,
    old: Vec<Name>,
    new: Vec<Reference>,
}

/// The `chosen` ones of `images`, with their new names.
fn renamed(
    images: &[(ArchiveImage, Root)],
    chosen: &[Root],
    rename: &dyn Fn(&[Name]) -> Result<Vec<Name>>,
) -> Result<Vec<RenamedImages>> {
    let mut owners: HashMap<Reference, usize> = HashMap::new();
    let mut renamed = Vec::new();
    for (at, (image, root)) in images.iter().enumerate() {
        let ImageForm::Legacy(saved) = &image.form else { continue };
        let mine = |other: &&Root| {
            let named = other.name.as_ref().map_or(image.names.is_empty(), |name| image.names.contains(name));
            named && other.descriptor.digest == root.descriptor.digest
        };
        let mine: Vec<&Root> = chosen.iter().filter(mine).collect();
        if mine.is_empty() {
            continue;
        }
        let old: Vec<Name> = mine.iter().filter_map(|root| root.name.clone()).collect();
        let new: Vec<Reference> = rename(&old)?.iter().map(tagged).collect::<Result<_>>()?;
        if let Some(name) = new.iter().find(|name| owners.insert((*name).clone(), at).is_some_and(|other| other != at))
        {
            return Err(Error::usage(format!("several images cannot all become {name}; name one of them in SRC")));
        }
        let tags: Vec<String> = new.iter().map(Reference::to_string).collect();
        let entry = manifest_json::ManifestEntry {
            config: saved.config.clone(),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: saved.layers.clone(),
        };
        renamed.push(RenamedImages { entry, old, new });
    }
    Ok(renamed)
}

/// `name` as a reference with a tag. Loaders reject the complete archive for one tag that is not a reference.
fn tagged(name: &Name) -> Result<Reference> {
    let reference = name.reference().filter(|reference| reference.tag.is_some() && reference.digest.is_none());
    reference.ok_or_else(|| Error::usage(format!("{name} is not a full name with a tag, which the destination needs")))
}

/// `repositories` with the new names, for the layers of the old ones.
fn repositories(bytes: &[u8], images: &[RenamedImages]) -> Vec<u8> {
    let old = manifest_json::repositories(bytes);
    let mut new = BTreeMap::new();
    for image in images {
        let names = image.old.iter().filter_map(Name::reference);
        let Some(layer) = names.into_iter().find_map(|name| old.get(&name)) else { continue };
        new.extend(image.new.iter().map(|name| (name.clone(), layer.clone())));
    }
    manifest_json::write_repositories(&new)
}
