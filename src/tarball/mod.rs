//! The tar forms of images (docker-save, OCI layout in a tar), read and written; no endpoints here.
//!
//! Reading: `header` and `walk` know tars, `contents` knows which images an archive has, [`ArchiveStore`] is a
//! seekable archive and [`ArchiveStream`] one that passes. Writing: [`ArchiveWriter`] makes the one form that every loader
//! reads, [`Compressed`] compresses it as a whole. Re-tagging: [`retag`].

mod manifest_json;
mod read;
mod rewrite;
mod tar;
mod write;

pub use read::store::ArchiveStore;
pub use read::stream::ArchiveStream;
pub use read::unopened::UnopenedArchive;
pub use rewrite::retag::retag;
pub use tar::compress::Compressed;
pub use tar::decompress::Packing;
pub use tar::output::Out;
pub use tar::read_at::{ReadAt, Section};
pub use write::archive::ArchiveWriter;
pub(crate) use write::archive::Resume;
