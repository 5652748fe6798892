//! The files of one graph driver in a data root.

use super::data_root::with_root_hint;
use super::names::Names;
use crate::disk::rooted::{CachedFile, Resolution, Rooted};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::source::rebuilt::Form;
use std::path::Path;

/// The supported graph drivers.
pub(crate) const FORMS: [Form; 3] = [
    Form::new("overlay2", "overlay2/", "/diff"),
    Form::new("vfs", "vfs/dir/", ""),
    Form::new("fuse-overlayfs", "fuse-overlayfs/", "/diff"),
];

/// The images of one graph driver.
#[derive(Debug)]
pub(crate) struct Driver {
    root: Rooted,
    form: &'static Form,
    pub(super) names: CachedFile<Names>,
}

impl Driver {
    /// The images of the driver `form` in the data root `root`.
    pub fn new(root: &Path, resolution: Resolution, form: &'static Form) -> Result<Driver> {
        let root = Rooted::open(root, resolution).map_err(|e| with_root_hint(Error::reading(root.display(), e)))?;
        Ok(Driver { root, form, names: CachedFile::default() })
    }

    pub fn root(&self) -> &Rooted {
        &self.root
    }

    pub fn name(&self) -> &'static str {
        self.form.name
    }

    /// The path of `name` below `image/DRIVER/`, in the data root.
    pub fn path(&self, name: &str) -> String {
        format!("image/{}/{name}", self.form.name)
    }

    /// Reads the file `name` below `image/DRIVER/`; `None` if it does not exist. At most `limit` bytes are read.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.root.read(self.path(name), limit).map_err(with_root_hint)
    }

    /// The files of the layer with the cache ID `cache_id`, which was checked; `None` if the directory does not exist.
    pub fn files(&self, cache_id: &str) -> Result<Option<Rooted>> {
        self.root.directory(self.files_path(cache_id)).map_err(with_root_hint)
    }

    /// The path of a layer's files in the data root.
    pub fn files_path(&self, cache_id: &str) -> String {
        self.form.files(cache_id)
    }

    /// The path of `name` below `image/DRIVER/`, for messages.
    pub fn display(&self, name: &str) -> String {
        self.root.display(self.path(name))
    }
}

/// The path of the config with the ID `id`, below `image/DRIVER/`.
pub(super) fn config_path(id: &Digest) -> String {
    format!("imagedb/content/{}/{}", id.algorithm().name(), id.hex())
}
