//! The tar format: headers, entries, paths, and the compression of a complete archive.

pub(super) mod compress;
pub(super) mod decompress;
pub(super) mod entries;
pub(super) mod header;
pub(super) mod layer;
pub(super) mod layer_entry;
pub(super) mod output;
pub(super) mod path;
pub(super) mod pipe;
pub(super) mod read_at;
