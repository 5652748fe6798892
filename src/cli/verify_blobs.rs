//! Reads and hashes blobs in parallel, without storing them. A layer is hashed compressed and uncompressed in one read.

use super::context::CliRun;
use crate::compress;
use crate::image::Image;
use crate::image::{Algorithm, Coding, Config, Descriptor, Digest, Hasher};
use crate::progress::{Event, Outcome, Watch};
use crate::source::Store;
use crate::source::documents;
use crate::source::with_file;
use crate::tarball::{ArchiveStream, StreamSummary};
use crate::{Error, Kind, Result, parallel};
use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor, Read};

/// Number of first bytes that identify the compression.
const MAGIC_BYTES: u64 = 8;
const BUFFER_BYTES: usize = 256 << 10;
/// Maximum number of blobs in flight.
const MAX_PARALLEL_BLOBS: usize = 4;

/// A blob with the right digest.
#[derive(Debug, Clone)]
pub struct HashedBlob {
    /// In bytes.
    pub size: u64,
    pub uncompressed: Uncompressed,
}

/// The content of a layer after decompression.
#[derive(Debug, Clone)]
pub enum Uncompressed {
    /// The blob was not decompressed.
    Unknown,
    /// Its digests, one for each requested algorithm.
    Digests(Vec<Digest>),
    /// The blob has the right digest, but cannot be decompressed.
    Broken(Error),
}

/// The result for each blob, by its expected digest. An error tells why the bytes do not match.
pub type HashedBlobs = HashMap<Digest, Result<HashedBlob>>;

/// Hashes every blob of `images`. Fails only for reasons outside the blobs (network, interruption).
pub fn hash_store(store: &dyn Store, images: &[Image], run: &CliRun) -> Result<HashedBlobs> {
    let mut seen = HashSet::new();
    let blobs: Vec<&Descriptor> =
        images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)).collect();
    let bytes = blobs.iter().map(|blob| blob.size).sum();
    run.screen.event(Event::Plan { blobs: blobs.len(), bytes, existing_blobs: 0, existing_bytes: 0 });
    let diff_ids = diff_id_algorithms(store, images);
    let numbered: Vec<(u64, &Descriptor)> = (0..).zip(blobs).collect();
    let threads = store.profile().parallel_reads.min(MAX_PARALLEL_BLOBS);
    let hashed = parallel::try_map(&numbered, threads, |(id, blob)| {
        let algorithms = diff_ids.get(&blob.digest).map_or(&[][..], Vec::as_slice);
        match hash_blob(store, blob, algorithms, *id, run) {
            Err(error) if !is_about_blob(&error) => Err(error),
            result => Ok((blob.digest, result)),
        }
    })?;
    Ok(hashed.into_iter().collect())
}

/// The digest algorithms of each layer's diff IDs, from the configs of `images`. Unreadable configs are reported later.
fn diff_id_algorithms(store: &dyn Store, images: &[Image]) -> HashMap<Digest, Vec<Algorithm>> {
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

/// Whether `error` is about the blob itself and not about the connection.
fn is_about_blob(error: &Error) -> bool {
    matches!(error.kind(), Kind::Invalid | Kind::NotFound)
}

fn hash_blob(
    store: &dyn Store,
    blob: &Descriptor,
    diff_ids: &[Algorithm],
    id: u64,
    run: &CliRun,
) -> Result<HashedBlob> {
    let label = blob.digest.short();
    run.screen.event(Event::BlobStart { id, label: &label, size: Some(blob.size) });
    let result = store.open(blob, 0).and_then(|mut bytes| {
        // One byte above the expected size proves a mismatch.
        let mut bytes = (&mut bytes).take(blob.size.saturating_add(1));
        let (digest, found) = hash(&mut bytes, blob.digest.algorithm(), diff_ids, id, run)?;
        match digest == blob.digest {
            true => Ok(found),
            false => {
                let error = Error::digest_mismatch(format!("blob {} does not match: got {digest}", blob.digest));
                Err(store.located(blob, error))
            }
        }
    });
    let outcome = if result.is_ok() { Outcome::Transferred } else { Outcome::Failed };
    run.screen.event(Event::BlobEnd { id, outcome });
    result.map_err(|error| with_file(store, &blob.digest, with_digest(error, &blob.digest)))
}

/// Adds the blob's digest to `error`, if its message does not have it.
fn with_digest(error: Error, digest: &Digest) -> Error {
    match error.to_string().contains(&digest.hex()) {
        true => error,
        false => error.at(format!("blob {digest}")),
    }
}

/// Hashes every blob of `stream`. Returns the stream's summary too.
pub fn hash_stream(mut stream: ArchiveStream, run: &CliRun) -> Result<(StreamSummary, HashedBlobs)> {
    let mut hashed = HashedBlobs::new();
    let mut id = 0;
    while let Some(mut blob) = stream.next_blob()? {
        let claimed = blob.claim.digest;
        let label = claimed.map_or_else(|| "layer".to_owned(), |digest| digest.short());
        run.screen.event(Event::BlobStart { id, label: &label, size: blob.claim.size });
        let algorithm = claimed.map_or_else(Algorithm::default, |digest| digest.algorithm());
        // Configs follow their layers in a stream. Diff IDs are usually sha256, also if the blob's digest is not.
        let diff_ids = [Algorithm::default(), algorithm];
        let (digest, found) = hash(&mut *blob.bytes, algorithm, &diff_ids, id, run)?;
        run.screen.event(Event::BlobEnd { id, outcome: Outcome::Transferred });
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

/// Reads `bytes` to the end and returns their digest. With `diff_ids`, also hashes the uncompressed bytes by each of
/// these algorithms.
fn hash(
    bytes: &mut (dyn Read + Send),
    algorithm: Algorithm,
    diff_ids: &[Algorithm],
    id: u64,
    run: &CliRun,
) -> Result<(Digest, HashedBlob)> {
    let mut head = Vec::new();
    (&mut *bytes).take(MAGIC_BYTES).read_to_end(&mut head)?;
    let coding = Coding::sniff(&head);
    // One digest of the uncompressed bytes needs no extra hasher: the blob's digest, or that of the decompression.
    let own = if coding == Coding::Raw { algorithm } else { Algorithm::default() };
    let mut others: Vec<Hasher> =
        diff_ids.iter().filter(|other| **other != own).map(|other| Hasher::new(*other)).collect();
    let also = if coding == Coding::Raw { std::mem::take(&mut others) } else { Vec::new() };
    let hasher = Hasher::new(algorithm);
    let mut tee = HashingReader { bytes: Cursor::new(head).chain(bytes), hasher, also, size: 0, id, run };
    let decompressed = match !diff_ids.is_empty() && coding != Coding::Raw {
        true => Some(compress::recompress(&mut tee, coding, Coding::Raw, None, 1, &mut |raw| {
            others.iter_mut().for_each(|hasher| hasher.update(raw));
            Ok(())
        })),
        false => None,
    };
    // Bytes after a decompression error, and after the end of the compressed stream, are part of the blob.
    let mut rest = vec![0; BUFFER_BYTES];
    while tee.read(&mut rest)? > 0 {}
    let (digest, size) = (tee.hasher.finish(), tee.size);
    others.extend(tee.also);
    let digests = |own: Digest| Uncompressed::Digests(others.into_iter().map(Hasher::finish).chain([own]).collect());
    let uncompressed = match decompressed {
        None if diff_ids.is_empty() => Uncompressed::Unknown,
        None => digests(digest),
        Some(Ok(decompressed)) => digests(decompressed.uncompressed.0),
        // If the digest is right, the image itself is broken (if this blob is a layer).
        Some(Err(error)) if is_about_blob(&error) => Uncompressed::Broken(with_digest(error, &digest)),
        Some(Err(error)) => return Err(error),
    };
    Ok((digest, HashedBlob { size, uncompressed }))
}

/// Hashes and reports the bytes that are read.
struct HashingReader<'a, R> {
    bytes: R,
    hasher: Hasher,
    also: Vec<Hasher>,
    size: u64,
    id: u64,
    run: &'a CliRun,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run.cancel.check()?;
        let n = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.also.iter_mut().for_each(|hasher| hasher.update(&buffer[..n]));
        self.size += n as u64;
        self.run.screen.event(Event::BlobProgress { id: self.id, bytes: n as u64 });
        Ok(n)
    }
}
