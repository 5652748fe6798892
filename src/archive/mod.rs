//! The tar forms of images (docker-save, OCI layout in a tar), read and written; no endpoints here.
//!
//! Reading: `header` and `walk` know tars, `contents` knows which images an archive has, [`ArchiveStore`] is a
//! seekable archive and [`ArchiveStream`] one that passes. Writing: [`Pack`] makes the one form that every loader
//! reads, [`Compressed`] compresses it as a whole. Re-tagging: [`retag`].

mod bytes;
mod compressed;
mod contents;
mod entry;
mod files;
mod header;
mod left;
mod lists;
mod name;
mod out;
mod pack;
mod packing;
mod passed;
mod passing;
mod pipe;
mod relay;
mod retag;
mod saved;
mod store;
mod stream;
mod synthesis;
mod table;
mod tape;
mod unpacked;
mod walk;

pub use bytes::{ReadAt, Section};
pub use compressed::Compressed;
pub use out::Out;
pub use pack::Pack;
pub(crate) use pack::Resume;
pub use packing::Packing;
pub use retag::retag;
pub use store::ArchiveStore;
pub use stream::ArchiveStream;
pub use tape::Tape;
