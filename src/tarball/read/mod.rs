//! Reads images from archives, seekable or streamed.

pub(super) mod again;
pub(super) mod contents;
pub(super) mod diff_id;
pub(super) mod documents;
pub(super) mod files;
pub(super) mod images;
pub(super) mod layer;
pub(super) mod legacy_manifest;
pub(super) mod steps;
pub(super) mod store;
pub(super) mod stream;
pub(super) mod summary;
pub(super) mod table;
pub(super) mod unopened;
