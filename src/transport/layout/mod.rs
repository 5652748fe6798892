//! `oci:DIR`: an OCI layout directory (image-layout.md), read and written.
//!
//! Beside what the specification names, imgmv keeps nothing in such a directory but files that begin with `.imgmv-`
//! while it writes: drafts, partials of large blobs with their sums, and the lock of `index.json`.

mod draft;
mod index;
mod partial;
mod place;
mod referrers;
mod sink;
mod store;
mod sums;

pub use sink::{Durable, LayoutSink, Verify};
pub use store::LayoutStore;
