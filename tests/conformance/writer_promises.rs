//! The promises of `BlobWriter`, in the order of its documentation.

use crate::sink_promises::{Sent, begin, claim, send, transfer_to};
use crate::sinks::{Place, check};
use crate::support::noise::noise;
use imgmv::internals::image::Algorithm;
use imgmv::internals::transfer::IncomingBlob;
use imgmv::{BlobWriter, Claim, Digest, Error, Hasher, Kind, Result, Sink, Verified};
use std::sync::Mutex;

/// Small blobs and large ones may be written in different ways.
const SIZES: [usize; 2] = [5_000, 1_500_000];

/// A sink that was asked what is missing, as in a copy.
fn open(place: &Place) -> Box<dyn Sink> {
    let sink = (place.open)();
    Sent::new(9, "9").missing(&*sink, false).unwrap();
    sink
}

fn verified(bytes: &[u8]) -> Verified {
    let mut blob = IncomingBlob::new(Algorithm::Sha256);
    blob.add(bytes);
    blob.verify(&Claim::default()).unwrap()
}

/// Writes the first `end` bytes and drops the writer.
fn cut(sink: &dyn Sink, bytes: &[u8], end: usize) {
    let mut writer = begin(sink, &claim(bytes));
    writer.start(Hasher::default()).unwrap();
    bytes[..end].chunks(64 << 10).for_each(|bytes| writer.write(bytes).unwrap());
}

fn lacks(place: &Place, bytes: &[u8]) {
    let contents = (place.contents)();
    assert!(!contents.blobs.contains_key(&Digest::of(bytes)) && contents.tags.is_empty());
}

fn has(place: &Place, bytes: &[u8]) {
    let contents = (place.contents)();
    contents.verify();
    assert!(contents.blobs.contains_key(&Digest::of(bytes)), "not stored");
}

#[test]
fn a_dropped_writer_leaves_no_blob() {
    check("a_dropped_writer_leaves_no_blob", |place| {
        for size in SIZES {
            let (sink, bytes) = (open(place), noise(1, size));
            cut(&*sink, &bytes, size / 2);
            lacks(place, &bytes);
            drop(sink);
            lacks(place, &bytes);
        }
    });
}

#[test]
fn a_sink_is_usable_after_a_dropped_writer() {
    check("a_sink_is_usable_after_a_dropped_writer", |place| {
        for size in SIZES {
            let (sink, bytes, other) = (open(place), noise(1, size), noise(2, size / 10));
            cut(&*sink, &bytes, size / 2);
            assert!(send(&*sink, &other).unwrap());
            sink.finish().unwrap();
            lacks(place, &bytes);
            has(place, &other);
        }
    });
}

// `start`

#[test]
fn a_fresh_writer_starts_at_0() {
    check("a_fresh_writer_starts_at_0", |place| {
        for size in SIZES {
            let (sink, bytes) = (open(place), noise(3, size));
            let (from, hasher) = begin(&*sink, &claim(&bytes)).start(Hasher::default()).unwrap();
            assert_eq!((from, hasher.finish()), (0, Digest::of(b"")));
        }
    });
}

/// Cuts a blob in one run; the sink and the writer of the next run.
fn next_run(place: &Place, bytes: &[u8]) -> Box<dyn Sink> {
    let sink = open(place);
    cut(&*sink, bytes, bytes.len() / 2);
    drop(sink);
    open(place)
}

#[test]
fn a_cut_blob_resumes_in_the_next_run() {
    check("a_cut_blob_resumes_in_the_next_run", |place| {
        let bytes = noise(4, 1_500_000);
        let sink = next_run(place, &bytes);
        let mut writer = begin(&*sink, &claim(&bytes));
        let (from, hasher) = writer.start(Hasher::default()).unwrap();
        assert!(0 < from && from <= bytes.len() as u64 / 2, "from {from}");
        let rest = &bytes[from as usize..];
        assert_eq!(hasher.with(rest).finish(), Digest::of(&bytes));
        writer.write(rest).unwrap();
        writer.commit(&verified(&bytes)).unwrap();
        drop(writer);
        sink.finish().unwrap();
        has(place, &bytes);
    });
}

#[test]
fn a_blob_that_resumes_only_first_is_named_by_missing() {
    check("a_blob_that_resumes_only_first_is_named_by_missing", |place| {
        let bytes = noise(5, 1_500_000);
        let sink = (place.open)();
        Sent::new(9, "9").missing(&*sink, false).unwrap();
        cut(&*sink, &bytes, 700_000);
        drop(sink);
        let sink = (place.open)();
        let first = Sent::new(9, "9").missing(&*sink, false).unwrap().resume_first;
        assert!(first.is_none_or(|first| first == Digest::of(&bytes)));
        // Another blob before it; the cut one is sent completely all the same.
        assert!(send(&*sink, &noise(6, 1_000)).unwrap() && send(&*sink, &bytes).unwrap());
        sink.finish().unwrap();
        has(place, &bytes);
    });
}

#[test]
fn a_cut_blob_arrives_in_the_next_run() {
    check("a_cut_blob_arrives_in_the_next_run", |place| {
        for size in SIZES {
            let bytes = noise(7, size);
            let sink = next_run(place, &bytes);
            assert!(send(&*sink, &bytes).unwrap());
            sink.finish().unwrap();
            has(place, &bytes);
        }
    });
}

#[test]
fn writing_starts_at_0_without_start() {
    check("writing_starts_at_0_without_start", |place| {
        for size in SIZES {
            let bytes = noise(8, size);
            let sink = next_run(place, &bytes);
            let mut writer = begin(&*sink, &claim(&bytes));
            writer.write(&bytes).unwrap();
            writer.commit(&verified(&bytes)).unwrap();
            drop(writer);
            sink.finish().unwrap();
            has(place, &bytes);
        }
    });
}

// `write`

#[test]
fn more_bytes_than_announced_are_invalid() {
    check("more_bytes_than_announced_are_invalid", |place| {
        for size in SIZES {
            let (sink, bytes) = (open(place), noise(9, size));
            let mut writer = begin(&*sink, &claim(&bytes));
            writer.start(Hasher::default()).unwrap();
            writer.write(&bytes).unwrap();
            assert_eq!(writer.write(b"1").unwrap_err().kind(), Kind::Invalid);
        }
    });
}

#[test]
fn an_empty_blob_is_stored() {
    check("an_empty_blob_is_stored", |place| {
        let sink = open(place);
        assert!(send(&*sink, b"").unwrap());
        sink.finish().unwrap();
        has(place, b"");
    });
}

// `recover`

/// Counts the calls of `recover`.
struct Counted<'a>(Box<dyn BlobWriter + 'a>, &'a Mutex<usize>);

impl BlobWriter for Counted<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        self.0.start(fresh)
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }
    fn recover(&mut self, error: Error) -> Result<u64> {
        *self.1.lock().unwrap() += 1;
        self.0.recover(error)
    }
    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.0.commit(blob)
    }
}

#[test]
fn a_failed_writer_recovers() {
    check("a_failed_writer_recovers", |place| {
        let (sink, bytes, recovered) = (open(place), noise(10, 1_500_000), Mutex::new(0));
        assert!(sink.capabilities().needs_replay);
        place.fail_once.as_ref().expect("the row has `fail_once`")();
        let writer = Counted(begin(&*sink, &claim(&bytes)), &recovered);
        transfer_to(Box::new(writer), &claim(&bytes), &bytes).unwrap();
        assert_ne!(*recovered.lock().unwrap(), 0);
        has(place, &bytes);
    });
}

#[test]
fn a_writer_without_replay_returns_the_error() {
    check("a_writer_without_replay_returns_the_error", |place| {
        let (sink, bytes) = (open(place), noise(11, 5_000));
        if sink.capabilities().needs_replay {
            return;
        }
        let error = begin(&*sink, &claim(&bytes)).recover(Error::network("the line is cut")).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Network, "the line is cut"));
    });
}

// `commit`

#[test]
fn wrong_bytes_are_never_committed() {
    check("wrong_bytes_are_never_committed", |place| {
        for size in SIZES {
            let (sink, bytes) = (open(place), noise(12, size));
            let mut altered = bytes.clone();
            altered[size / 3] ^= 1;
            for wrong in [&altered[..], &bytes[..size - 1], &[&bytes[..], b"1"].concat()] {
                let claim = claim(&bytes);
                let sent = match sink.begin(&claim, None) {
                    Ok(imgmv::Begin::Write(writer)) => transfer_to(writer, &claim, wrong).map(|_| ()),
                    Ok(imgmv::Begin::Held) => panic!("wrong bytes are held"),
                    Err(error) => Err(error),
                };
                assert!(sent.is_err());
                lacks(place, &bytes);
                lacks(place, wrong);
            }
        }
    });
}

#[test]
fn a_commit_of_other_bytes_fails() {
    check("a_commit_of_other_bytes_fails", |place| {
        for size in SIZES {
            let (sink, bytes, other) = (open(place), noise(13, size), noise(14, size));
            let mut writer = begin(&*sink, &claim(&bytes));
            writer.start(Hasher::default()).unwrap();
            writer.write(&bytes).unwrap();
            assert_eq!(writer.commit(&verified(&other)).unwrap_err().kind(), Kind::Failed);
            drop(writer);
            lacks(place, &bytes);
            lacks(place, &other);
        }
    });
}
