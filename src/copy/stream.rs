//! Moving what passes once: blobs as they come, the manifests after them.

use super::plan;
use super::{Run, Work};
use crate::compress::cores;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Coding, Descriptor, Digest, media_type};
use crate::progress::{Event, Outcome};
use crate::sink::{Begin, Upcoming};
use crate::source::{Claim, Store};
use crate::tarball::{ArchiveStream, Blob, StreamedStore};
use crate::transfer;
use crate::transfer::replay::Replay;
use std::{
    collections::HashSet,
    io::{Cursor, Read},
    sync::atomic::AtomicBool,
};

/// A tar's first header: enough to know one.
const HEAD: usize = 512;

/// Copies the images of `stream` that the run's options select to the run's sink.
pub(crate) fn convert(run: &Run<'_>, mut stream: ArchiveStream) -> Result<()> {
    // `begin` answers for each blob.
    run.sink.missing(Upcoming::DiffIds(stream.expected_diff_ids()))?;
    let mut streamed = HashSet::new();
    while let Some(blob) = stream.next_blob()? {
        streamed.insert(pass(run, blob)?);
    }
    let store = StreamedStore { summary: stream.finish()?, blobs: Some(streamed) };
    let roots = store.roots(&run.options.picks)?;
    let images = plan::images(&store, roots, &run.options.wish(), &run.capabilities, run.watch)?;
    run.some(&images, &store.summary.empty_message)?;
    run.know(&images);
    run.check_packed()?;
    documents(run, &store, &images)?;
    run.settle(&images)
}

/// One blob on its way; its digest at the source.
fn pass(run: &Run<'_>, blob: Blob<'_>) -> Result<Digest> {
    let Blob { claim, mut bytes } = blob;
    let mut head = Vec::with_capacity(HEAD);
    (&mut bytes).take(HEAD as u64).read_to_end(&mut head)?;
    let recode = if is_tar(&head) { run.recode_from(Coding::sniff(&head)) } else { None };
    let size = claim.size.unwrap_or(0);
    let known = claim.digest.map(|digest| run.work(&Descriptor::new(sniffed(&head), digest, size)));
    let expected = known.as_ref().filter(|_| recode.is_some()).and_then(|work| work.expected);
    let target = match (recode, expected) {
        (None, _) => claim.clone(),
        (Some(_), Some(packed)) => Claim { digest: Some(packed.digest), size: Some(packed.size) },
        (Some(_), None) if run.capabilities.unnamed_blobs => Claim::default(),
        (Some(recode), None) => {
            return Err(Error::usage(format!(
                "a layer would have to be compressed ({} to {}) before its size is known, which a pipe and a compressed archive cannot do; save to a plain .tar first",
                recode.was.name(),
                recode.to.name()
            )));
        }
    };
    let id = run.next_id();
    let label = claim.digest.map_or_else(|| "layer".to_owned(), |digest| digest.short());
    run.watch.event(Event::BlobStart { id, label: &label, size: claim.size });
    let begun = run.sink.begin(&target, None)?;
    let writer = match (begun, claim.digest) {
        (Begin::Held, Some(digest)) => {
            let blob = Descriptor::new(media_type::OCTETS, digest, size);
            run.held(id, &Work { blob, recode, expected });
            return Ok(digest);
        }
        (Begin::Held, None) => {
            return Err(Error::failed("the destination claims to hold a blob that has no digest yet"));
        }
        (Begin::Write(writer), _) => writer,
    };
    let stop = AtomicBool::new(false);
    let flow = run.flow(&stop, id, cores());
    let mut whole = Cursor::new(head).chain(bytes);
    let done = match recode {
        None => {
            let replay = Replay::new(Box::new(whole), flow.recent);
            let mut once = |from: u64| Ok(Box::new(replay.read_from(from)?) as Box<dyn Read + Send + '_>);
            transfer::transfer(&claim, &mut once, writer, &flow)
        }
        Some(how) => {
            transfer::transfer_recompressed(&claim, expected.map(|p| p.digest), how, &mut whole, writer, &flow)
        }
    };
    let verified = done.inspect_err(|_| run.watch.event(Event::BlobEnd { id, outcome: Outcome::Failed }))?;
    run.moved(id, &verified, recode);
    Ok(verified.source().0)
}

/// What the images need that did not pass as a blob: configs among the documents, and what the sink has already.
fn documents(run: &Run<'_>, store: &StreamedStore, images: &[Image]) -> Result<()> {
    let mut seen = HashSet::new();
    for blob in images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)) {
        if store.blobs.as_ref().is_some_and(|streamed| streamed.contains(&blob.digest)) {
            continue;
        }
        let bytes = store.summary.documents.get(&blob.digest).cloned().or_else(|| blob.embedded());
        let work = Work { blob: blob.clone(), recode: None, expected: None };
        let id = run.next_id();
        let writer = match run.sink.begin(&Claim::from(blob), None)? {
            Begin::Held => {
                run.held(id, &work);
                continue;
            }
            Begin::Write(writer) => writer,
        };
        let Some(bytes) = bytes else {
            return Err(Error::not_found(format!(
                "the archive ended without blob {}; nothing was published",
                blob.digest
            )));
        };
        let stop = AtomicBool::new(false);
        let flow = run.flow(&stop, id, 1);
        let mut open = |from: u64| Ok(Box::new(Cursor::new(bytes[from as usize..].to_vec())) as Box<dyn Read + Send>);
        let verified = transfer::transfer(&Claim::from(blob), &mut open, writer, &flow)?;
        run.moved(id, &verified, None);
    }
    Ok(())
}

/// What a blob's head says it is, as a layer's media type.
fn sniffed(head: &[u8]) -> &'static str {
    crate::image::with_coding(media_type::OCI_LAYER, Coding::sniff(head))
}

/// Whether a raw blob is a tar (or a packed one, perhaps a tar): only such may be packed anew unseen.
fn is_tar(head: &[u8]) -> bool {
    let raw = head.get(257..262) == Some(b"ustar") || head.len() == HEAD && head.iter().all(|byte| *byte == 0);
    raw || Coding::sniff(head) != Coding::Raw
}
