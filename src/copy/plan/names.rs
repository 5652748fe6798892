//! The names of the images at the destination.

use super::{Naming, PlanOptions};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Digest, Name};
use crate::message::{counted, some_of};
use crate::progress::Watch;
use crate::sink::SinkCapabilities;
use crate::source::Root;
use std::collections::HashMap;

/// Merges the roots of one image. With `by_original`, parts of different indexes are different images.
pub(super) fn merge(roots: Vec<Root>, by_original: bool) -> Vec<(Vec<Name>, Root)> {
    let mut merged: Vec<(Vec<Name>, Root)> = Vec::new();
    let mut positions: HashMap<(Digest, Option<Digest>), usize> = HashMap::new();
    for root in roots {
        let original = root.original.as_ref().filter(|_| by_original).map(|original| original.digest);
        let at = *positions.entry((root.descriptor.digest, original)).or_insert_with(|| {
            merged.push((Vec::new(), root.clone()));
            merged.len() - 1
        });
        let names = &mut merged[at].0;
        names.extend(root.name.filter(|name| !names.contains(name)));
    }
    merged
}

/// Gives `images` the names of `options`. Of several images that were not selected, those without a name are left out
/// where the sink needs one.
pub(super) fn give(
    images: &mut Vec<Image>,
    options: &PlanOptions,
    capabilities: &SinkCapabilities,
    watch: &dyn Watch,
) -> Result<()> {
    match (&options.naming, &mut images[..]) {
        (Naming::Keep, _) => {}
        (Naming::Names(names), [image]) => image.names = names.clone(),
        (Naming::Names(names), images) => {
            let name = names.first().map_or("one name", Name::as_str);
            return Err(Error::usage(format!(
                "{} images cannot all become {name}; name one of them in SRC",
                images.len()
            )));
        }
    }
    images.iter_mut().for_each(|image| image.names = true_names(image, watch));
    if !capabilities.unnamed_images {
        leave_out_unnamed(images, options.is_selection, watch)?;
    }
    Ok(())
}

fn leave_out_unnamed(images: &mut Vec<Image>, is_selection: bool, watch: &dyn Watch) -> Result<()> {
    let unnamed: Vec<String> = images.iter().filter(|image| image.names.is_empty()).map(Image::label).collect();
    match unnamed.first() {
        None => Ok(()),
        Some(image) if is_selection || unnamed.len() == images.len() => {
            Err(Error::usage(format!("image {image} has no name, and the destination needs one; give it with --as")))
        }
        Some(_) => {
            watch.say(&left_out(&unnamed));
            images.retain(|image| !image.names.is_empty());
            Ok(())
        }
    }
}

/// The message about the images `unnamed`, which have no name, for a destination that needs one.
pub(crate) fn left_out(unnamed: &[String]) -> String {
    let are = if unnamed.len() == 1 { "is" } else { "are" };
    format!(
        "{} without a name {are} left out, because the destination needs a name: {}; copy it alone, by this digest and \
         with a name (--as)",
        counted(unnamed.len(), "image"),
        some_of(unnamed)
    )
}

/// The names of `image`, tags first; a tag with a digest becomes two names. A name with the digest of another image is
/// dropped with a message: a pull by that name must not return this image.
fn true_names(image: &Image, watch: &dyn Watch) -> Vec<Name> {
    let (root, source) = (image.root().digest(), image.source_digest);
    let mut names: Vec<Name> = Vec::new();
    for name in image.names.iter().cloned().flat_map(Name::split) {
        match name.digest() {
            Some(digest) if digest == source && digest != root => {
                watch
                    .say(&format!("{name}: the converted image has another digest, {root}; it does not get this name"));
            }
            Some(digest) if digest != root => {
                watch.say(&format!("the name {name} is refused: the image has the digest {root}"));
            }
            _ if names.contains(&name) => {}
            _ => names.push(name),
        }
    }
    names.sort_by_key(|name| name.digest().is_some());
    names
}
