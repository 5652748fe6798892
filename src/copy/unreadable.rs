//! Blobs that only attached manifests need, and that the source lists and cannot give: a registry reports a missing blob
//! only when it is read. The image is copied without the manifests that need one of them.

use super::Naming;
use super::parallel::BlobSource;
use super::run::{CopyRun, Work};
use crate::error::{Error, Kind, Result};
use crate::image::{Attached, Descriptor, Digest, Hasher, Image, Manifest, Name};
use crate::sink::Order;
use crate::source::{Store, with_file};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A blob for a pipe is read up to this size before its header is written, which a pipe cannot take back.
const MAX_READ_FIRST_BYTES: u64 = 1 << 20;

/// The blobs that a copy can do without.
#[derive(Default)]
pub(super) struct OptionalBlobs {
    /// Those that only attached manifests need; set when the images are known.
    all: OnceLock<HashSet<Digest>>,
    /// Those that the source cannot give, and why.
    unreadable: Mutex<HashMap<Digest, String>>,
}

impl OptionalBlobs {
    fn contains(&self, digest: &Digest) -> bool {
        self.all.get().is_some_and(|all| all.contains(digest))
    }

    fn unreadable(&self) -> MutexGuard<'_, HashMap<Digest, String>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error of a transfer came from the source.
#[derive(Default, Clone)]
pub(in crate::copy) struct SourceFailure(Arc<AtomicBool>);

impl SourceFailure {
    fn note<T, E>(&self, answer: std::result::Result<T, E>) -> std::result::Result<T, E> {
        if answer.is_err() {
            self.0.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// The reader that `opened` has, observed.
    pub fn observe<'s>(&self, opened: Result<Box<dyn Read + Send + 's>>) -> Result<Box<dyn Read + Send + 's>> {
        let reader = self.note(opened)?;
        Ok(Box::new(Observed { reader, failure: self.clone() }))
    }
}

struct Observed<'s> {
    reader: Box<dyn Read + Send + 's>,
    failure: SourceFailure,
}

impl Read for Observed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.reader.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(error),
            answer => self.failure.note(answer),
        }
    }
}

impl CopyRun<'_> {
    /// Takes note of the blobs that only what belongs to `images` needs.
    pub(super) fn note_optional(&self, images: &[Image]) {
        let needed = images.iter().flat_map(|image| image.tree.iter().flat_map(Manifest::blobs));
        let needed = needed.chain(images.iter().flat_map(|image| &image.foreign_layers));
        let needed: HashSet<Digest> = needed.map(|blob| blob.digest).collect();
        let attached = images.iter().flat_map(|image| &image.attached).flat_map(|one| one.manifest.blobs());
        let optional = attached.map(|blob| blob.digest).filter(|digest| !needed.contains(digest)).collect();
        let _ = self.optional.all.set(optional);
    }

    /// Whether the blob of `work` is read before the sink gets its header: the copy can do without the blob, and the sink
    /// cannot take back a part of it.
    pub(super) fn is_read_first(&self, work: &Work) -> bool {
        let takes_back = self.capabilities.order != Order::Sequential || self.capabilities.unnamed_blobs;
        !takes_back && self.optional.contains(&work.blob.digest)
    }

    /// `error` of the transfer of `blob`, with the image and the file where the source could not give the blob.
    pub(super) fn with_place(
        &self,
        source: BlobSource<'_>,
        blob: &Descriptor,
        failure: &SourceFailure,
        error: Error,
    ) -> Error {
        if !is_of_source(&error, failure) {
            return error;
        }
        let error = match error.is_digest_mismatch() {
            true => source.store.located(blob, error),
            false => with_file(source.store, &blob.digest, error),
        };
        let has_blob = |image: &&Image| image.blobs().any(|other| other.digest == blob.digest);
        let Some(image) = source.images.iter().find(has_blob) else { return error };
        error.at_once(&self.name_at_source(source.store).unwrap_or_else(|| label(image)))
    }

    /// The name at the source of the only image, where the image has its new name already.
    fn name_at_source(&self, store: &dyn Store) -> Option<String> {
        match (&self.options.naming, &self.options.selectors[..]) {
            (Naming::Keep, _) => None,
            (Naming::Names(_), [selected]) => Some(selected.to_string()),
            (Naming::Names(_), _) => match &store.names().ok()?[..] {
                [only] => Some(only.to_string()),
                _ => None,
            },
        }
    }

    /// Records whether the transfer of `blob` failed because of the source.
    pub(super) fn note_source(&self, blob: &Descriptor, done: &Result<()>, failure: &SourceFailure) {
        if !self.optional.contains(&blob.digest) {
            return;
        }
        match done {
            Err(error) if is_of_source(error, failure) => {
                drop(self.optional.unreadable().insert(blob.digest, error.to_string()));
            }
            _ => drop(self.optional.unreadable().remove(&blob.digest)),
        }
    }

    /// `done`, without the error of a blob that the copy can do without.
    pub(super) fn unless_optional(&self, blob: &Descriptor, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if is_unreadable(&error) && self.optional.unreadable().contains_key(&blob.digest) => Ok(()),
            done => done,
        }
    }

    /// `image` without the attached manifests that need a blob which the source could not give, and without what belongs
    /// to them.
    ///
    /// Fails with `NotFound` where referrers are required.
    pub(super) fn without_unreadable<'i>(&self, image: &'i Image) -> Result<Cow<'i, Image>> {
        let unreadable = self.optional.unreadable();
        let (mut left_out, mut first) = (HashSet::new(), None);
        // A manifest comes after those that it lists, and after its subject.
        for Attached { manifest, .. } in image.attached.iter().filter(|attached| !attached.is_held) {
            let broken = manifest.blobs().into_iter().find_map(|blob| unreadable.get(&blob.digest));
            let needs_other = manifest.children().iter().any(|child| left_out.contains(&child.digest))
                || manifest.subject.as_ref().is_some_and(|subject| left_out.contains(&subject.digest));
            if broken.is_some() || needs_other {
                left_out.insert(manifest.digest());
            }
            if let (Some(why), None) = (broken, &first) {
                first = Some(format!("referrer {} is not complete ({why})", manifest.digest()));
            }
        }
        let Some(why) = first else { return Ok(Cow::Borrowed(image)) };
        let label = label(image);
        if !self.options.referrers.required.is_empty() {
            return Err(Error::not_found(format!(
                "{label}: not all referrers can be copied, and --require-referrers is given: {why}"
            )));
        }
        self.watch.say(&format!("{label}: not all that belongs to the image is copied: {why}"));
        let mut image = image.clone();
        image.attached.retain(|attached| !left_out.contains(&attached.manifest.digest()));
        Ok(Cow::Owned(image))
    }
}

/// The name of `image` in messages, else its digest.
fn label(image: &Image) -> String {
    image.names.first().map_or_else(|| image.source_digest.to_string(), Name::to_string)
}

/// Whether a transfer failed with `error` because of the source, which will fail again.
fn is_of_source(error: &Error, failure: &SourceFailure) -> bool {
    is_unreadable(error) && (failure.0.load(Ordering::Relaxed) || error.kind() == Kind::Invalid)
}

/// Whether the source could not give a blob and will not give it later.
fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Denied | Kind::Failed)
}

/// The bytes of `reader`, of which the beginning is read already and, where that is all of `blob`, verified.
pub(super) fn read_first<'s>(
    blob: &Descriptor,
    mut reader: Box<dyn Read + Send + 's>,
) -> Result<Box<dyn Read + Send + 's>> {
    let mut head = Vec::new();
    (&mut reader).take(blob.size.min(MAX_READ_FIRST_BYTES)).read_to_end(&mut head)?;
    let found = Hasher::new(blob.digest.algorithm()).with(&head).finish();
    if blob.size <= MAX_READ_FIRST_BYTES && found != blob.digest {
        return Err(Error::digest_mismatch(format!("blob {} does not match: got {found}", blob.digest)));
    }
    Ok(Box::new(Cursor::new(head).chain(reader)))
}
