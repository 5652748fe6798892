//! Writes the universal form, the archive that every engine loads.

pub(super) mod archive;
pub(super) mod blob;
pub(super) mod index;
pub(super) mod resume;
