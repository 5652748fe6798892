//! The transfer of a store's blobs: several at the same time where the sink takes them in any order, else one after the
//! other, with several read ahead from a remote store.

mod blob;
mod queue;
mod workers;

use super::upload_order::LineFill;
use super::{CopyRun, Work, prefetch};
use crate::error::Result;
use crate::image::{Digest, Image};
use crate::sink::Order;
use crate::source::Store;
use queue::Queue;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use workers::Workers;

/// A blob of at least this size keeps a connection busy; with a smaller one the connection mostly waits.
const LARGE_BYTES: u64 = 1 << 20;
/// Large blobs take memory, so fewer of them are transferred at the same time.
const MAX_LARGE: usize = 6;

/// The store of a copy, and the images whose blobs are read from it.
#[derive(Clone, Copy)]
pub(crate) struct BlobSource<'s> {
    pub store: &'s dyn Store,
    pub images: &'s [Image],
}

/// Transfers every blob in `work` from `source` to the run's sink, `resume_first` before all others.
pub(crate) fn transfer_all(
    run: &CopyRun<'_>,
    source: BlobSource<'_>,
    mut work: Vec<Work>,
    resume_first: Option<Digest>,
) -> Result<()> {
    let recompresses = work.iter().any(|work| work.recompress.is_some());
    let stop = AtomicBool::new(false);
    // Copies that share a source keep the order of the plan.
    let alone = !run.options.budget.is_shared();
    // A sink may know the order only now, with the blobs.
    let order = run.sink.capabilities().order;
    if alone
        && order == Order::Sequential
        && let Some(first) = resume_first
        && let Some(at) = work.iter().position(|work| work.target().is_some_and(|blob| blob.digest == first))
    {
        // It is not read ahead: the offset is known only when the sink opens it.
        blob::transfer(run, source, &work.remove(at), &stop)?;
    }
    match order {
        Order::Sequential if alone && run.profile.is_remote && wanted(run, source.store) > 1 && !recompresses => {
            read_ahead(run, source, &work, &stop)
        }
        Order::Sequential => work.iter().try_for_each(|work| blob::transfer(run, source, work, &stop)),
        Order::Parallel(_) => {
            let queue = match (alone, run.capabilities.large_uploads) {
                (false, _) => Queue::in_order(work),
                (true, None) => Queue::by_size(work, LARGE_BYTES, queue::Large::Descending),
                (true, Some(_)) => Queue::by_size(work, LARGE_BYTES, queue::Large::Ascending),
            };
            let least = run.capabilities.large_uploads.unwrap_or(MAX_LARGE);
            let fill = LineFill::new(least, MAX_LARGE, Instant::now());
            Workers::new(run, source, &stop, queue, fill, recompresses).run()
        }
    }
}

fn read_ahead(run: &CopyRun<'_>, source: BlobSource<'_>, work: &[Work], stop: &AtomicBool) -> Result<()> {
    let store = source.store;
    let open = |blob: &_| blob::open(store, blob, 0);
    let (readers, store_reads_ahead) = (wanted(run, store), store.profile().reads_ahead);
    let blobs = prefetch::Blobs { open: &open, readers, store_reads_ahead };
    prefetch::each(work, blobs, stop, &mut |work, bytes| {
        let mut bytes = Some(bytes);
        let mut once = |from: u64| match bytes.take() {
            Some(bytes) if from == 0 => Ok(Box::new(bytes) as Box<dyn Read + Send>),
            _ => blob::open(store, &work.blob, from),
        };
        let done = blob::transfer_once(run, source, work, &mut once, stop);
        run.unless_optional(&work.blob, blob::retried(run, source, work, stop, done))
    })
}

/// The number of blobs to transfer at the same time. It may change: the distance of a registry shows only in its
/// answers.
fn wanted(run: &CopyRun<'_>, store: &dyn Store) -> usize {
    let at_sink = match run.sink.capabilities().order {
        Order::Parallel(blobs) => blobs,
        Order::Sequential => 1,
    };
    let wanted = store.profile().parallel_reads.max(at_sink);
    wanted.min(run.options.jobs.unwrap_or(usize::MAX)).min(run.max_parallel_blobs()).max(1)
}
