//! Moving what passes once: blobs as they come, the manifests after them.

use super::plan;
use super::plan::{Naming, Platforms, Wish};
use super::{Run, Work};
use crate::compress::threads_per_layer;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Coding, Descriptor, Digest, Name, media_type};
use crate::progress::{Event, Outcome};
use crate::sink::Begin;
use crate::source::{Blob, Claim, Relay, Root, Selector, Store, Stream, StreamSummary, select};
use crate::transfer;
use crate::transfer::replay::Replay;
use std::{
    collections::HashSet,
    io::{Cursor, Read},
    sync::atomic::AtomicBool,
};

/// A tar's first header: enough to know one.
const HEAD: usize = 512;

/// Moves what the run's options pick of `stream` to the run's sink.
pub(crate) fn copy_stream(run: &Run<'_>, mut stream: Box<dyn Stream>) -> Result<()> {
    if run.options.dry_run {
        return Err(Error::usage("a stream has to pass before its content is known; --dry-run needs a file"));
    }
    if !stream.digests_known()? && !run.takes.unnamed_blobs {
        return relay(run, stream);
    }
    run.sink.expect_layers(&stream.expected_diff_ids())?;
    let mut passed = HashSet::new();
    while let Some(blob) = stream.next_blob()? {
        passed.insert(pass(run, blob)?);
    }
    let tail = stream.finish()?;
    let store = Passed { tail, passed };
    let roots = store.roots(&run.options.picks)?;
    let images = plan::images(&store, roots, &run.options.wish(), &run.takes, run.watch)?;
    run.some(&store, &images)?;
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
        (Some(_), None) if run.takes.unnamed_blobs => Claim::default(),
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
    let flow = run.flow(&stop, id, threads_per_layer());
    let mut whole = Cursor::new(head).chain(bytes);
    let done = match recode {
        None => {
            let kept = if writer.recovers() { flow.recent } else { 0 };
            let replay = Replay::new(Box::new(whole), kept);
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
fn documents(run: &Run<'_>, store: &Passed, images: &[Image]) -> Result<()> {
    let mut seen = HashSet::new();
    for blob in images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)) {
        if store.passed.contains(&blob.digest) {
            continue;
        }
        let bytes = store.tail.documents.get(&blob.digest).cloned().or_else(|| blob.embedded());
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

/// Passes an archive of the old form on as it is, re-tagged.
fn relay(run: &Run<'_>, stream: Box<dyn Stream>) -> Result<()> {
    let out = run.sink.relay().ok_or_else(|| {
        Error::usage("this archive names its layers only at its end, which the destination cannot take from a pipe; save it to a file first")
    })?;
    run.watch.say("the archive passes in its own form (docker-save's older one), re-tagged on the way");
    let id = run.next_id();
    run.watch.event(Event::BlobStart { id, label: "archive", size: None });
    let mut bytes = 0;
    let rename = |names: &[Name]| renamed(run, names);
    let tail = stream.relay(Relay {
        out: &mut *out?,
        picks: &run.options.picks,
        rename: &rename,
        moved: &mut |n| {
            bytes += n;
            run.cancel.check()?;
            run.watch.event(Event::BlobMoved { id, bytes: n });
            Ok(())
        },
    })?;
    let roots = tail.select(&run.options.picks)?;
    let store = Passed { tail, passed: HashSet::new() };
    let wish = Wish { platforms: Platforms::Default, ..run.options.wish() };
    let images = plan::images(&store, roots, &wish, &run.takes, run.watch)?;
    run.some(&store, &images)?;
    for image in &images {
        for name in &image.names {
            run.sink.publish(Some(name), image.root())?;
        }
        run.settled(image, image.source_digest);
    }
    run.relayed(id, bytes);
    Ok(())
}

fn renamed(run: &Run<'_>, names: &[Name]) -> Result<Vec<Name>> {
    match &run.options.naming {
        Naming::Names(names) => Ok(names.clone()),
        Naming::Keep if names.is_empty() && !run.takes.nameless => {
            Err(Error::usage("an image in the archive has no name and needs one there; give it with --as"))
        }
        Naming::Keep => Ok(names.to_vec()),
    }
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

/// A stream that has passed, as far as planning needs a store.
struct Passed {
    tail: StreamSummary,
    passed: HashSet<Digest>,
}

impl Store for Passed {
    fn roots(&self, picks: &[Selector]) -> Result<Vec<Root>> {
        select(&self.tail.roots, picks)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let found = self.tail.documents.get(&at.digest).cloned();
        found.ok_or_else(|| Error::invalid(format!("the archive has no manifest {}", at.digest)))
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let bytes = self.tail.documents.get(&blob.digest);
        let bytes = bytes.ok_or_else(|| Error::invalid(format!("blob {} has passed already", blob.digest)))?;
        Ok(Box::new(&bytes[(from as usize).min(bytes.len())..]))
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let document = self.tail.documents.get(digest).map(|bytes| bytes.len() as u64);
        let passed = self.passed.contains(digest).then_some(0);
        Ok(document.or(passed).map(|size| Descriptor::new(media_type::OCTETS, *digest, size)))
    }
    fn nothing(&self) -> String {
        self.tail.nothing.clone()
    }
    fn is_sparse(&self) -> bool {
        true
    }
}
