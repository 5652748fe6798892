//! Moving blobs from a store: several at once where the sink takes them in any order, one after the other (with
//! several read ahead from a far store) where it does not.

use crate::ahead;
use crate::copy::{Run, Work};
use crate::error::{Error, Kind, Result};
use crate::image::Descriptor;
use crate::progress::{Event, Outcome};
use crate::sink::{Begin, BlobWriter, Order};
use crate::source::{Claim, Store};
use crate::transfer::{self, Flow};
use std::{
    collections::VecDeque,
    io::{Cursor, Read},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Layers that are packed anew at once: each packs with every core.
const PACKING_LANES: usize = 2;

/// Moves every blob in `work` from `store` to the run's sink.
pub(crate) fn move_all(run: &Run<'_>, store: &dyn Store, mut work: Vec<Work>) -> Result<()> {
    let lanes = run.options.jobs.max(1).min(store.lanes().max(1));
    let packing = work.iter().any(|work| work.recode.is_some());
    let stop = AtomicBool::new(false);
    match run.takes.order {
        Order::Single if store.origin().is_some() && lanes > 1 && !packing => {
            ahead::each(&work, lanes, &|blob| open(store, blob, 0), &stop, &mut |work, bytes| {
                let mut bytes = Some(bytes);
                let mut once = |from: u64| match bytes.take() {
                    Some(bytes) if from == 0 => Ok(Box::new(bytes) as Box<dyn Read + Send>),
                    _ => open(store, &work.blob, from),
                };
                move_one(run, store, work, &mut once, &stop)
            })
        }
        Order::Single => work.iter().try_for_each(|work| from_store(run, store, work, &stop)),
        Order::Lanes(most) => {
            let lanes = lanes.min(most.max(1)).min(work.len()).min(if packing { PACKING_LANES } else { usize::MAX });
            work.sort_by_key(|work| std::cmp::Reverse(work.blob.size));
            in_lanes(run, store, work, lanes, &stop)
        }
    }
}

fn in_lanes(run: &Run<'_>, store: &dyn Store, work: Vec<Work>, lanes: usize, stop: &AtomicBool) -> Result<()> {
    let queue = Mutex::new(VecDeque::from(work));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let next = || match stop.load(Ordering::Relaxed) {
        true => None,
        false => queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front(),
    };
    let lane = || {
        while let Some(work) = next() {
            if let Err(error) = from_store(run, store, &work, stop) {
                let mut first = failure.lock().unwrap_or_else(|e| e.into_inner());
                // The others end as interrupted when the first has failed: that one is told.
                if first.as_ref().is_none_or(|first| first.kind() == Kind::Interrupted) {
                    *first = Some(error);
                }
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..lanes {
            scope.spawn(lane);
        }
        lane();
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn from_store(run: &Run<'_>, store: &dyn Store, work: &Work, stop: &AtomicBool) -> Result<()> {
    move_one(run, store, work, &mut |from| open(store, &work.blob, from), stop)
}

/// The blob's bytes: embedded in its descriptor, or the store's.
fn open<'s>(store: &'s dyn Store, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + 's>> {
    match blob.embedded() {
        Some(bytes) => {
            let mut bytes = Cursor::new(bytes);
            bytes.set_position(from);
            Ok(Box::new(bytes))
        }
        None => store.open(blob, from),
    }
}

fn move_one<'s>(
    run: &Run<'_>,
    store: &'s dyn Store,
    work: &Work,
    open: &mut transfer::Opener<'_, 's>,
    stop: &AtomicBool,
) -> Result<()> {
    run.cancel.check()?;
    let id = run.next_id();
    let flow = Flow { watch: run.watch, cancel: run.cancel, stop, id, threads: cores() };
    run.watch.event(Event::BlobStart { id, label: &work.blob.digest.short(), size: Some(work.blob.size) });
    let done = begin(run, store, work, open, &flow).and_then(|begun| match begun {
        Begin::Held => {
            run.held(id, work);
            Ok(())
        }
        Begin::Write(writer) => write(run, work, open, writer, &flow),
    });
    done.inspect_err(|_| run.watch.event(Event::BlobEnd { id, outcome: Outcome::Failed }))
}

fn begin<'k>(
    run: &Run<'k>,
    store: &dyn Store,
    work: &Work,
    open: &mut transfer::Opener<'_, '_>,
    flow: &Flow<'_>,
) -> Result<Begin<'k>> {
    let claim = match (work.recode, work.expected) {
        (None, _) => Claim::from(&work.blob),
        (Some(_), Some(expected)) => Claim { digest: Some(expected.digest), size: Some(expected.size) },
        (Some(_), None) if run.takes.unnamed_blobs => Claim::default(),
        // A pipe has to know the size beforehand: packed twice, never stored.
        (Some(how), None) => transfer::measure_recoded(&Claim::from(&work.blob), how, &mut *open(0)?, flow)?,
    };
    run.sink.begin(&claim, store.origin().filter(|_| work.recode.is_none()))
}

fn write(
    run: &Run<'_>,
    work: &Work,
    open: &mut transfer::Opener<'_, '_>,
    writer: Box<dyn BlobWriter + '_>,
    flow: &Flow<'_>,
) -> Result<()> {
    let claim = Claim::from(&work.blob);
    let verified = match work.recode {
        None => transfer::transfer(&claim, open, writer, flow)?,
        Some(how) => {
            let expected = work.expected.map(|packed| packed.digest);
            transfer::transfer_recoded(&claim, expected, how, &mut *open(0)?, writer, flow)?
        }
    };
    run.moved(flow.id, &verified, work.recode);
    Ok(())
}

pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(8)
}
