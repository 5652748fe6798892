//! Copies that run side by side on one store: how often it is read, whatever the others do.

use super::memory::{Kept, Memory, layer, takes};
use imgmv::internals::fanout::{FanoutLimits, SharedStore, Subscriber};
use imgmv::internals::transfer::Budget;
use imgmv::{
    Begin, BlobWriter, Cancel, Claim, Descriptor, Digest, Error, Finish, Kind, Manifest, Missing, Name, Options, Order,
    Origin, Profile, Report, Result, Root, Selector, Silent, Sink, SinkCapabilities, Source, Store, Upcoming, Verified,
    copy,
};
use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const FOR_EVER: Duration = Duration::from_secs(3600);

/// A store that counts how often each blob is opened.
struct Counting {
    memory: Memory,
    opened: Mutex<HashMap<Digest, usize>>,
    manifests: AtomicUsize,
    /// Blobs whose first reading has a wrong bit.
    alters: bool,
    origin: Option<Origin>,
}

impl Counting {
    fn new(memory: Memory) -> Counting {
        Counting { memory, opened: Mutex::default(), manifests: AtomicUsize::new(0), alters: false, origin: None }
    }

    fn most(&self) -> usize {
        self.opened.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    fn all(&self) -> usize {
        self.opened.lock().unwrap().values().sum()
    }
}

impl Store for Counting {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.memory.roots(selectors)
    }
    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.manifests.fetch_add(1, Ordering::SeqCst);
        self.memory.manifest(at)
    }
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let nth = {
            let mut opened = self.opened.lock().unwrap();
            let nth = opened.entry(blob.digest).or_default();
            *nth += 1;
            *nth
        };
        if self.alters && nth == 1 && blob.size > 10_000 {
            let mut bytes = self.memory.blobs[&blob.digest].clone();
            bytes[9000] ^= 1;
            return Ok(Box::new(std::io::Cursor::new(bytes)));
        }
        self.memory.open(blob, from)
    }
    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.memory.find(digest)
    }
    fn profile(&self) -> Profile {
        Profile { is_remote: self.origin.is_some(), origin: self.origin.clone(), ..Profile::default() }
    }
}

/// A sink in memory whose writing may be held up or fail.
struct Moody {
    kept: Kept,
    /// After so many bytes of each blob, writing fails.
    fails_after: Option<usize>,
    /// Writing goes on with the next message, or when nobody sends any more.
    waits: Option<Mutex<Receiver<()>>>,
    /// Told when writing begins.
    begun: Arc<AtomicBool>,
    /// It says what it holds only when it is asked for each blob, as a registry does.
    says_late: bool,
}

impl Moody {
    fn new(order: Order) -> Moody {
        let kept = Kept::new(SinkCapabilities { order, ..takes() });
        Moody { kept, fails_after: None, waits: None, begun: Arc::default(), says_late: false }
    }
}

struct Writer<'a> {
    inner: Box<dyn BlobWriter + 'a>,
    moody: &'a Moody,
    written: usize,
}

impl BlobWriter for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.moody.begun.store(true, Ordering::SeqCst);
        if let Some(waits) = &self.moody.waits {
            let _ = waits.lock().unwrap().recv();
        }
        self.written += bytes.len();
        match self.moody.fails_after {
            Some(most) if self.written > most => Err(Error::unwritable("the disk is full")),
            _ => self.inner.write(bytes),
        }
    }
    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.inner.commit(blob)
    }
}

impl Sink for Moody {
    fn capabilities(&self) -> SinkCapabilities {
        self.kept.capabilities()
    }
    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        match self.says_late {
            true => Ok(Missing::new(upcoming.into_blobs())),
            false => self.kept.missing(upcoming),
        }
    }
    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>> {
        Ok(match self.kept.begin(claim, from)? {
            Begin::Held => Begin::Held,
            Begin::Write(inner) => Begin::Write(Box::new(Writer { inner, moody: self, written: 0 })),
        })
    }
    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.kept.put_manifest(manifest)
    }
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.kept.publish(name, root)
    }
    fn finish(&self) -> Result<Finish> {
        self.kept.finish()
    }
}

/// An image of `layers` layers of about `size` bytes.
fn sample(layers: u8, size: usize) -> Memory {
    let mut memory = Memory::default();
    let layers: Vec<Vec<u8>> = (0..layers).map(|seed| layer(seed + 1, size + 1000 * usize::from(seed))).collect();
    let image = memory.image("linux/amd64", &layers);
    memory.name("docker.io/library/app:2", &image);
    memory
}

fn small(max_delay: Duration) -> FanoutLimits {
    FanoutLimits { window_bytes: 512 << 10, all_windows_bytes: 1 << 20, max_delay, stall_timeout: max_delay }
}

fn copy_to(sharer: Subscriber, sink: &dyn Sink, copies: usize, cancel: &Cancel) -> Result<Report> {
    let options = Options { budget: Budget { copies }, ..Options::default() };
    copy(Source::Shared(Arc::new(sharer)), sink, &options, None, &Silent, cancel)
}

/// Copies to every sink at once.
fn fan(store: &Arc<Counting>, sinks: &[Moody], limits: FanoutLimits) -> Vec<Result<Report>> {
    let cancel = Cancel::default();
    let shared = SharedStore::new(store.clone(), limits, &cancel);
    let sharers: Vec<Subscriber> = sinks.iter().map(|_| shared.subscribe()).collect();
    thread::scope(|scope| {
        let copies: Vec<_> = sinks
            .iter()
            .zip(sharers)
            .map(|(sink, sharer)| scope.spawn(|| copy_to(sharer, sink, sinks.len(), &cancel)))
            .collect();
        copies.into_iter().map(|copy| copy.join().unwrap()).collect()
    })
}

fn orders(orders: &[Order]) -> Vec<Moody> {
    orders.iter().map(|order| Moody::new(*order)).collect()
}

const MIXED: [Order; 5] =
    [Order::Sequential, Order::Parallel(4), Order::Sequential, Order::Parallel(1), Order::Parallel(2)];

#[test]
fn members_that_keep_pace_read_every_blob_once() {
    // More in each layer than a window holds, and more in all than the pool.
    let store = Arc::new(Counting::new(sample(8, 1_300_000)));
    let sinks = orders(&MIXED);
    for done in fan(&store, &sinks, small(FOR_EVER)) {
        assert_eq!(done.unwrap().transferred.blobs, 9);
    }
    assert_eq!((store.all(), store.most(), store.manifests.load(Ordering::SeqCst)), (9, 1, 1));
    for sink in &sinks {
        assert!(store.memory.blobs.iter().all(|(digest, bytes)| sink.kept.state().blobs[digest] == *bytes));
    }
}

#[test]
fn many_small_blobs_are_read_once_though_they_do_not_all_fit() {
    let store = Arc::new(Counting::new(sample(60, 60_000)));
    for done in fan(&store, &orders(&MIXED), small(FOR_EVER)) {
        assert_eq!(done.unwrap().transferred.blobs, 61);
    }
    assert_eq!(store.most(), 1);
}

#[test]
fn a_member_that_has_some_already_holds_nobody_up_and_reads_nothing_twice() {
    let store = Arc::new(Counting::new(sample(8, 1_300_000)));
    let mut layers: Vec<(Digest, Vec<u8>)> =
        store.memory.blobs.clone().into_iter().filter(|(_, b)| b.len() > 9999).collect();
    layers.sort();
    let sinks = orders(&MIXED);
    for (nth, sink) in sinks.iter().enumerate() {
        sink.kept.state().blobs.extend(layers.iter().skip(nth).step_by(2).cloned());
    }
    // One has it all, and comes to know that at once.
    sinks[1].kept.state().blobs.extend(layers);
    for done in fan(&store, &sinks, small(FOR_EVER)) {
        done.unwrap();
    }
    assert_eq!(store.most(), 1);
}

#[test]
fn one_that_says_late_what_it_has_holds_nobody_up() {
    let store = Arc::new(Counting::new(sample(6, 1_300_000)));
    let mut sinks = orders(&[Order::Sequential, Order::Sequential]);
    sinks[1].says_late = true;
    // All but the last two.
    let layers = store.memory.blobs.iter().filter(|(_, bytes)| (9999..1_306_000).contains(&bytes.len()));
    sinks[1].kept.state().blobs.extend(layers.map(|(digest, bytes)| (*digest, bytes.clone())));
    for done in fan(&store, &sinks, small(FOR_EVER)) {
        done.unwrap();
    }
    assert_eq!(store.most(), 1);
}

#[test]
fn one_that_fails_is_waited_for_by_nobody() {
    for fails_after in [0, 1 << 10, 900_000] {
        for order in [Order::Sequential, Order::Parallel(4)] {
            let store = Arc::new(Counting::new(sample(8, 1_300_000)));
            let mut sinks = orders(&MIXED);
            sinks.push(Moody { fails_after: Some(fails_after), ..Moody::new(order) });
            let done = fan(&store, &sinks, small(FOR_EVER));
            assert_eq!(done[5].as_ref().unwrap_err().kind(), Kind::Unwritable);
            assert!(done[..5].iter().all(Result::is_ok), "{done:?}");
            assert_eq!(store.most(), 1);
        }
    }
}

#[test]
fn one_that_never_begins_is_waited_for_until_it_goes() {
    let store = Arc::new(Counting::new(sample(2, 1_300_000)));
    let cancel = Cancel::default();
    let shared = SharedStore::new(store.clone(), small(FOR_EVER), &cancel);
    let (first, idle) = (shared.subscribe(), shared.subscribe());
    let sink = Moody::new(Order::Sequential);
    let begun = sink.begun.clone();
    thread::scope(|scope| {
        let copy = scope.spawn(|| copy_to(first, &sink, 2, &cancel));
        while !begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        drop(idle);
        copy.join().unwrap().unwrap();
    });
    assert_eq!(store.most(), 1);
}

#[test]
fn one_that_falls_behind_goes_on_by_a_reading_of_its_own() {
    let store = Arc::new(Counting::new(sample(1, 3_000_000)));
    let cancel = Cancel::default();
    let shared = SharedStore::new(store.clone(), small(Duration::ZERO), &cancel);
    let (go, waits) = channel();
    let (quick, slow) =
        (Moody::new(Order::Sequential), Moody { waits: Some(Mutex::new(waits)), ..Moody::new(Order::Sequential) });
    let (first, second) = (shared.subscribe(), shared.subscribe());
    thread::scope(|scope| {
        let slowly = scope.spawn(|| copy_to(second, &slow, 2, &cancel));
        // It is at the beginning, and stays there until the other is done.
        while !slow.begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        copy_to(first, &quick, 2, &cancel).unwrap();
        drop(go);
        slowly.join().unwrap().unwrap();
    });
    let size = |sink: &Moody| sink.kept.state().blobs.values().map(Vec::len).max().unwrap();
    assert_eq!((store.most(), size(&quick)), (2, size(&slow)));
}

#[test]
fn one_that_comes_late_reads_by_itself() {
    let store = Arc::new(Counting::new(sample(2, 1_300_000)));
    let cancel = Cancel::default();
    let shared = SharedStore::new(store.clone(), small(FOR_EVER), &cancel);
    for _ in 0..2 {
        copy_to(shared.subscribe(), &Moody::new(Order::Sequential), 2, &cancel).unwrap();
    }
    // The config was small, and is remembered.
    assert_eq!((store.most(), store.manifests.load(Ordering::SeqCst)), (2, 1));
}

#[test]
fn what_the_line_has_altered_is_asked_for_once_more_by_all_together() {
    let origin = Some(Origin { host: "r.lan".into(), repository: "app".into() });
    for size in [50_000, 1_300_000] {
        let store = Arc::new(Counting { alters: true, origin: origin.clone(), ..Counting::new(sample(3, size)) });
        for done in fan(&store, &orders(&[Order::Parallel(3); 3]), small(FOR_EVER)) {
            done.unwrap();
        }
        // Who finds out first may be the only one who still wants it.
        assert!((2..=4).contains(&store.most()), "{}", store.most());
    }
}

#[test]
fn a_source_that_breaks_ends_every_member_with_its_reason() {
    let mut memory = sample(2, 1_300_000);
    let longest = memory.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).map(|(digest, _)| *digest).unwrap();
    memory.blobs.remove(&longest);
    let store = Arc::new(Counting::new(memory));
    for done in fan(&store, &orders(&MIXED), small(FOR_EVER)) {
        let error = done.unwrap_err();
        assert!(error.to_string().contains("no blob") || error.kind() == Kind::Interrupted, "{error}");
    }
}

#[test]
fn cancelling_ends_those_who_wait() {
    let store = Arc::new(Counting::new(sample(2, 1_300_000)));
    let cancel = Cancel::default();
    let shared = SharedStore::new(store, small(FOR_EVER), &cancel);
    let (first, _idle) = (shared.subscribe(), shared.subscribe());
    let sink = Moody::new(Order::Sequential);
    thread::scope(|scope| {
        let copy = scope.spawn(|| copy_to(first, &sink, 2, &cancel));
        while !sink.begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        cancel.raise();
        assert_eq!(copy.join().unwrap().unwrap_err().kind(), Kind::Interrupted);
    });
}

#[test]
fn one_that_goes_on_in_the_middle_gets_the_bytes_from_there() {
    let store = Arc::new(Counting::new(sample(1, 3_000_000)));
    let cancel = Cancel::default();
    let shared = SharedStore::new(store.clone(), small(FOR_EVER), &cancel);
    let (first, second) = (shared.subscribe(), shared.subscribe());
    let (digest, bytes) = store.memory.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let blob = Descriptor::new("", *digest, bytes.len() as u64);
    for sharer in [&first, &second] {
        sharer.announce(&[*digest], [*digest].into_iter());
    }
    let mut head = [0; 1000];
    let mut begun = first.open(&blob, 0).unwrap();
    begun.read_exact(&mut head).unwrap();
    let mut rest = Vec::new();
    second.open(&blob, 2_000_001).unwrap().read_to_end(&mut rest).unwrap();
    assert!(head[..] == bytes[..1000] && rest == bytes[2_000_001..]);
    drop(begun);
    rest.clear();
    second.open(&blob, blob.size).unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
