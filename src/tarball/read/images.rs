//! The images of an archive that was read to its end. Documents and layers must match.

use super::contents;
use super::contents::{ArchiveImage, Contents, ImageForm, list};
use super::documents::StreamContents;
use super::legacy_manifest;
use super::summary::StreamSummary;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest};
use crate::source::Root;
use crate::tarball::attached::AttachedTable;
use std::collections::HashSet;

/// Returns the images in `held`, with every manifest and config. `label` is the name of the archive in messages.
pub(crate) fn agreed_images(held: &StreamContents, label: &str) -> Result<(Vec<(ArchiveImage, Root)>, StreamSummary)> {
    let empty_message = contents::empty(held, label);
    let mut tail = StreamSummary { empty_message, attached: AttachedTable::read(held)?, ..StreamSummary::default() };
    let mut images = Vec::new();
    for image in list(held)? {
        let root = match &image.form {
            ImageForm::Manifest(descriptor) => {
                sizes_agree(held, descriptor, 0, &mut HashSet::new())?;
                if held.backslashes && held.document(&descriptor.digest.blob_path())?.is_none() {
                    return Err(contents::missing(held, &descriptor.digest.blob_path()));
                }
                let mut root = Root::new(None, Descriptor::clone(descriptor));
                if let Some(made) = &image.index {
                    let mut seen = HashSet::new();
                    made.children().iter().try_for_each(|child| sizes_agree(held, child, 1, &mut seen))?;
                    tail.documents.insert(made.digest(), made.bytes.clone());
                    root.synthesised = true;
                }
                root
            }
            ImageForm::Legacy(saved) => {
                let made = legacy_manifest::create(held, saved)?;
                let descriptor = made.manifest.descriptor;
                tail.documents.insert(Digest::of(&made.config), made.config);
                tail.documents.insert(descriptor.digest, made.manifest.bytes);
                Root { synthesised: true, ..Root::new(None, descriptor) }
            }
        };
        let names = image.names.iter().cloned().map(Some);
        let unnamed = image.names.is_empty().then_some(None);
        tail.roots.extend(names.chain(unnamed).map(|name| Root { name, ..root.clone() }));
        images.push((image, root));
    }
    Ok((images, tail))
}

/// Checks the sizes of the streamed blobs against the manifests below `at`. The copy reports missing blobs.
fn sizes_agree(held: &StreamContents, at: &Descriptor, depth: usize, seen: &mut HashSet<Digest>) -> Result<()> {
    if !at.names_manifest() || depth > contents::MAX_DEPTH || !seen.insert(at.digest) {
        return Ok(());
    }
    let Some(bytes) = held.document(&at.digest.blob_path())? else { return Ok(()) };
    let manifest = Manifest::parse(bytes, at)?;
    for blob in manifest.blobs() {
        let found = held.size(&blob.digest.blob_path());
        if let Some(found) = found.filter(|found| *found != blob.size) {
            return Err(Error::invalid(format!(
                "blob {} does not match: it has {found} bytes, its descriptor says {}",
                blob.digest, blob.size
            )));
        }
    }
    manifest.children().iter().try_for_each(|child| sizes_agree(held, child, depth + 1, seen))
}
