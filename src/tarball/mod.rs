//! The tar forms of images (docker-save, OCI layout in a tar), read and written. This module knows no addresses.
//!
//! `tar` knows the format: headers, entries, paths, compression of the whole file. `read` finds the images in an
//! archive: [`ArchiveStore`] is a seekable archive, [`ArchiveStream`] is read once. `write` makes the universal form,
//! which every loader reads ([`ArchiveWriter`]); [`Compressed`] compresses the complete archive, in independent blocks
//! on all cores. `rewrite` copies an archive in its own form with other names ([`retag`]).
//!
//! docker-save's legacy form has no manifests: `read/legacy_manifest.rs` creates them, and a test freezes their bytes.
//! A stream in the legacy form is copied to a pipe in its own form with other names, since the digests of its layers
//! are unknown while they are streamed. For a file, a layout or a registry it is converted.

mod attached;
mod manifest_json;
mod read;
mod rewrite;
mod tar;
mod write;

pub use read::again::ArchiveFile;
pub use read::store::ArchiveStore;
pub use read::stream::{ArchiveStream, StreamedBlob};
pub use read::summary::{StreamSummary, StreamedStore};
pub use read::unopened::UnopenedArchive;
pub use rewrite::retag::retag;
pub use rewrite::streamed::{Rewrite, rewrite};
pub use tar::compress::Compressed;
pub use tar::decompress::ArchiveCompression;
pub(crate) use tar::layer::{LayerTar, LayerVisitor};
pub(crate) use tar::layer_entry::{LayerEntry, LayerEntryKind};
pub use tar::output::TarOutput;
pub use tar::read_at::Section;
pub use write::archive::ArchiveWriter;
pub(crate) use write::resume::Resume;
