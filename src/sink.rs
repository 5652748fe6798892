//! Where images go. One kind, whether layout, archive, registry or an engine's standard input.

use crate::error::{Error, Result};
use crate::image::{Coding, Descriptor, Digest, Image, Manifest, Name, Platform};
use crate::source::{Claim, Origin, Store};
use crate::transfer::BlobWriter;
use std::io::Write;

/// What shape of image a sink can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// An index with everything below it: a registry, and an archive, which `ctr images import --all-platforms` reads.
    Whole,
    /// An index with as much below it as the source has (a layout).
    AsFound,
    /// An index whose bytes are kept while only this platform's images come along (engines).
    Sparse(Platform),
    /// One image only, this platform's.
    One(Platform),
}

/// In which order a sink takes blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Up to so many at once, in any order.
    Lanes(usize),
    /// One after the other (a tar, a pipe).
    Single,
}

/// What a sink takes; the engine plans conversions from it.
#[derive(Debug, Clone)]
pub struct SinkCapabilities {
    pub shape: Shape,
    pub order: Order,
    /// So many large blobs are best sent at once, to begin with. A sink that says so keeps only what is finished when a run
    /// is killed: the smaller ones are sent first.
    pub large: Option<usize>,
    /// Raw layers are to be compressed on the way there, unless the user says to keep them.
    pub compress: Option<Coding>,
    /// Layer codings that the sink cannot read; such layers are unpacked on the way, which is said.
    pub refuses: &'static [Coding],
    /// Whether a blob may begin whose digest is not known beforehand.
    pub unnamed_blobs: bool,
    /// Whether an image may be left without a name.
    pub nameless: bool,
}

/// A destination bound to one place.
///
/// The engine calls, in this order: `published` and `missing` (or, for what only passes, `expect_layers`), then `begin` …
/// `commit` for each blob, `put_manifest` (children before parents), `publish` for each name, and `finish` once.
pub trait Sink: Send + Sync {
    fn takes(&self) -> SinkCapabilities;
    /// The digest that `name` points at already, if the sink vouches that all beneath it is there.
    fn published(&self, _name: &Name) -> Result<Option<Digest>> {
        Ok(None)
    }
    /// What the sink lacks of whole images, which are as they will be there as far as that is known (`blobs` are those
    /// that it is going to be sent, each once). One question per copy. A sink that would have to ask for each blob
    /// returns them all and answers in `begin`. `source` has the images' configs, where the sink goes by what is in
    /// them.
    fn missing(&self, _images: &[Image], blobs: Vec<Descriptor>, _source: &dyn Store) -> Result<Vec<Descriptor>> {
        Ok(blobs)
    }
    /// Blobs are going to pass of which only so much is known ([`crate::tarball::ArchiveStream::expected_diff_ids`]; perhaps nothing):
    /// `begin` may say of them that they are held. Asked instead of `missing`.
    fn expect_layers(&self, _layers: &[Vec<Digest>]) -> Result<()> {
        Ok(())
    }
    /// A blob that an earlier run began and that can be gone on with only if it is the first to be begun; asked after
    /// `missing`.
    fn begun(&self) -> Option<Digest> {
        None
    }
    /// Whether one blob is there, for a plan that moves nothing; only asked of what `missing` returned.
    fn holds(&self, _digest: &Digest) -> Result<bool> {
        Ok(false)
    }
    /// Opens a blob for writing, or says that it is there. `from` is where the source's blobs lie.
    fn begin<'a>(&'a self, claim: &Claim, from: Option<&Origin>) -> Result<Begin<'a>>;
    fn put_manifest(&self, manifest: &Manifest) -> Result<()>;
    /// Makes `name` (none: only the digest) point at `root`, whose tree is there.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()>;
    /// Ends the copy: trailers, renames, the far side's verdict.
    fn finish(&self) -> Result<Finish>;
    /// The copy has failed, and nothing more is called: what was written so far may be of use to a later one, or not.
    fn aborted(&self, _why: &Error) {}
    /// The raw way in for an archive that passes in its own form ([`crate::tarball::rewrite`]); only for sinks
    /// that are an archive on a pipe. `finish` is called after it.
    fn relay(&self) -> Option<Result<Box<dyn Write + Send + '_>>> {
        None
    }
}

/// What becomes of a blob.
pub enum Begin<'a> {
    /// It is there already.
    Held,
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

/// How a copy ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    Done,
    /// A delta did not verify: everything has to be sent, and why.
    SendAll(String),
}
