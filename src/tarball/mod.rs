//! The tar forms of images (docker-save, OCI layout in a tar), read and written; no addresses here.
//!
//! `tar` knows the format: headers, entries, paths, compression of the whole file. `read` finds the images in an
//! archive: [`ArchiveStore`] is a seekable archive, [`ArchiveStream`] is read once. `write` makes the one form that
//! every loader reads ([`ArchiveWriter`]); [`Compressed`] compresses it as a whole, in independent blocks on all cores.
//! `rewrite` copies an archive in its own form with other names ([`retag`]).
//!
//! docker-save's old form has no manifests: `read/legacy_manifest.rs` makes them, and a test freezes their bytes. A
//! stream of that form goes to a pipe in its own form, re-tagged, since its layers' digests are unknown while they are
//! streamed; into a file, a layout or a registry it is converted like any other.

mod manifest_json;
mod read;
mod rewrite;
mod tar;
mod write;

pub use read::store::ArchiveStore;
pub use read::stream::{ArchiveStream, Blob};
pub use read::summary::{StreamSummary, StreamedStore};
pub use read::unopened::UnopenedArchive;
pub use rewrite::retag::retag;
pub use rewrite::streamed::{Rewrite, rewrite};
pub use tar::compress::Compressed;
pub use tar::decompress::Packing;
pub use tar::output::Out;
pub use tar::read_at::{ReadAt, Section};
pub use write::archive::ArchiveWriter;
pub(crate) use write::archive::Resume;
