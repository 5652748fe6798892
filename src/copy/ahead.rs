//! Which blobs of a stream are layers of images, before its manifests come: only those may be recompressed.
//!
//! - docker-save's older form has only layers. An engine announces the layers of the images that it saves.
//! - A compressed archive in a file is read once more, up to its end, when the first blob may be recompressed.
//! - A pipe that begins with `oci-layout` (imgmv's archives) may have artifacts. Its uncompressed blobs are compressed only
//!   if the user asks for it.
//! - In other pipes (engines' archives) each tar counts as a layer. If one then belongs to an artifact, nothing is
//!   published.

use super::{Compress, CopyRun, attach, plan};
use crate::error::Result;
use crate::image::{Coding, Digest, Image};
use crate::progress::Event;
use crate::source::{Claim, Store};
use crate::tarball::{ArchiveStream, StreamedStore};
use crate::transfer::Recompress;
use std::collections::HashSet;

/// The layers of a stream, as far as they are known before its end.
pub(super) struct Ahead {
    announced: HashSet<Digest>,
    begins_with_layout: bool,
    /// The archive from its start, if it is a file and was not read ahead yet.
    again: Option<ArchiveStream>,
    planned: Option<(StreamedStore, Vec<Image>)>,
    is_told: bool,
}

impl Ahead {
    /// For `stream`, of which the documents before the first layer were read.
    pub fn new(stream: &ArchiveStream) -> Result<Ahead> {
        Ok(Ahead {
            announced: stream.expected_diff_ids().iter().flatten().copied().collect(),
            begins_with_layout: stream.begins_with_layout(),
            again: stream.again()?,
            planned: None,
            is_told: false,
        })
    }

    /// The recompression of the blob `claim`, which is compressed as `was` and may be a layer.
    pub fn recompression(&mut self, run: &CopyRun<'_>, claim: &Claim, was: Coding) -> Result<Option<Recompress>> {
        let Some(how) = run.recompression_from(was) else { return Ok(None) };
        let Some(digest) = claim.digest.filter(|digest| !self.announced.contains(digest)) else {
            return Ok(Some(how));
        };
        if let Some(again) = self.again.take() {
            self.planned = Some(read_ahead(run, again)?);
        }
        if self.planned.is_some() {
            return Ok(Some(how).filter(|_| !run.is_unchanged(&digest)));
        }
        let is_by_default = was == Coding::Raw && run.options.compress == Compress::Default;
        if !self.begins_with_layout || !is_by_default {
            return Ok(Some(how));
        }
        if !std::mem::replace(&mut self.is_told, true) {
            run.watch.event(Event::Detail(
                "uncompressed layers stay as they are: the archive comes from a pipe, in which layers and artifacts cannot \
                 be told apart; --compress gzip compresses them, and so does a copy from a file",
            ));
        }
        Ok(None)
    }

    /// The images of the stream that was read to its end as `store`.
    pub fn images(self, run: &CopyRun<'_>, store: StreamedStore) -> Result<(StreamedStore, Vec<Image>)> {
        match self.planned {
            // The file may have changed since.
            Some((planned, images)) => Ok((StreamedStore { blobs: store.blobs, ..planned }, images)),
            None => planned(run, store),
        }
    }
}

/// Reads `stream` to its end, and plans its images.
fn read_ahead(run: &CopyRun<'_>, mut stream: ArchiveStream) -> Result<(StreamedStore, Vec<Image>)> {
    stream.digests_known()?;
    let mut blobs = HashSet::new();
    while let Some(blob) = stream.next_blob()? {
        run.cancel.check()?;
        blobs.extend(blob.claim.digest);
    }
    planned(run, StreamedStore { summary: stream.finish()?, blobs })
}

/// The images in `store` that the run copies, with what belongs to them.
fn planned(run: &CopyRun<'_>, store: StreamedStore) -> Result<(StreamedStore, Vec<Image>)> {
    let (roots, belonging) = run.split_attached(&store, store.roots(&run.options.selectors)?)?;
    let originals = attach::originals(&roots);
    let mut images = plan::images(&store, roots, &run.options.plan_options(), &run.capabilities, run.watch)?;
    run.fail_if_empty(&images, &store)?;
    run.attach(&store, &originals, &mut images)?;
    run.add_unattached(&store, belonging, &mut images)?;
    run.note_images(&images);
    Ok((store, images))
}
