//! An archive that is read once (standard input, a compressed file). Small documents are stored, layers are handed out,
//! and its lists of images are believed only at its end.

use super::images::settle;
use super::steps::{Step, Steps};
use super::summary::StreamSummary;
use crate::error::Result;
use crate::image::Digest;
use crate::source::Claim;
use crate::tarball::manifest_json::blob_digest;
use std::io::{self, Read};

/// An archive of images that is read forward, once; docker writes its manifest last.
///
/// 1. `next_blob` hands out the layers in the archive's order; `finish` returns the images after the last one.
/// 2. A claim has a digest only where the archive stores blobs under their digests. Nothing in it is verified.
/// 3. `finish` fails with `Invalid` where documents and layers do not agree.
pub struct ArchiveStream {
    pub(crate) steps: Steps,
    pub(crate) label: String,
    /// The steps that were read to know whether digests are known, for a rewrite.
    early: Vec<Step>,
    /// A layer was reached to know that, and was not handed out yet.
    waiting: bool,
    expected_diff_ids: Vec<Vec<Digest>>,
}

/// A blob of a stream.
pub struct Blob<'a> {
    pub claim: Claim,
    pub bytes: Box<dyn Read + Send + 'a>,
}

impl ArchiveStream {
    /// The archive in `tar`, which is not compressed. `label` is what messages call it.
    pub fn new(tar: Box<dyn Read + Send>, label: &str) -> ArchiveStream {
        let (steps, label) = (Steps::new(tar), label.to_owned());
        ArchiveStream { steps, label, early: Vec::new(), waiting: false, expected_diff_ids: Vec::new() }
    }

    /// The same archive, whose writer announced these diff IDs (see [`ArchiveStream::expected_diff_ids`]).
    pub fn expecting(self, expected_diff_ids: Vec<Vec<Digest>>) -> ArchiveStream {
        ArchiveStream { expected_diff_ids, ..self }
    }

    /// The diff IDs of each image that is to come, lowest layer first, where the source could announce them; else empty.
    pub fn expected_diff_ids(&self) -> &[Vec<Digest>] {
        &self.expected_diff_ids
    }

    /// Whether blobs are stored under their digests (an OCI layout in a tar). In docker-save's old form they are not,
    /// and every claim is without a digest. Reads no further than the first layer.
    ///
    /// # Errors
    /// `Invalid` for what is not a tar, and those of the reader.
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

    /// The next blob that is not a small JSON document, or `None` at the end. The unread rest of the last one is skipped.
    ///
    /// # Errors
    /// `Invalid` for a malformed or hostile archive, and those of the reader.
    pub fn next_blob(&mut self) -> Result<Option<Blob<'_>>> {
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
        Ok(Some(Blob { claim, bytes: Box::new(Handed(self)) }))
    }

    /// The images, after the last blob.
    ///
    /// # Errors
    /// `Invalid` where the archive's lists, documents and layers do not agree.
    pub fn finish(mut self) -> Result<StreamSummary> {
        while !matches!(self.steps.step().map_err(|e| e.at(&self.label))?, Step::End) {}
        let (_, mut tail) = settle(&self.steps.held, &self.label).map_err(|e| e.at(&self.label))?;
        tail.documents.extend(self.steps.held.into_blobs());
        Ok(tail)
    }

    /// The steps that `digests_known` read.
    pub(crate) fn early_steps(&mut self) -> Vec<Step> {
        let mut early = std::mem::take(&mut self.early);
        if std::mem::take(&mut self.waiting) {
            early.push(Step::Layer);
        }
        early
    }
}

/// The current layer, as a reader.
struct Handed<'s>(&'s mut ArchiveStream);

impl Read for Handed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.steps.read_current(buffer).map_err(|e| e.at(&self.0.label).into())
    }
}
