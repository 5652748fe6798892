//! Blobs read and hashed, packed and unpacked at once, several at a time; nothing is kept of them.

use super::Run;
use super::progress::lock;
use imgmv::image::{Coding, Descriptor, Digest, Hasher, layer_coding};
use imgmv::plan::Image;
use imgmv::progress::{Event, Outcome, Watch};
use imgmv::recode;
use imgmv::source::{Store, Stream, Tail};
use imgmv::{Error, Kind, Result};
use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Enough to know a coding by.
const HEAD: u64 = 8;
const BUFFER: usize = 256 << 10;
/// Blobs at once, at most.
const LANES: usize = 4;

/// What a blob turned out to be.
#[derive(Debug, Clone)]
pub struct Found {
    /// In bytes.
    pub size: u64,
    /// Of a layer: its digest unpacked.
    pub raw: Option<Digest>,
}

/// By the digest that a blob is asked for; an error says why its bytes are not that.
pub type Hashed = HashMap<Digest, Result<Found>>;

/// Hashes every blob of `images`. Errors are those that say nothing about the blobs (network, interrupted).
pub fn of_store(store: &dyn Store, images: &[Image], run: &Run) -> Result<Hashed> {
    let mut seen = HashSet::new();
    let blobs: Vec<&Descriptor> =
        images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)).collect();
    let bytes = blobs.iter().map(|blob| blob.size).sum();
    run.screen.event(Event::Plan { blobs: blobs.len(), bytes, held_blobs: 0, held_bytes: 0 });
    let (next, found, stop) = (AtomicUsize::new(0), Mutex::new(Hashed::new()), Mutex::new(None));
    let lane = || {
        while lock(&stop).is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(blob) = blobs.get(at) else { return };
            match one(store, blob, at as u64, run) {
                Err(error) if !says_of_blob(&error) => *lock(&stop) = Some(error),
                judged => {
                    lock(&found).insert(blob.digest, judged);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..store.lanes().clamp(1, LANES) {
            scope.spawn(lane);
        }
    });
    match stop.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok(found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())),
    }
}

/// Whether `error` is a verdict on the bytes rather than on the way to them.
fn says_of_blob(error: &Error) -> bool {
    matches!(error.kind(), Kind::Invalid | Kind::NotFound)
}

fn one(store: &dyn Store, blob: &Descriptor, id: u64, run: &Run) -> Result<Found> {
    let label = blob.digest.short();
    run.screen.event(Event::BlobStart { id, label: &label, size: Some(blob.size) });
    let layer = layer_coding(&blob.media_type).is_some();
    let judged = store.open(blob, 0).and_then(|mut bytes| {
        // A byte more than announced is enough to know.
        let mut bytes = (&mut bytes).take(blob.size.saturating_add(1));
        let (digest, found) = hash(&mut bytes, Hasher::new(blob.digest.algorithm()), layer, id, run)?;
        match digest == blob.digest {
            true => Ok(found),
            false => Err(Error::invalid(format!("blob {} does not match: got {digest}", blob.digest))),
        }
    });
    let outcome = if judged.is_ok() { Outcome::Moved } else { Outcome::Failed };
    run.screen.event(Event::BlobEnd { id, outcome });
    judged.map_err(|error| name(error, &blob.digest))
}

/// An error that is to be read in a list says which blob it means.
fn name(error: Error, digest: &Digest) -> Error {
    match error.to_string().contains(&digest.hex()) {
        true => error,
        false => error.at(format!("blob {digest}")),
    }
}

/// Hashes what passes, and what the stream says of itself at its end.
pub fn of_stream(mut stream: Box<dyn Stream>, run: &Run) -> Result<(Tail, Hashed)> {
    let mut hashed = Hashed::new();
    let mut id = 0;
    while let Some(mut blob) = stream.next_blob()? {
        let claimed = blob.claim.digest;
        let label = claimed.map_or_else(|| "layer".to_owned(), |digest| digest.short());
        run.screen.event(Event::BlobStart { id, label: &label, size: blob.claim.size });
        let hasher = claimed.map_or_else(Hasher::default, |digest| Hasher::new(digest.algorithm()));
        let (digest, found) = hash(&mut *blob.bytes, hasher, true, id, run)?;
        run.screen.event(Event::BlobEnd { id, outcome: Outcome::Moved });
        id += 1;
        match claimed {
            Some(claimed) if claimed != digest => {
                let wrong = Error::invalid(format!("blob {claimed} does not match: got {digest}"));
                hashed.insert(claimed, Err(wrong));
            }
            _ => {
                hashed.insert(digest, Ok(found));
            }
        }
    }
    Ok((stream.finish()?, hashed))
}

/// Reads `bytes` to their end: their digest, and what they are. A `layer` that is packed is hashed unpacked too.
fn hash(bytes: &mut (dyn Read + Send), hasher: Hasher, layer: bool, id: u64, run: &Run) -> Result<(Digest, Found)> {
    let mut head = Vec::new();
    (&mut *bytes).take(HEAD).read_to_end(&mut head)?;
    let coding = Coding::sniff(&head);
    let mut tee = Tee { bytes: Cursor::new(head).chain(bytes), hasher, size: 0, id, run };
    let unpacked = match layer && coding != Coding::Raw {
        true => Some(recode::recode(&mut tee, coding, Coding::Raw, None, 1, &mut |_| Ok(()))),
        false => None,
    };
    // The rest of what cannot be unpacked, and what lies behind a packed stream's end, belongs to the blob too.
    let mut rest = vec![0; BUFFER];
    while tee.read(&mut rest)? > 0 {}
    let (digest, size) = (tee.hasher.finish(), tee.size);
    let raw = match unpacked {
        None => layer.then_some(digest),
        Some(Ok(unpacked)) => Some(unpacked.raw.0),
        // Bytes that are what they should be and cannot be unpacked are the image's fault, and told as such.
        Some(Err(error)) => return Err(name(error, &digest)),
    };
    Ok((digest, Found { size, raw }))
}

struct Tee<'a, R> {
    bytes: R,
    hasher: Hasher,
    size: u64,
    id: u64,
    run: &'a Run,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run.cancel.check()?;
        let n = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        self.run.screen.event(Event::BlobMoved { id: self.id, bytes: n as u64 });
        Ok(n)
    }
}
