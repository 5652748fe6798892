//! The formats that are YAML or JSON, recognised by the keys of the document.

mod dregsy;
mod hauler;
mod image_syncer;
mod imgmv;
mod ocync;
mod regsync;
mod skopeo;

use super::builder::SetBuilder;
use super::tree::{Tree, Value};
use super::{Format, ImageSet};
use crate::error::{Error, Result};
use crate::image::Platform;

const KNOWN: &str = "expected a list of images, or a file of imgmv, regsync, image-syncer, skopeo sync, dregsy, hauler \
                     or ocync";

/// The maximum length of a platform with the version of its operating system.
const MAX_PLATFORM_BYTES: usize = 200;

/// Reads a document of any of these formats.
pub(super) fn read(tree: &Tree<'_>, mut set: SetBuilder<'_>) -> Result<ImageSet> {
    let mut documents = tree.roots().filter(|root| !root.is_null());
    let Some(root) = documents.next() else { return Err(Error::invalid(format!("the document is empty; {KNOWN}"))) };
    let format = recognise(root)?;
    if format == Format::Hauler {
        for document in std::iter::once(root).chain(documents) {
            hauler::read(document, &mut set)?;
        }
        return set.finish(format);
    }
    if let Some(second) = documents.next() {
        return Err(second.problem(format!("a {format} has one document; divide the file at ---")));
    }
    match format {
        Format::Regsync => regsync::read(root, &mut set)?,
        Format::Skopeo => skopeo::read(root, &mut set)?,
        Format::Dregsy => dregsy::read(root, &mut set)?,
        Format::Ocync => ocync::read(root, &mut set)?,
        Format::ImageSyncer => image_syncer::read(root, &mut set)?,
        _ => imgmv::read(root, &mut set)?,
    }
    set.finish(format)
}

fn recognise(root: Value<'_>) -> Result<Format> {
    if root.is_list() {
        return Err(root.problem("expected a map, found a list; write `images:` above it and indent it"));
    }
    // A key without a value is an empty list, not an image of image-syncer.
    let is = |key, holds: fn(Value<'_>) -> bool| {
        root.fields().is_ok_and(|mut fields| fields.any(|field| field.key == key && holds(field.value)))
    };
    let of_maps = |key| is(key, |list| list.items().is_ok_and(|mut items| items.all(|item| item.is_map())));
    let api = root.field("apiVersion").and_then(|api| api.text().ok()).unwrap_or_default();
    if api.contains("hauler.") {
        Ok(Format::Hauler)
    } else if of_maps("sync") {
        Ok(Format::Regsync)
    } else if of_maps("tasks") {
        Ok(Format::Dregsy)
    } else if of_maps("mappings") {
        Ok(Format::Ocync)
    } else if is("images", |images| images.is_list() || images.is_null()) {
        Ok(Format::Imgmv)
    } else if is("images", |images| images.is_map()) || image_syncer::is_map_of_images(root) {
        Ok(Format::ImageSyncer)
    } else if skopeo::is_map_of_registries(root) {
        Ok(Format::Skopeo)
    } else {
        Err(root.problem(format!("the format is unknown; {KNOWN}")))
    }
}

/// The text of a field that must be there.
fn required<'t>(value: Option<Value<'t>>, entry: Value<'t>, key: &str) -> Result<&'t str> {
    match value {
        Some(value) => value.text(),
        None => Err(entry.problem(format!("{key} is missing; add it"))),
    }
}

/// The platforms in a text or a list. `local` is the platform of this host; `all` and nothing are all platforms.
fn platforms(value: Value<'_>) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    for platform in value.one_or_more()? {
        match platform.text()? {
            "all" | "" => return Ok(Vec::new()),
            "local" => platforms.push(Platform::host()),
            text if text.len() > MAX_PLATFORM_BYTES => return Err(platform.wrong("OS/ARCH[/VARIANT]")),
            text => platforms.push(text.parse().map_err(|error| platform.problem(error))?),
        }
    }
    Ok(platforms)
}
