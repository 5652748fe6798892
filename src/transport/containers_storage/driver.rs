//! The files of one storage driver.

use super::records::{Cached, ImageRecord, LayerRecords, image_records, layer_records};
use crate::disk::rooted::Rooted;
use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::path::PathBuf;
use std::sync::Arc;

/// A storage driver whose layers are directories of files.
pub(super) struct Form {
    /// The name of the driver, and the start of its directories' names.
    pub name: &'static str,
    /// The path of a layer's directory: before its ID.
    before: &'static str,
    /// The path of a layer's files in its directory.
    after: &'static str,
}

/// The supported storage drivers. The others store layers as volumes or snapshots of their filesystems.
pub(super) const FORMS: [Form; 2] =
    [Form { name: "overlay", before: "overlay/", after: "/diff" }, Form { name: "vfs", before: "vfs/dir/", after: "" }];

/// The images and layers of one storage driver.
pub(super) struct Driver {
    root: Rooted,
    form: &'static Form,
    images: Cached<Vec<ImageRecord>>,
    layers: [Cached<LayerRecords>; 2],
}

impl Driver {
    /// The images of the driver `form` in the storage `root`.
    pub fn new(root: Rooted, form: &'static Form) -> Driver {
        Driver { root, form, images: Cached::default(), layers: Default::default() }
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

    /// The records of the images.
    pub fn images(&self) -> Result<Arc<Vec<ImageRecord>>> {
        self.images.read(&self.root, &self.images_path(), image_records)
    }

    /// The records of the layers: those that stay, and those that a restart of the host may remove.
    pub fn layers(&self) -> Result<[Arc<LayerRecords>; 2]> {
        let path = |name: &str| format!("{}-layers/{name}", self.form.name);
        let [stable, volatile] = &self.layers;
        Ok([
            stable.read(&self.root, &path("layers.json"), layer_records)?,
            volatile.read(&self.root, &path("volatile-layers.json"), layer_records)?,
        ])
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
        format!("{}{}{}", self.form.before, id.hex(), self.form.after)
    }

    /// The path of composefs's data of the layer `id`; `None` for a driver without it.
    pub fn composefs_path(&self, id: &Digest) -> Option<String> {
        (self.form.name == "overlay").then(|| format!("{}{}/composefs-data", self.form.before, id.hex()))
    }
}

/// Adds the solution to a permission error.
pub(super) fn with_owner_hint(error: Error) -> Error {
    const HINT: &str =
        "the storage belongs to root or to one user: run imgmv as root, or inside podman unshare as that user";
    match error.kind() {
        Kind::Denied if !error.to_string().ends_with(HINT) => Error::denied(format!("{error}; {HINT}")),
        _ => error,
    }
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
