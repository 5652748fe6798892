//! Pulling from a repository: manifests, blobs, ranges, tags.

pub(super) mod blob;
mod bounded_json;
pub(super) mod foreign_layer;
pub(super) mod manifest;
pub(super) mod ranges;
pub(super) mod skipped;
mod tag_page;
pub(super) mod tags;
