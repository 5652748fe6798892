//! Where images go: a layout, an archive, a registry or an engine.

use crate::error::{Error, Result};
use crate::image::{Coding, Descriptor, Digest, Image, Manifest, Name, Platform};
use crate::source::{Claim, Origin, Store};
use crate::transfer::BlobWriter;
use std::io::Write;

/// The part of an index that a sink stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// An index with everything below it: an archive, which `ctr images import --all-platforms` reads.
    Whole,
    /// An index with as much below it as the source has, or the user selects: a layout, a registry. If the sink refuses
    /// such an index, it gets a smaller one.
    AsFound,
    /// An index that keeps its bytes, with only this platform's images below it: an engine.
    Sparse(Platform),
    /// No index, only this platform's image.
    One(Platform),
}

/// The order in which a sink takes blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// At most this many at the same time, in any order.
    Parallel(usize),
    /// One after the other (a tar, a pipe).
    Sequential,
}

/// The properties of a sink; the copy plans conversions from them.
#[derive(Debug, Clone)]
pub struct SinkCapabilities {
    /// The part of an index that the sink stores.
    pub shape: Shape,
    /// The order in which the sink takes blobs.
    pub order: Order,
    /// The number of large blobs to send at the same time at the start of a copy. `Some`: after a kill the destination
    /// has only finished blobs, so the smaller blobs are sent first.
    pub large_uploads: Option<usize>,
    /// The compression for uncompressed layers, unless the user asks to keep them.
    pub compress: Option<Coding>,
    /// Layer compressions that the sink cannot read. Such layers are decompressed, and the user is told.
    pub unsupported: &'static [Coding],
    /// Whether a blob may start before its digest is known.
    pub unnamed_blobs: bool,
    /// Whether an image may stay without a name.
    pub unnamed_images: bool,
    /// Whether it can store manifests that belong to an image: referrers, and what cosign's tags name.
    pub referrers: bool,
    /// Whether its writers may ask for the latest bytes again ([`BlobWriter::recover`]). The copy keeps those of a
    /// stream and of a recompressed layer in memory then.
    pub needs_replay: bool,
}

/// A destination: one repository, one layout, one archive or one engine.
///
/// The copy calls, in this order: `published`, `tagged` and `has_referrer` for what may be stored already, `missing`
/// once, then `begin` … `commit` for each blob, `put_manifest` (children before parents), `publish` for each name, and
/// `finish` once. After an error it calls `aborted` and nothing else.
///
/// Every method may fail with `Network`, `Denied`, `Unwritable` or `RemoteHost` where the storage, the connection or the
/// remote host does, and with `Interrupted` when the copy is cancelled.
pub trait Sink: Send + Sync {
    /// The properties of the sink. `order` and `large_uploads` may change during a copy.
    fn capabilities(&self) -> SinkCapabilities;

    /// The digest that `name` points at, where the sink guarantees that everything below it is stored; else `None`.
    ///
    /// # Errors
    /// - `Usage`: the sink cannot store an image under such a name.
    fn published(&self, _name: &Name) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// The blobs of `upcoming` that the sink does not have.
    ///
    /// 1. It is called once per source, before the first `begin`, and writes nothing.
    /// 2. If the check costs one request per blob, a sink may return all blobs. `begin` then checks each.
    /// 3. For a dry run every blob is checked, since no `begin` follows.
    /// 4. The order of the blobs stays.
    ///
    /// # Errors
    /// - `Usage`: the sink cannot store these images.
    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        Ok(Missing::new(upcoming.into_blobs()))
    }

    /// Whether the sink has `referrer` and lists it for its subject. Asked for images that are published already.
    fn has_referrer(&self, _referrer: &Manifest) -> Result<bool> {
        Ok(false)
    }

    /// The manifest that `name`, one of cosign's tags, points at; `None` where the sink does not have one, or cannot tell.
    fn tagged(&self, _name: &Name) -> Result<Option<Manifest>> {
        Ok(None)
    }

    /// Opens a blob for writing, or answers that it is stored already. `from` is the repository that the source's blobs
    /// are in.
    ///
    /// 1. A stored blob that is damaged, or has another size than `claim`, counts as missing.
    /// 2. With `Order::Sequential` the writer before has to be committed or dropped.
    ///
    /// # Errors
    /// - `Usage`: the claim has no digest or no size, and the sink needs it (see `unnamed_blobs`).
    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>>;

    /// Stores a manifest whose blobs are stored, and those of its children that are copied. Storing it twice has no effect.
    fn put_manifest(&self, manifest: &Manifest) -> Result<()>;

    /// Makes `name` (`None`: only the digest) point at `root`, which is stored completely.
    ///
    /// 1. A sink may write names only at `finish`.
    ///
    /// # Errors
    /// - `Usage`: the sink cannot store an image under such a name, or without one.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()>;

    /// Ends the copy: trailers, renames, the verification by the remote host.
    fn finish(&self) -> Result<Finish>;

    /// The copy failed, and no other method is called. Partial blobs may be kept for the next run.
    fn aborted(&self, _why: &Error) {}

    /// A direct way into the archive that this sink writes to a pipe, for [`crate::tarball::rewrite`]; `None` for every
    /// other sink. Only `publish` and `finish` are called after it, and `publish` writes nothing.
    ///
    /// # Errors
    /// - `Usage`: the archive has other content already.
    fn raw_archive(&self) -> Result<Option<Box<dyn Write + Send + '_>>> {
        Ok(None)
    }
}

/// The blobs that a copy is about to send, as far as they are known.
pub enum Upcoming<'a> {
    /// From a store.
    Blobs {
        /// Complete images, as they will be at the sink as far as that is known.
        images: &'a [Image],
        /// The blobs that they need, each once.
        blobs: Vec<Descriptor>,
        /// The source, which has the images' configs.
        source: &'a dyn Store,
        /// Whether this copy only plans, so that no `begin` follows.
        dry_run: bool,
    },
    /// From a stream: the diff IDs of each image's layers, lowest first; empty where they are not known.
    DiffIds(&'a [Vec<Digest>]),
}

impl Upcoming<'_> {
    /// Returns the blobs; none for a stream.
    pub fn into_blobs(self) -> Vec<Descriptor> {
        match self {
            Upcoming::Blobs { blobs, .. } => blobs,
            Upcoming::DiffIds(_) => Vec::new(),
        }
    }
}

/// The blobs that a sink does not have.
#[derive(Debug, Default)]
pub struct Missing {
    /// The blobs to send.
    pub blobs: Vec<Descriptor>,
    /// A blob that an earlier run started, and that can be resumed only if it is sent first.
    pub resume_first: Option<Digest>,
}

impl Missing {
    /// Creates an answer without a blob to resume.
    pub fn new(blobs: Vec<Descriptor>) -> Missing {
        Missing { blobs, resume_first: None }
    }
}

/// The answer to [`Sink::begin`].
pub enum Begin<'a> {
    /// The blob is stored already.
    Held,
    /// The blob is not stored yet; this writes it.
    Write(Box<dyn BlobWriter + 'a>),
}

impl std::fmt::Debug for Begin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Begin::Held => "Held",
            Begin::Write(_) => "Write",
        })
    }
}

/// The end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The images are complete at the destination.
    Done,
    /// A delta could not be verified, and why. Everything has to be sent.
    SendAll(String),
}
