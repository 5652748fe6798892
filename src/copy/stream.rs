//! A copy from a stream: blobs in the order in which they come, their manifests after them.

use super::ahead::Ahead;
use super::{CopyRun, Work};
use crate::compress::threads_per_layer;
use crate::error::{Error, Result};
use crate::image::{Coding, Descriptor, Digest, Image, media_type, with_coding};
use crate::progress::{Event, Outcome};
use crate::sink::{Begin, Upcoming};
use crate::source::Claim;
use crate::tarball::{ArchiveStream, StreamedBlob, StreamedStore};
use crate::transfer;
use crate::transfer::replay::Replay;
use std::{
    collections::HashSet,
    io::{Cursor, Read},
    sync::atomic::AtomicBool,
};

/// A tar's first header, which shows that it is a tar.
const HEAD_BYTES: usize = 512;

/// Copies the images of `stream` that the run's options select to the run's sink.
pub(crate) fn copy(run: &CopyRun<'_>, mut stream: ArchiveStream) -> Result<()> {
    // `begin` answers for each blob.
    run.sink.missing(Upcoming::DiffIds(stream.expected_diff_ids()))?;
    let mut streamed = HashSet::new();
    let mut ahead = Ahead::new(&stream)?;
    while let Some(blob) = stream.next_blob()? {
        streamed.insert(copy_blob(run, blob, &mut ahead)?);
    }
    let (store, images) = ahead.images(run, StreamedStore { summary: stream.finish()?, blobs: streamed })?;
    run.check_recompressed(&images)?;
    copy_documents(run, &store, &images)?;
    run.publish(&images)
}

/// Copies one blob and returns its digest at the source.
fn copy_blob(run: &CopyRun<'_>, blob: StreamedBlob<'_>, ahead: &mut Ahead) -> Result<Digest> {
    let StreamedBlob { claim, mut bytes } = blob;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    (&mut bytes).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let recompress = match may_be_layer(&head) {
        true => ahead.recompression(run, &claim, Coding::sniff(&head))?,
        false => None,
    };
    let size = claim.size.unwrap_or(0);
    let media_type = with_coding(media_type::OCI_LAYER, Coding::sniff(&head));
    let known = claim.digest.map(|digest| run.work(&Descriptor::new(media_type, digest, size)));
    let expected = known.as_ref().filter(|_| recompress.is_some()).and_then(|work| work.expected);
    let target = match (recompress, expected) {
        (None, _) => claim.clone(),
        (Some(_), Some(layer)) => Claim { digest: Some(layer.digest), size: Some(layer.size) },
        (Some(_), None) if run.capabilities.unnamed_blobs => Claim::default(),
        (Some(how), None) => {
            return Err(Error::usage(format!(
                "a layer must be recompressed ({} to {}), and a pipe or a compressed archive needs its size before its \
                 bytes; save to a plain .tar first",
                how.was.name(),
                how.to.name()
            )));
        }
    };
    let id = run.next_id();
    let label = claim.digest.map_or_else(|| "layer".to_owned(), |digest| digest.short());
    run.watch.event(Event::BlobStart { id, label: &label, size: claim.size });
    let writer = match (run.sink.begin(&target, None)?, claim.digest) {
        (Begin::Held, Some(digest)) => {
            let blob = Descriptor::new(media_type::OCTETS, digest, size);
            run.count_held(id, &Work { blob, recompress, expected });
            return Ok(digest);
        }
        (Begin::Held, None) => {
            return Err(Error::failed("the destination reports that it has a blob whose digest is not known yet"));
        }
        (Begin::Write(writer), _) => writer,
    };
    let stop = AtomicBool::new(false);
    let context = run.transfer_context(&stop, id, threads_per_layer());
    let mut whole = Cursor::new(head).chain(bytes);
    let done = match recompress {
        None => {
            let replay = Replay::new(Box::new(whole), context.replay_bytes);
            let mut open = |from: u64| Ok(Box::new(replay.read_from(from)?) as Box<dyn Read + Send + '_>);
            transfer::transfer(&claim, &mut open, writer, &context)
        }
        Some(how) => {
            let expected = expected.map(|layer| layer.digest);
            transfer::transfer_recompressed(&claim, expected, how, &mut whole, writer, &context)
        }
    };
    let verified = done.inspect_err(|_| run.watch.event(Event::BlobEnd { id, outcome: Outcome::Failed }))?;
    run.count_moved(id, &verified, recompress);
    Ok(verified.source().0)
}

/// Copies the blobs of `images` that were not streamed as blobs: configs, which are documents, and those that only the
/// sink has.
fn copy_documents(run: &CopyRun<'_>, store: &StreamedStore, images: &[Image]) -> Result<()> {
    let mut seen = HashSet::new();
    for blob in images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)) {
        if store.blobs.contains(&blob.digest) {
            continue;
        }
        let bytes = store.summary.documents.get(&blob.digest).cloned().or_else(|| blob.embedded());
        let id = run.next_id();
        let writer = match run.sink.begin(&Claim::from(blob), None)? {
            Begin::Held => {
                run.count_held(id, &Work { blob: blob.clone(), recompress: None, expected: None });
                continue;
            }
            Begin::Write(writer) => writer,
        };
        let Some(bytes) = bytes else {
            return Err(Error::not_found(format!(
                "the archive ended without blob {}; nothing of it was published",
                blob.digest
            )));
        };
        let stop = AtomicBool::new(false);
        let context = run.transfer_context(&stop, id, 1);
        let mut open = |from: u64| Ok(Box::new(Cursor::new(bytes[from as usize..].to_vec())) as Box<dyn Read + Send>);
        let verified = transfer::transfer(&Claim::from(blob), &mut open, writer, &context)?;
        run.count_moved(id, &verified, None);
    }
    Ok(())
}

/// Whether `head` begins a tar or a compressed file. Nothing else is recompressed before the manifests are known.
fn may_be_layer(head: &[u8]) -> bool {
    let is_tar = head.get(257..262) == Some(b"ustar") || head.len() == HEAD_BYTES && head.iter().all(|byte| *byte == 0);
    is_tar || Coding::sniff(head) != Coding::Raw
}
