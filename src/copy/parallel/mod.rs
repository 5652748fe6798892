//! Moving blobs from a store: several at once where the sink takes them in any order, one after the other (with
//! several read ahead from a far store) where it does not.

mod queue;

use super::compress_slots::CompressSlot;
use super::prefetch;
use super::upload_order::LineFill;
use super::{Run, Work};
use crate::compress::threads_per_layer;
use crate::error::{Error, Kind, Result};
use crate::image::Descriptor;
use crate::progress::{Event, Outcome};
use crate::sink::{Begin, Order};
use crate::source::{Claim, Store};
use crate::transfer;
use crate::transfer::BlobWriter;
use crate::transfer::TransferContext;
use queue::Queue;
use std::{
    io::{Cursor, Read},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

/// Layers that are packed anew at once: each packs with every core.
const PACKING_LANES: usize = 2;
/// In bytes. A blob from this size on keeps a connection busy, one below it mostly waits for the far side.
const LARGE: u64 = 1 << 20;
/// How often the lane looks that waits for a place among the large ones.
const PAUSE: Duration = Duration::from_millis(20);
/// Large blobs at once: they are what takes memory.
const LARGE_LANES: usize = 6;

/// Blobs at once of all copies that run side by side, or one each.
const LANES_IN_COMPANY: usize = 12;

/// Moves every blob in `work` from `store` to the run's sink.
pub(crate) fn transfer_all(run: &Run<'_>, store: &dyn Store, mut work: Vec<Work>) -> Result<()> {
    let packing = work.iter().any(|work| work.recode.is_some());
    let stop = AtomicBool::new(false);
    let alone = run.options.company == 1;
    // All who read side by side keep to one order.
    if alone
        && run.takes.order == Order::Single
        && let Some(begun) = run.sink.begun()
        && let Some(at) = work.iter().position(|work| work.target().is_some_and(|blob| blob.digest == begun))
    {
        // Not read ahead: where it goes on is known only when it is begun.
        twice_if_it_may_help(run, store, &work.remove(at), &stop)?;
    }
    let fill = LineFill::new(run.takes.large.unwrap_or(LARGE_LANES), LARGE_LANES, Instant::now());
    match run.takes.order {
        Order::Single if alone && store.is_far() && wanted(run, store) > 1 && !packing => {
            prefetch::each(&work, wanted(run, store), &|blob| open(store, blob, 0), &stop, &mut |work, bytes| {
                let mut bytes = Some(bytes);
                let mut once = |from: u64| match bytes.take() {
                    Some(bytes) if from == 0 => Ok(Box::new(bytes) as Box<dyn Read + Send>),
                    _ => open(store, &work.blob, from),
                };
                let done = move_one(run, store, work, &mut once, &stop);
                once_more_if_it_may_help(run, store, work, &stop, done)
            })
        }
        Order::Single => work.iter().try_for_each(|work| twice_if_it_may_help(run, store, work, &stop)),
        Order::Lanes(_) if !alone => {
            let queue = Queue { small: work.into(), ..Queue::default() };
            Lanes {
                run,
                store,
                packing,
                stop: &stop,
                queue: Mutex::new(queue),
                fill: Mutex::new(fill),
                failure: Mutex::new(None),
            }
            .run()
        }
        Order::Lanes(_) => {
            let (mut large, mut small) = work.into_iter().partition::<Vec<_>, _>(|work| work.blob.size >= LARGE);
            small.sort_by_key(|work| std::cmp::Reverse(work.blob.size));
            large.sort_by_key(|work| work.blob.size);
            if run.takes.large.is_none() {
                large.reverse();
            }
            let queue = Queue { large: large.into(), small: small.into(), ..Queue::default() };
            Lanes {
                run,
                store,
                packing,
                stop: &stop,
                queue: Mutex::new(queue),
                fill: Mutex::new(fill),
                failure: Mutex::new(None),
            }
            .run()
        }
    }
}

/// How many blobs are to be under way at once, by what both ends know by now: how far away a registry is shows while it
/// is asked.
fn wanted(run: &Run<'_>, store: &dyn Store) -> usize {
    let at_sink = match run.sink.takes().order {
        Order::Lanes(lanes) => lanes,
        Order::Single => 1,
    };
    let in_company = match run.options.company {
        1 => usize::MAX,
        company => LANES_IN_COMPANY / company,
    };
    store.lanes().max(at_sink).min(run.options.jobs.unwrap_or(usize::MAX)).min(in_company).max(1)
}

/// Threads that each move one blob after the other.
struct Lanes<'l, 'r> {
    run: &'l Run<'r>,
    store: &'l dyn Store,
    packing: bool,
    stop: &'l AtomicBool,
    queue: Mutex<Queue>,
    fill: Mutex<LineFill>,
    failure: Mutex<Option<Error>>,
}

impl Lanes<'_, '_> {
    fn run(&self) -> Result<()> {
        self.queue().lanes = 1;
        thread::scope(|scope| self.lane(scope));
        match self.failure.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How many large blobs may be under way.
    fn large(&self) -> usize {
        match self.run.sink.takes().large {
            Some(_) => self.fill().at_once(),
            None => LARGE_LANES,
        }
    }

    fn fill(&self) -> MutexGuard<'_, LineFill> {
        self.fill.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wanted(&self) -> usize {
        let wanted = wanted(self.run, self.store);
        if self.packing { wanted.min(PACKING_LANES) } else { wanted }
    }

    fn lane<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        self.widen(scope);
        while let Some(work) = self.next() {
            let done = twice_if_it_may_help(self.run, self.store, &work, self.stop);
            if work.blob.size >= LARGE {
                let mut queue = self.queue();
                queue.large_under_way = queue.large_under_way.saturating_sub(1);
            }
            match done {
                Ok(()) => self.widen(scope),
                Err(error) => self.fail(error),
            }
        }
    }

    /// The next blob, unless this lane is one too many or nothing is left for it. One lane waits for a place among the
    /// large ones, and sees to it that there are enough of those.
    fn next(&self) -> Option<Work> {
        let mut waits = false;
        loop {
            let (wanted, large) = (self.wanted(), self.large());
            let mut queue = self.queue();
            let ends = self.stop.load(Ordering::Relaxed) || queue.lanes > wanted || self.run.cancel.raised();
            let next = if ends { None } else { queue.next(large) };
            let keeps_waiting = next.is_none() && !ends && !queue.large.is_empty() && (waits || !queue.waits);
            if keeps_waiting {
                (queue.waits, waits) = (true, true);
                drop(queue);
                thread::sleep(PAUSE);
                let mut fill = self.fill();
                fill.review(Instant::now(), self.run.passage.passed());
                self.run.passage.share(fill.is_even());
                continue;
            }
            if waits {
                queue.waits = false;
            }
            if next.is_none() {
                queue.lanes -= 1;
            }
            drop(queue);
            self.fill().restart(Instant::now(), self.run.passage.passed());
            return next;
        }
    }

    /// Starts as many lanes as are wanted by now and have something to do.
    fn widen<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let (wanted, large) = (self.wanted(), self.large());
        let more = {
            let mut queue = self.queue();
            let places = large.saturating_sub(queue.large_under_way);
            // One may wait.
            let large = queue.large.len().min(places + usize::from(!queue.waits));
            let more = wanted.saturating_sub(queue.lanes).min(queue.small.len() + large);
            queue.lanes += more;
            more
        };
        for _ in 0..more {
            scope.spawn(move || self.lane(scope));
        }
    }

    fn fail(&self, error: Error) {
        let mut first = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        // The others end as interrupted when the first has failed: that one is told.
        if first.as_ref().is_none_or(|first| first.kind() == Kind::Interrupted) {
            *first = Some(error);
        }
        drop(first);
        self.stop.store(true, Ordering::Relaxed);
        // Nothing is left to do: otherwise lanes would go on being started for it.
        let mut queue = self.queue();
        queue.large.clear();
        queue.small.clear();
    }
}

fn twice_if_it_may_help(run: &Run<'_>, store: &dyn Store, work: &Work, stop: &AtomicBool) -> Result<()> {
    once_more_if_it_may_help(run, store, work, stop, from_store(run, store, work, stop))
}

/// What a line has altered is asked for once more; a second time it is not the line. A layer that is packed on its way
/// and whose upload was forgotten is packed once more. Nothing can be taken back from a pipe.
fn once_more_if_it_may_help(
    run: &Run<'_>,
    store: &dyn Store,
    work: &Work,
    stop: &AtomicBool,
    done: Result<()>,
) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let takes_back = run.takes.order != Order::Single || run.takes.unnamed_blobs;
    let altered = error.is_digest_mismatch() && store.origin().is_some();
    let lost = error.kind() == Kind::Network
        && !error.is_permanent()
        && work.recode.is_some()
        && !stop.load(Ordering::Relaxed);
    if !(takes_back && (altered || lost)) {
        return Err(error);
    }
    run.watch.event(Event::Retry { what: "a blob", why: &error.to_string(), after: Duration::ZERO });
    from_store(run, store, work, stop)
}

fn from_store(run: &Run<'_>, store: &dyn Store, work: &Work, stop: &AtomicBool) -> Result<()> {
    let few = run.options.company == 1 && run.sink.takes().large.is_some();
    let place = (few && work.blob.size >= LARGE).then(|| run.passage.begin(work.blob.size));
    let mut in_turn = |from| {
        let bytes = open(store, &work.blob, from)?;
        Ok(match &place {
            Some(place) => place.read(bytes),
            None => bytes,
        })
    };
    let done = move_one(run, store, work, &mut in_turn, stop);
    store.skip_blob(&work.blob.digest);
    done
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
    let _turn = match work.recode {
        Some(_) => CompressSlot::wait(run.options.company, run.cancel)?,
        None => None,
    };
    let id = run.next_id();
    let flow = run.flow(stop, id, threads_per_layer());
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
    flow: &TransferContext<'_>,
) -> Result<Begin<'k>> {
    let claim = match (work.recode, work.expected) {
        (None, _) => Claim::from(&work.blob),
        (Some(_), Some(expected)) => Claim { digest: Some(expected.digest), size: Some(expected.size) },
        (Some(_), None) if run.takes.unnamed_blobs => Claim::default(),
        // A pipe has to know the size beforehand: packed twice, never stored.
        (Some(how), None) => transfer::measure_recompressed(&Claim::from(&work.blob), how, &mut *open(0)?, flow)?,
    };
    run.sink.begin(&claim, store.origin().filter(|_| work.recode.is_none()))
}

fn write(
    run: &Run<'_>,
    work: &Work,
    open: &mut transfer::Opener<'_, '_>,
    writer: Box<dyn BlobWriter + '_>,
    flow: &TransferContext<'_>,
) -> Result<()> {
    let claim = Claim::from(&work.blob);
    let verified = match work.recode {
        None => transfer::transfer(&claim, open, writer, flow)?,
        Some(how) => {
            let expected = work.expected.map(|packed| packed.digest);
            transfer::transfer_recompressed(&claim, expected, how, &mut *open(0)?, writer, flow)?
        }
    };
    run.moved(flow.id, &verified, work.recode);
    Ok(())
}
