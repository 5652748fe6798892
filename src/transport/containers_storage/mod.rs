//! `containers-storage:`: images read from the storage of podman, CRI-O and buildah, without them or while they run.
//!
//! The storage has the manifests and configs of images, but no layers: a layer is a directory of files and a tar-split,
//! from which [`crate::tarsplit`] rebuilds its tar. A manifest that lists compressed layers names blobs that are stored
//! nowhere, so its image gets a new one. A manifest that lists the diff IDs themselves is kept.
//!
//! | file | what it has |
//! |---|---|
//! | `address.rs` | the row in the table of transports |
//! | `root.rs` | the directories: the given one, those of `storage.conf`, the default |
//! | `storage_conf.rs` | the lines of `storage.conf` that name them |
//! | `driver.rs` | the files of one storage driver: `overlay` or `vfs` |
//! | `records.rs` | `images.json` and `layers.json`, checked before anything enters a path |
//! | `listing.rs` | the images as `podman images` lists them |
//! | `documents.rs` | the manifests and the config of an image |
//! | `layers.rs` | the chain of an image's layers, and their files |
//! | `directory.rs` | all of them together, for [`crate::source::rebuilt`], which is the store |
//!
//! No lock is taken: the records are replaced by a rename.

pub(crate) mod address;
mod directory;
mod documents;
mod driver;
mod layers;
mod listing;
mod records;
mod root;
mod storage_conf;

pub use directory::ContainersStorageStore;
