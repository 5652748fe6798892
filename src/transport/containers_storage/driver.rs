//! The files of one storage driver.

use super::records::{ImageRecords, LayerRecords, MAX_BYTES, image_records, layer_records};
use crate::disk::rooted::{CachedFile, Rooted};
use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use crate::source::rebuilt::{Form, with_hint};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// The supported storage drivers.
pub(super) const FORMS: [Form; 2] = [Form::new("overlay", "overlay/", "/diff"), Form::new("vfs", "vfs/dir/", "")];

/// The images and layers of one storage driver.
pub(super) struct Driver {
    root: Rooted,
    form: &'static Form,
    images: CachedFile<ImageRecords>,
    layers: [CachedFile<LayerRecords>; 2],
}

impl Driver {
    /// The images of the driver `form` in the storage `root`.
    pub fn new(root: Rooted, form: &'static Form) -> Driver {
        Driver { root, form, images: CachedFile::default(), layers: Default::default() }
    }

    pub fn name(&self) -> &'static str {
        self.form.name
    }

    pub fn root(&self) -> &Rooted {
        &self.root
    }

    /// The path of `images.json`, in the storage.
    pub fn images_path(&self) -> String {
        format!("{}-images/images.json", self.form.name)
    }

    /// The path of `images.json`, which changes with the names of images.
    pub fn names_file(&self) -> PathBuf {
        self.root.path().join(self.images_path())
    }

    /// The time at which the names of images changed last; `None` if there never was an image.
    pub fn changed(&self) -> Option<SystemTime> {
        self.root.file(self.images_path()).ok()??.metadata().ok()?.modified().ok()
    }

    /// The records of the images.
    pub fn images(&self) -> Result<Arc<ImageRecords>> {
        self.images.read(&self.root, &self.images_path(), MAX_BYTES, image_records).map_err(with_owner_hint)
    }

    /// The records of the layers: those that stay, and those that a restart of the host may remove.
    pub fn layers(&self) -> Result<[Arc<LayerRecords>; 2]> {
        let read = |file: &CachedFile<LayerRecords>, name: &str| {
            let path = format!("{}-layers/{name}", self.form.name);
            file.read(&self.root, &path, MAX_BYTES, layer_records).map_err(with_owner_hint)
        };
        let [stable, volatile] = &self.layers;
        Ok([read(stable, "layers.json")?, read(volatile, "volatile-layers.json")?])
    }

    /// The path of the document `key` of the image `image`: a name of other characters than `a-z`, `0-9` and `.` is
    /// stored as base64 (containers/storage, images.go).
    pub fn document_path(&self, image: &Digest, key: &str) -> String {
        let is_plain = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.');
        let file = if is_plain { key.to_owned() } else { format!("={}", BASE64.encode(key)) };
        format!("{}-images/{}/{file}", self.form.name, image.hex())
    }

    /// The path of the tar-split of the layer `id`.
    pub fn tar_split_path(&self, id: &Digest) -> String {
        format!("{}-layers/{}.tar-split.gz", self.form.name, id.hex())
    }

    /// The path of the files of the layer `id`.
    pub fn files_path(&self, id: &Digest) -> String {
        self.form.files(&id.hex())
    }

    /// Whether the layer `id` has the data of composefs.
    pub fn has_composefs_data(&self, id: &Digest) -> Result<bool> {
        if self.form.name != "overlay" {
            return Ok(false);
        }
        match self.root.directory(format!("{}/composefs-data", self.form.directory(&id.hex()))) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.kind() == Kind::Denied => Err(with_owner_hint(error)),
            Err(_) => Ok(true),
        }
    }
}

/// Adds the solution to a permission error.
pub(super) fn with_owner_hint(error: Error) -> Error {
    with_hint(
        error,
        "the storage belongs to root or to one user: run imgmv as root, or inside podman unshare as that user",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::rooted::Resolution;

    #[test]
    fn documents_have_the_file_names_of_containers_storage() {
        let dir = tempfile::tempdir().unwrap();
        let driver = Driver::new(Rooted::open(dir.path(), Resolution::Kernel).unwrap(), &FORMS[0]);
        let id = Digest::of(b"");
        let file = |key: &str| driver.document_path(&id, key);
        assert_eq!(file("manifest"), format!("overlay-images/{}/manifest", id.hex()));
        assert!(file("sha256:ab").ends_with("/=c2hhMjU2OmFi"), "{}", file("sha256:ab"));
        assert!(file("manifest-sha256:ab").ends_with("/=bWFuaWZlc3Qtc2hhMjU2OmFi"));
    }
}
