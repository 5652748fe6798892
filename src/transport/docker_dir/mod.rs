//! `docker-dir:`: images read from docker's own directory (its data root), while dockerd runs or from the disk of another
//! host.
//!
//! docker's graph drivers store neither manifests nor layers. An image is its config (`image/DRIVER/imagedb`), the names
//! are in `image/DRIVER/repositories.json`, and a layer is a directory of files and a tar-split (`image/DRIVER/layerdb`),
//! from which [`crate::tarsplit`] rebuilds its tar. So configs and image IDs stay, and manifests are new
//! ([`crate::image::synthesised`]); the same image always gets the same one.
//!
//! | file | what it has |
//! |---|---|
//! | `data_root.rs` | the data roots: the given directory, those of remapped users in it, a rootless docker's |
//! | `driver.rs` | the files of one graph driver in a data root |
//! | `names.rs` | `repositories.json` |
//! | `images.rs` | configs, and the images without a name |
//! | `layers.rs` | the records of layers, checked before they enter a path |
//! | `directory.rs` | all of them together, for [`crate::source::rebuilt`], which is the store |
//!
//! No lock is taken: dockerd replaces `repositories.json` by a rename, and moves layers in and out as a whole.
//!
//! docker's containerd store is not read here: see `transport/combined/docker_dir.rs`.

pub(crate) mod data_root;
mod directory;
mod driver;
mod images;
mod layers;
mod names;

pub use directory::{DockerDir, DockerDirStore};
