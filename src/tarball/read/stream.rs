//! An archive that is read once (standard input, a compressed file). Small documents are stored, and layers are returned
//! as blobs. The lists of images are used only after the end of the archive.

use super::again::{ArchiveFile, LayersAgain};
use super::images::agreed_images;
use super::steps::{Step, Steps};
use super::summary::StreamSummary;
use crate::error::Result;
use crate::image::Digest;
use crate::source::Claim;
use crate::tarball::manifest_json::blob_digest;
use std::io::{self, Read};

/// An archive of images that is read forward, once; docker writes its manifest last.
///
/// 1. `next_blob` returns the layers in the archive's order; `finish` returns the images after the last one.
/// 2. A claim has a digest only if the archive stores blobs under their digests. The claim is not verified.
/// 3. `finish` fails with `Invalid` if documents and layers do not match.
pub struct ArchiveStream {
    pub(crate) steps: Steps,
    pub(crate) label: String,
    /// The steps that `digests_known` read; a rewrite needs them.
    early: Vec<Step>,
    /// Whether `digests_known` reached a layer that `next_blob` has not returned yet.
    waiting: bool,
    expected_diff_ids: Vec<Vec<Digest>>,
    file: Option<ArchiveFile>,
}

/// A blob of a stream.
pub struct StreamedBlob<'a> {
    pub claim: Claim,
    pub bytes: Box<dyn Read + Send + 'a>,
}

impl ArchiveStream {
    /// Opens the archive in `tar`, which is not compressed. `label` is its name in messages.
    pub fn new(tar: Box<dyn Read + Send>, label: &str) -> ArchiveStream {
        let (steps, label) = (Steps::new(tar), label.to_owned());
        ArchiveStream { steps, label, early: Vec::new(), waiting: false, expected_diff_ids: Vec::new(), file: None }
    }

    /// Sets the diff IDs that the writer of the archive announced (see [`ArchiveStream::expected_diff_ids`]).
    pub fn expecting(self, expected_diff_ids: Vec<Vec<Digest>>) -> ArchiveStream {
        ArchiveStream { expected_diff_ids, ..self }
    }

    /// Sets the file that the archive is read from.
    pub fn of_file(self, file: Option<ArchiveFile>) -> ArchiveStream {
        ArchiveStream { file, ..self }
    }

    /// The same archive from its start; `None` if it is not a file.
    ///
    /// # Errors
    /// Those of the decompressor.
    pub fn again(&self) -> Result<Option<ArchiveStream>> {
        let Some(file) = &self.file else { return Ok(None) };
        Ok(Some(ArchiveStream::new(file.tar()?, &self.label).of_file(Some(file.clone()))))
    }

    /// Whether the first entry is `oci-layout`. Engines write it behind the blobs, and every blob of theirs that is a tar
    /// is a layer of an image; imgmv writes it first, and its archives may have artifacts.
    pub fn begins_with_layout(&self) -> bool {
        self.steps.begins_with_layout
    }

    /// Returns the diff IDs of each image, lowest layer first; empty if the source did not announce them.
    pub fn expected_diff_ids(&self) -> &[Vec<Digest>] {
        &self.expected_diff_ids
    }

    /// Whether blobs are stored under their digests (an OCI layout in a tar). In docker-save's legacy form they are not,
    /// and every claim is without a digest. Reads up to the first layer.
    ///
    /// # Errors
    /// `Invalid` if the bytes are not a tar, and the errors of the reader.
    pub fn digests_known(&mut self) -> Result<bool> {
        while self.steps.digests_known.is_none() {
            match self.steps.step().map_err(|e| e.at(&self.label))? {
                Step::Layer => self.waiting = true,
                // Only documents: images without layers.
                Step::End => self.steps.digests_known = Some(true),
                other => self.early.push(other),
            }
        }
        Ok(self.steps.digests_known.unwrap_or(true))
    }

    /// Returns the next blob that is not a small JSON document, or `None` at the end. Skips the unread rest of the last
    /// blob.
    ///
    /// # Errors
    /// `Invalid` for a malformed or hostile archive, and the errors of the reader.
    pub fn next_blob(&mut self) -> Result<Option<StreamedBlob<'_>>> {
        if !std::mem::take(&mut self.waiting) {
            while !matches!(self.steps.step().map_err(|e| e.at(&self.label))?, Step::Layer) {
                if self.steps.ended {
                    return Ok(None);
                }
            }
        }
        self.early.clear();
        let (name, size) = self.steps.current().expect("a step to a layer sets it");
        let digest = self.steps.digests_known.filter(|known| *known).and_then(|_| blob_digest(name));
        let claim = Claim { digest, size: Some(size) };
        Ok(Some(StreamedBlob { claim, bytes: Box::new(CurrentLayerReader(self)) }))
    }

    /// Returns the images, after the last blob.
    ///
    /// # Errors
    /// `Invalid` if the archive's lists, documents and layers do not match.
    pub fn finish(mut self) -> Result<StreamSummary> {
        while !matches!(self.steps.step().map_err(|e| e.at(&self.label))?, Step::End) {}
        let (_, mut tail) = agreed_images(&self.steps.held, &self.label).map_err(|e| e.at(&self.label))?;
        tail.streamed = self.steps.held.layers.values().map(|layer| layer.digest).collect();
        let entries = self.steps.held.layers.iter().map(|(name, layer)| (layer.digest, name.clone())).collect();
        tail.layers = self.file.map(|file| LayersAgain { file, label: self.label, entries });
        tail.documents.extend(self.steps.held.into_blobs());
        Ok(tail)
    }

    /// Returns the steps that `digests_known` read.
    pub(crate) fn early_steps(&mut self) -> Vec<Step> {
        let mut early = std::mem::take(&mut self.early);
        if std::mem::take(&mut self.waiting) {
            early.push(Step::Layer);
        }
        early
    }
}

/// The current layer, as a reader.
struct CurrentLayerReader<'s>(&'s mut ArchiveStream);

impl Read for CurrentLayerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.steps.read_current(buffer).map_err(|e| e.at(&self.0.label).into())
    }
}
