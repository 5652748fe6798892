//! `oci:DIR`: an OCI layout directory (image-layout.md) as a source and a destination.
//!
//! While imgmv writes, the directory also has files whose names start with `.imgmv-`: temporary files, partial large
//! blobs with their checkpoints, and the lock of `index.json`.

pub(crate) mod address;
mod cache;
mod delete;
mod directory;
mod index;
mod pushed_layout;
mod referrers;
mod sink;
mod store;
mod upload;

use crate::blob_files::{partial, temp_file};
use crate::error::{Error, Result};
use std::{path::Path, time::Duration};

/// Removes the files of interrupted copies and pushes from the layout `dir`: partial blobs without a write for `lifetime`,
/// and temporary files. Files that a running process has locked stay. Returns the number of partial blobs removed.
pub fn prune(dir: &Path, lifetime: Duration) -> Result<usize> {
    let layout = directory::LayoutDirectory::open(dir)?;
    let layout = layout.ok_or_else(|| Error::not_found(format!("{}: no such directory", dir.display())))?;
    temp_file::sweep(&layout.directory);
    Ok(partial::remove_expired(&layout, lifetime) + upload::remove_expired(&layout.directory, lifetime))
}

pub use crate::blob_files::BlobCheck;
pub use cache::{Filling, LayoutCache};
#[cfg(test)]
pub(crate) use directory::LayoutDirectory;
pub use pushed_layout::PushedLayout;
pub use sink::{Durable, LayoutSink};
pub use store::LayoutStore;
pub use upload::Upload;
