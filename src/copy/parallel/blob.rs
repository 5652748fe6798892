//! The transfer of one blob, and its retry.

use super::{BlobSource, LARGE_BYTES};
use crate::compress::threads_per_layer;
use crate::copy::compress_slots::CompressSlot;
use crate::copy::unreadable::SourceFailure;
use crate::copy::{CopyRun, Work, unreadable};
use crate::error::{Kind, Result};
use crate::image::Descriptor;
use crate::progress::{Event, Outcome};
use crate::sink::{Begin, Order};
use crate::source::{Claim, Store};
use crate::transfer;
use crate::transfer::{BlobWriter, TransferContext};
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Transfers one blob, with one retry where that may help. A blob that the copy can do without is not an error.
pub(super) fn transfer(run: &CopyRun<'_>, source: BlobSource<'_>, work: &Work, stop: &AtomicBool) -> Result<()> {
    run.unless_optional(&work.blob, retried(run, source, work, stop, from_store(run, source, work, stop)))
}

/// `done`, or the result of a second attempt.
///
/// A registry's blob that the connection altered is read again; a second time the connection is not the reason. A layer
/// that is recompressed is sent again when the registry forgot its upload. Bytes in a pipe cannot be replaced, so it gets one attempt.
pub(super) fn retried(
    run: &CopyRun<'_>,
    source: BlobSource<'_>,
    work: &Work,
    stop: &AtomicBool,
    done: Result<()>,
) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let takes_back = run.capabilities.order != Order::Sequential || run.capabilities.unnamed_blobs;
    let altered = error.is_digest_mismatch() && run.profile.origin.is_some();
    let lost = error.kind() == Kind::Network
        && !error.is_permanent()
        && work.recompress.is_some()
        && !stop.load(Ordering::Relaxed);
    if !(takes_back && (altered || lost)) {
        return Err(error);
    }
    run.watch.event(Event::Retry { what: "a blob", why: &error.to_string(), after: Duration::ZERO });
    from_store(run, source, work, stop)
}

fn from_store(run: &CopyRun<'_>, source: BlobSource<'_>, work: &Work, stop: &AtomicBool) -> Result<()> {
    let ordered = !run.options.budget.is_shared() && run.sink.capabilities().large_uploads.is_some();
    let upload = (ordered && work.blob.size >= LARGE_BYTES).then(|| run.uploads.begin(work.blob.size));
    let mut open = |from| {
        let bytes = open(source.store, &work.blob, from)?;
        Ok(match &upload {
            Some(upload) => upload.read(bytes),
            None => bytes,
        })
    };
    let done = transfer_once(run, source, work, &mut open, stop);
    if let Some(subscriber) = run.subscriber {
        subscriber.skip_blob(&work.blob.digest);
    }
    done
}

/// The blob's bytes: embedded in its descriptor, or the store's.
pub(super) fn open<'s>(store: &'s dyn Store, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + 's>> {
    match blob.embedded() {
        Some(bytes) => {
            let mut bytes = Cursor::new(bytes);
            bytes.set_position(from);
            Ok(Box::new(bytes))
        }
        None => store.open(blob, from),
    }
}

/// Transfers the blob whose bytes `open` gives, unless the sink has it.
pub(super) fn transfer_once<'s>(
    run: &CopyRun<'_>,
    source: BlobSource<'_>,
    work: &Work,
    open: &mut transfer::Opener<'_, 's>,
    stop: &AtomicBool,
) -> Result<()> {
    run.cancel.check()?;
    let _slot = match work.recompress {
        Some(_) => CompressSlot::wait(run.options.budget, run.cancel)?,
        None => None,
    };
    let id = run.next_id();
    let context = run.transfer_context(stop, id, threads_per_layer());
    run.watch.event(Event::BlobStart { id, label: &work.blob.digest.short(), size: Some(work.blob.size) });
    let failure = SourceFailure::default();
    let done = read_first(run, work, open, &failure).and_then(|mut first| {
        let mut open = |from| match first.take() {
            Some(bytes) if from == 0 => Ok(bytes),
            _ => failure.observe(open(from)),
        };
        match begin(run, work, &mut open, &context)? {
            Begin::Held => {
                run.count_held(id, work);
                Ok(())
            }
            Begin::Write(writer) => write(run, work, &mut open, writer, &context),
        }
    });
    let done = done.map_err(|error| run.with_place(source, &work.blob, &failure, error));
    run.note_source(&work.blob, &done, &failure);
    done.inspect_err(|_| run.watch.event(Event::BlobEnd { id, outcome: Outcome::Failed }))
}

/// The bytes of a blob that is read before the sink gets its header.
fn read_first<'s>(
    run: &CopyRun<'_>,
    work: &Work,
    open: &mut transfer::Opener<'_, 's>,
    failure: &SourceFailure,
) -> Result<Option<Box<dyn Read + Send + 's>>> {
    match run.is_read_first(work) {
        true => failure.observe(open(0)).and_then(|bytes| unreadable::read_first(&work.blob, bytes)).map(Some),
        false => Ok(None),
    }
}

fn begin<'k>(
    run: &CopyRun<'k>,
    work: &Work,
    open: &mut transfer::Opener<'_, '_>,
    context: &TransferContext<'_>,
) -> Result<Begin<'k>> {
    let claim = match (work.recompress, work.expected) {
        (None, _) => Claim::from(&work.blob),
        (Some(_), Some(expected)) => Claim { digest: Some(expected.digest), size: Some(expected.size) },
        (Some(_), None) if run.capabilities.unnamed_blobs => Claim::default(),
        // A pipe needs the size beforehand: the layer is recompressed twice and never stored.
        (Some(how), None) => transfer::measure_recompressed(&Claim::from(&work.blob), how, &mut *open(0)?, context)?,
    };
    run.sink.begin(&claim, run.profile.origin.as_ref().filter(|_| work.recompress.is_none()))
}

fn write(
    run: &CopyRun<'_>,
    work: &Work,
    open: &mut transfer::Opener<'_, '_>,
    writer: Box<dyn BlobWriter + '_>,
    context: &TransferContext<'_>,
) -> Result<()> {
    let _slot = run.wait_for_slot(context.stop)?;
    let claim = Claim::from(&work.blob);
    let verified = match work.recompress {
        None => transfer::transfer(&claim, open, writer, context)?,
        Some(how) => {
            let expected = work.expected.map(|known| known.digest);
            transfer::transfer_recompressed(&claim, expected, how, &mut *open(0)?, writer, context)?
        }
    };
    run.count_moved(context.id, &verified, work.recompress);
    Ok(())
}
