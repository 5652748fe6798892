//! `oci:DIR`: an OCI layout directory (image-layout.md), read and written.
//!
//! Beside what the specification names, imgmv keeps nothing in such a directory but files that begin with `.imgmv-`
//! while it writes: drafts, partials of large blobs with their sums, and the lock of `index.json`.

pub(crate) mod address;
mod cache;
mod directory;
mod index;
mod partial;
mod push;
mod referrers;
mod sink;
mod store;
mod temp_file;
mod upload;

use crate::error::{Error, Result};
use std::{path::Path, time::Duration};

/// Removes what cut copies and pushes have left in the layout `dir` and nobody has written to for `life`; how many blobs' partials
/// there were. What a living process writes stays.
pub fn prune(dir: &Path, life: Duration) -> Result<usize> {
    let place = directory::Place::open(dir)?;
    let place = place.ok_or_else(|| Error::not_found(format!("there is no {}", dir.display())))?;
    temp_file::sweep(&place.folder);
    Ok(partial::sweep(&place, life) + upload::sweep(&place.folder, life))
}

pub use cache::{Evicted, Filling, LayoutCache};
pub use push::PushedLayout;
pub use sink::{Durable, LayoutSink, Verify};
pub use store::LayoutStore;
pub use upload::Upload;
