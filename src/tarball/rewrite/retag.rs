//! New names for an image of an archive. The kernel copies all entries but the lists of names, without a check (`verify`
//! checks an archive). The new lists are written after them.

use crate::error::{Error, Result};
use crate::image::{LayoutIndex, Name, Reference};
use crate::source::{Root, Selector};
use crate::tarball::manifest_json;
use crate::tarball::read::contents::{ArchiveImage, INDEX, ImageForm};
use crate::tarball::read::store::ArchiveStore;
use crate::tarball::tar::entries::TarReader;
use crate::tarball::tar::output::{TarOutput, TarWriter};
use crate::tarball::tar::read_at::{ForwardReader, ReadAt};
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

/// The files that are written again.
const LISTS: [&str; 3] = [INDEX, manifest_json::FILE, manifest_json::REPOSITORIES];

/// Writes `from`, whose store is `store`, to `to`, and adds `names` to the image that `selector` selects (`None`: the only
/// one). A name of another image moves to this image. `label` is the name of the result in messages. Returns no file if
/// the image already has the names.
///
/// Fails with `Usage` if `selector` selects several images, or if the archive's form cannot store a name.
pub fn retag<B: ReadAt>(
    store: &ArchiveStore<B>,
    from: &mut File,
    to: File,
    selector: Option<&Selector>,
    names: &[Name],
    label: &str,
) -> Result<(Root, Option<File>)> {
    let (root, image) = store.single_image(selector)?;
    if image.index.is_some() {
        return Err(Error::usage(format!(
            "{label}: the manifests of this image's platforms have no common index; copy the image to a new archive, which \
             creates the index"
        )));
    }
    let names: Vec<Name> = names.iter().map(canonical).collect();
    let mut lists = Vec::new();
    for name in LISTS {
        let Some(bytes) = store.file(name)? else { continue };
        let new = match name {
            INDEX => index(&bytes, image, &names)?,
            manifest_json::FILE => list(&bytes, image, &names)?,
            _ => repositories(&bytes, image, &names),
        };
        lists.push((name, new));
    }
    if lists.iter().all(|(name, new)| store.file(name).is_ok_and(|old| old.is_some_and(|old| same_json(&old, new)))) {
        return Ok((root, None));
    }
    // Loaders look for `manifest.json` first. It is the last entry, so that no loader accepts a truncated archive.
    lists.sort_by_key(|(name, _)| *name == manifest_json::FILE);
    let to = copy_entries(store, from, to, label)?;
    let mut tar = TarWriter::new(TarOutput::File(to), label);
    for (name, bytes) in lists {
        tar.write_entry(name, &bytes)?;
    }
    let file = tar.finish()?.ok_or_else(|| Error::failed("the output of the archive is not a file"))?;
    Ok((root, Some(file)))
}

/// Whether two JSON documents are equal.
fn same_json(one: &[u8], other: &[u8]) -> bool {
    let read = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    read(one).is_some_and(|one| Some(one) == read(other))
}

/// Copies all entries but the lists.
fn copy_entries<B: ReadAt>(store: &ArchiveStore<B>, from: &mut File, mut to: File, label: &str) -> Result<File> {
    for range in ranges(store.bytes())? {
        from.seek(SeekFrom::Start(range.start)).map_err(|e| Error::reading(label, e))?;
        let length = range.end - range.start;
        // The standard library uses `copy_file_range` between two files.
        let copied = io::copy(&mut from.take(length), &mut to).map_err(|e| Error::writing(label, e))?;
        if copied != length {
            return Err(crate::tarball::tar::entries::truncated());
        }
    }
    Ok(to)
}

/// Returns the ranges of all entries but the lists; adjacent ranges are joined.
fn ranges(bytes: &impl ReadAt) -> Result<Vec<Range<u64>>> {
    let mut walk = TarReader::new(ForwardReader::new(bytes));
    let mut ranges: Vec<Range<u64>> = Vec::new();
    while let Some(entry) = walk.next_entry()? {
        let end = entry.data_at + entry.size + crate::tarball::tar::header::padding(entry.size) as u64;
        match ranges.last_mut() {
            _ if LISTS.contains(&entry.name.as_str()) => {}
            Some(last) if last.end == entry.header_at => last.end = end,
            _ => ranges.push(entry.header_at..end),
        }
    }
    Ok(ranges)
}

/// Returns `name` in its canonical form, if it is a reference.
fn canonical(name: &Name) -> Name {
    name.reference().map_or_else(|| name.clone(), |reference| Name::from(&reference))
}

/// Returns `name` as a reference with a tag and no digest, which `manifest.json` and `repositories` need.
fn tagged(name: &Name) -> Option<Reference> {
    name.reference().filter(|reference| reference.tag.is_some() && reference.digest.is_none())
}

/// Returns `index.json` with the names moved. An image that lost its only name stays, without a name.
fn index(bytes: &[u8], image: &ArchiveImage, names: &[Name]) -> Result<Vec<u8>> {
    let mut index = LayoutIndex::parse(bytes)?;
    let ImageForm::Manifest(entry) = &image.form else { return Ok(index.bytes()) };
    let before = index.named()?;
    names.iter().for_each(|name| index.point(Some(name), entry));
    for (name, mut lost) in before {
        let (Some(name), Some(annotations)) = (name, &mut lost.annotations) else { continue };
        annotations.retain(|_, value| value != name.as_str() && Some(&*value) != name.tag().as_ref());
        if !index.entries()?.iter().any(|entry| entry.digest == lost.digest) {
            index.point(None, &lost);
        }
    }
    Ok(index.bytes())
}

/// Returns `manifest.json` with the names moved. Unknown fields stay.
fn list(bytes: &[u8], image: &ArchiveImage, names: &[Name]) -> Result<Vec<u8>> {
    let wrong = || Error::invalid("manifest.json: not a list of objects");
    let mut list: Vec<Map<String, Value>> = serde_json::from_slice(bytes).map_err(|_| wrong())?;
    let tags: Vec<String> = names.iter().filter_map(tagged).map(|tag| tag.to_string()).collect();
    if tags.len() < names.len() && matches!(image.form, ImageForm::Legacy(_)) {
        let bare = names.iter().find(|name| tagged(name).is_none()).map_or("", Name::as_str);
        return Err(Error::usage(format!(
            "{bare}: not a name with a tag, which a docker-save archive needs; write NAME:TAG"
        )));
    }
    for (at, entry) in list.iter_mut().enumerate() {
        let key = entry.keys().find(|key| key.eq_ignore_ascii_case("RepoTags")).cloned();
        let old = key.and_then(|key| entry.remove(&key));
        let mut kept: Vec<Value> = old.and_then(|old| old.as_array().cloned()).unwrap_or_default();
        let is_new = |tag: &Value| {
            let name = tag.as_str().and_then(|tag| Name::new(tag).ok());
            name.and_then(|name| tagged(&name)).is_some_and(|name| tags.contains(&name.to_string()))
        };
        kept.retain(|tag| !is_new(tag));
        if image.manifest_json_at == Some(at) {
            kept.extend(tags.iter().cloned().map(Value::from));
        }
        let value = if kept.is_empty() { Value::Null } else { Value::from(kept) };
        entry.insert("RepoTags".to_owned(), value);
    }
    serde_json::to_vec(&list).map_err(|e| Error::failed(e.to_string()))
}

/// Returns `repositories` with the names moved, for the layer of the image's old names.
fn repositories(bytes: &[u8], image: &ArchiveImage, names: &[Name]) -> Vec<u8> {
    let mut tags = manifest_json::repositories(bytes);
    let layer = image.names.iter().filter_map(tagged).find_map(|name| tags.get(&name).cloned());
    for name in names.iter().filter_map(tagged) {
        tags.remove(&name);
        if let Some(layer) = &layer {
            tags.insert(name, layer.clone());
        }
    }
    manifest_json::write_repositories(&tags)
}
