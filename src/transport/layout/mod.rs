//! `oci:DIR`: an OCI layout directory (image-layout.md) as a source and a destination.
//!
//! While imgmv writes, the directory also has files whose names start with `.imgmv-`: temporary files, partial large
//! blobs with their checkpoints, and the lock of `index.json`.

pub(crate) mod address;
mod cache;
mod delete;
mod directory;
mod index;
mod partial;
mod pushed_layout;
mod referrers;
mod sink;
mod store;
mod temp_file;
mod upload;

use crate::error::{Error, Result};
use std::{path::Path, time::Duration};

/// Removes the files of interrupted copies and pushes from the layout `dir`: partial blobs without a write for `life`,
/// and temporary files. Files that a running process has locked stay. Returns the number of partial blobs removed.
pub fn prune(dir: &Path, life: Duration) -> Result<usize> {
    let layout = directory::LayoutDirectory::open(dir)?;
    let layout = layout.ok_or_else(|| Error::not_found(format!("{}: no such directory", dir.display())))?;
    temp_file::sweep(&layout.directory);
    Ok(partial::sweep(&layout, life) + upload::sweep(&layout.directory, life))
}

pub use cache::{Filling, LayoutCache};
pub use pushed_layout::PushedLayout;
pub use sink::{Durable, LayoutSink, Verify};
pub use store::LayoutStore;
pub use upload::Upload;
