//! An archive of docker's old form on its way to a loader, in one pass and in its own form: layers are hashed as they
//! pass, `manifest.json` is held back and written last, with the new names and only where everything agreed. A loader
//! never gets to see it otherwise, and the tar has no end.

use crate::error::{Error, Result};
use crate::image::{Name, Reference};
use crate::source::{Relay, Root, StreamSummary, select};
use crate::tarball::manifest_json;
use crate::tarball::read::contents::{ArchiveImage, INDEX, ImageForm, LAYOUT};
use crate::tarball::read::stream::{ArchiveStream, Step};
use crate::tarball::tar::entries::{EntryKind, TarEntry};
use crate::tarball::tar::header::HeaderKind;
use crate::tarball::tar::output::{Output, TarWriter};
use crate::tarball::tar::path::{follow, shown};
use std::collections::{BTreeMap, HashMap};

const BUFFER: usize = 256 << 10;

pub(crate) fn relay(stream: &mut ArchiveStream, relay: Relay<'_>) -> Result<StreamSummary> {
    let Relay { out, picks, rename, moved } = relay;
    let mut tar = TarWriter::new(Output::Pipe(Box::new(out)), "the archive");
    let mut told = 0;
    let mut moved = |at: u64| moved(at - std::mem::replace(&mut told, at));
    let mut early = stream.early_steps().into_iter();
    loop {
        let step = match early.next() {
            Some(step) => step,
            None => stream.step()?,
        };
        match step {
            Step::End => break,
            Step::Layer => layer(stream, &mut tar, &mut moved)?,
            Step::Document(name) => document(stream, &mut tar, &name)?,
            Step::Other(entry) => other(&mut tar, &entry)?,
            Step::Junk(_, bytes) if bytes.is_empty() => {}
            Step::Junk(name, bytes) => tar.write_entry(&name, &bytes)?,
        }
    }
    let (images, tail) = stream.settle()?;
    let chosen = select(&tail.roots, picks)?;
    let images = renamed(&images, &chosen, rename)?;
    if let Some(bytes) = stream.held.documents.get(manifest_json::REPOSITORIES) {
        tar.write_entry(manifest_json::REPOSITORIES, &repositories(bytes, &images))?;
    }
    let entries: Vec<manifest_json::ManifestEntry> = images.into_iter().map(|image| image.entry).collect();
    tar.write_entry(manifest_json::FILE, &manifest_json::write(&entries))?;
    moved(tar.at())?;
    tar.finish()?;
    Ok(tail)
}

fn layer(stream: &mut ArchiveStream, tar: &mut TarWriter<'_>, moved: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
    let Some((name, size)) = stream.current() else { return Ok(()) };
    tar.write_header(name, HeaderKind::File, size)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read_current(&mut buffer)? {
            0 => break,
            n => tar.write(&buffer[..n])?,
        }
        moved(tar.at())?;
    }
    tar.write_padding(size)
}

fn document(stream: &ArchiveStream, tar: &mut TarWriter<'_>, name: &str) -> Result<()> {
    match name {
        manifest_json::FILE | manifest_json::REPOSITORIES => Ok(()),
        INDEX | LAYOUT => Err(Error::invalid(format!(
            "{name} came after a layer that lies under no digest, so the archive cannot be passed on as it is; save it to a file first"
        ))),
        name => match stream.held.documents.get(name) {
            Some(bytes) => tar.write_entry(name, bytes),
            None => Err(Error::failed(format!("the document {} was not kept", shown(name)))),
        },
    }
}

/// A link or a directory; a link that leads out of the archive stays behind.
fn other(tar: &mut TarWriter<'_>, entry: &TarEntry) -> Result<()> {
    match &entry.kind {
        EntryKind::Directory if entry.name.is_empty() => Ok(()),
        EntryKind::Directory => tar.write_header(&format!("{}/", entry.name), HeaderKind::Directory, 0),
        EntryKind::SymbolicLink(target) if follow(&entry.name, target).is_none() => Ok(()),
        EntryKind::SymbolicLink(target) => tar.write_header(&entry.name, HeaderKind::SymbolicLink(target), 0),
        EntryKind::HardLink(target) => tar.write_header(&entry.name, HeaderKind::HardLink(target), 0),
        EntryKind::File => Err(Error::failed("a file is no link")),
    }
}

/// An image as it is passed on.
struct Renamed {
    entry: manifest_json::ManifestEntry,
    old: Vec<Name>,
    new: Vec<Reference>,
}

/// Those of `images` that are `chosen`, under their new names.
fn renamed(
    images: &[(ArchiveImage, Root)],
    chosen: &[Root],
    rename: &dyn Fn(&[Name]) -> Result<Vec<Name>>,
) -> Result<Vec<Renamed>> {
    let mut owners: HashMap<Reference, usize> = HashMap::new();
    let mut passed = Vec::new();
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
        let new: Vec<Reference> = rename(&old)?.iter().map(full).collect::<Result<_>>()?;
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
        passed.push(Renamed { entry, old, new });
    }
    Ok(passed)
}

/// Loaders refuse a whole archive for one tag that is no reference.
fn full(name: &Name) -> Result<Reference> {
    let reference = name.reference().filter(|reference| reference.tag.is_some() && reference.digest.is_none());
    reference.ok_or_else(|| Error::usage(format!("{name} is no full name with a tag, which the destination needs")))
}

/// `repositories` with the new names, for the layers that the old ones stood for.
fn repositories(bytes: &[u8], images: &[Renamed]) -> Vec<u8> {
    let old = manifest_json::repositories(bytes);
    let mut new = BTreeMap::new();
    for image in images {
        let names = image.old.iter().filter_map(Name::reference);
        let Some(layer) = names.into_iter().find_map(|name| old.get(&name)) else { continue };
        new.extend(image.new.iter().map(|name| (name.clone(), layer.clone())));
    }
    manifest_json::write_repositories(&new)
}
