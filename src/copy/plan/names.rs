//! The names of the images at the destination.

use super::Naming;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Digest, Name};
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

/// Gives `images` the names of `naming`.
pub(super) fn give(
    images: &mut [Image],
    naming: &Naming,
    capabilities: &SinkCapabilities,
    watch: &dyn Watch,
) -> Result<()> {
    match (naming, &mut *images) {
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
    match images.iter().find(|image| image.names.is_empty()) {
        Some(image) if !capabilities.unnamed_images => Err(Error::usage(format!(
            "image {} has no name, and the destination needs one; give it with --as",
            image.source_digest
        ))),
        _ => Ok(()),
    }
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
