//! Blobs read and hashed, packed and unpacked at once, several at a time; nothing is kept of them.

use super::context::Run;
use super::output::terminal::lock;
use crate::compress;
use crate::image::Image;
use crate::image::{Algorithm, Coding, Config, Descriptor, Digest, Hasher};
use crate::progress::{Event, Outcome, Watch};
use crate::source::documents;
use crate::source::{Store, Stream, StreamSummary};
use crate::{Error, Kind, Result};
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
    pub raw: Raw,
}

/// What a layer is unpacked.
#[derive(Debug, Clone)]
pub enum Raw {
    /// It was not unpacked.
    Unknown,
    /// Its digests, one of each algorithm that was asked for.
    Is(Vec<Digest>),
    /// The right bytes, which cannot be unpacked.
    Broken(Error),
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
    let diff_ids = diff_ids(store, images);
    let (next, found, stop) = (AtomicUsize::new(0), Mutex::new(Hashed::new()), Mutex::new(None));
    let lane = || {
        while lock(&stop).is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(blob) = blobs.get(at) else { return };
            match one(store, blob, diff_ids.get(&blob.digest).map_or(&[], Vec::as_slice), at as u64, run) {
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

/// Of which algorithms the configs of `images` have their layers' `diff_ids`, by the layer. A config that cannot be read is
/// named later.
fn diff_ids(store: &dyn Store, images: &[Image]) -> HashMap<Digest, Vec<Algorithm>> {
    let mut algorithms: HashMap<Digest, Vec<Algorithm>> = HashMap::new();
    let manifests = images.iter().flat_map(|image| &image.tree);
    for manifest in manifests.filter(|manifest| manifest.is_container_image()) {
        let Some(config) = manifest.config().and_then(|at| documents::document(store, at).ok()) else { continue };
        let Ok(config) = Config::parse(&config) else { continue };
        for (layer, diff_id) in manifest.layers().iter().zip(config.diff_ids()) {
            let known = algorithms.entry(layer.digest).or_default();
            if layer.coding().is_some() && !known.contains(&diff_id.algorithm()) {
                known.push(diff_id.algorithm());
            }
        }
    }
    algorithms
}

/// Whether `error` is a verdict on the bytes rather than on the way to them.
fn says_of_blob(error: &Error) -> bool {
    matches!(error.kind(), Kind::Invalid | Kind::NotFound)
}

fn one(store: &dyn Store, blob: &Descriptor, diff_ids: &[Algorithm], id: u64, run: &Run) -> Result<Found> {
    let label = blob.digest.short();
    run.screen.event(Event::BlobStart { id, label: &label, size: Some(blob.size) });
    let judged = store.open(blob, 0).and_then(|mut bytes| {
        // A byte more than announced is enough to know.
        let mut bytes = (&mut bytes).take(blob.size.saturating_add(1));
        let (digest, found) = hash(&mut bytes, blob.digest.algorithm(), diff_ids, id, run)?;
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
pub fn of_stream(mut stream: Box<dyn Stream>, run: &Run) -> Result<(StreamSummary, Hashed)> {
    let mut hashed = Hashed::new();
    let mut id = 0;
    while let Some(mut blob) = stream.next_blob()? {
        let claimed = blob.claim.digest;
        let label = claimed.map_or_else(|| "layer".to_owned(), |digest| digest.short());
        run.screen.event(Event::BlobStart { id, label: &label, size: blob.claim.size });
        let algorithm = claimed.map_or_else(Algorithm::default, |digest| digest.algorithm());
        // The configs come later: their diff_ids are usually sha256, whatever the layer's own digest is.
        let diff_ids = [Algorithm::default(), algorithm];
        let (digest, found) = hash(&mut *blob.bytes, algorithm, &diff_ids, id, run)?;
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

/// Reads `bytes` to their end: their digest, and what they are. Where `diff_ids` are asked for, they are hashed unpacked
/// too, by each of these.
fn hash(
    bytes: &mut (dyn Read + Send),
    algorithm: Algorithm,
    diff_ids: &[Algorithm],
    id: u64,
    run: &Run,
) -> Result<(Digest, Found)> {
    let mut head = Vec::new();
    (&mut *bytes).take(HEAD).read_to_end(&mut head)?;
    let coding = Coding::sniff(&head);
    // One digest of the unpacked bytes comes by itself: the blob's own, or the one by which it is unpacked.
    let own = if coding == Coding::Raw { algorithm } else { Algorithm::default() };
    let mut others: Vec<Hasher> =
        diff_ids.iter().filter(|other| **other != own).map(|other| Hasher::new(*other)).collect();
    let also = if coding == Coding::Raw { std::mem::take(&mut others) } else { Vec::new() };
    let hasher = Hasher::new(algorithm);
    let mut tee = Tee { bytes: Cursor::new(head).chain(bytes), hasher, also, size: 0, id, run };
    let unpacked = match !diff_ids.is_empty() && coding != Coding::Raw {
        true => Some(compress::recompress(&mut tee, coding, Coding::Raw, None, 1, &mut |raw| {
            others.iter_mut().for_each(|hasher| hasher.update(raw));
            Ok(())
        })),
        false => None,
    };
    // The rest of what cannot be unpacked, and what lies behind a packed stream's end, belongs to the blob too.
    let mut rest = vec![0; BUFFER];
    while tee.read(&mut rest)? > 0 {}
    let (digest, size) = (tee.hasher.finish(), tee.size);
    others.extend(tee.also);
    let digests = |own: Digest| Raw::Is(others.into_iter().map(Hasher::finish).chain([own]).collect());
    let raw = match unpacked {
        None if diff_ids.is_empty() => Raw::Unknown,
        None => digests(digest),
        Some(Ok(unpacked)) => digests(unpacked.uncompressed.0),
        // Bytes that are what they should be and cannot be unpacked: a fault of the image, if it is a layer.
        Some(Err(error)) if says_of_blob(&error) => Raw::Broken(name(error, &digest)),
        Some(Err(error)) => return Err(error),
    };
    Ok((digest, Found { size, raw }))
}

struct Tee<'a, R> {
    bytes: R,
    hasher: Hasher,
    also: Vec<Hasher>,
    size: u64,
    id: u64,
    run: &'a Run,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run.cancel.check()?;
        let n = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.also.iter_mut().for_each(|hasher| hasher.update(&buffer[..n]));
        self.size += n as u64;
        self.run.screen.event(Event::BlobMoved { id: self.id, bytes: n as u64 });
        Ok(n)
    }
}
