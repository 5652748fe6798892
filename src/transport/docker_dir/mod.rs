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
//! | `select.rs` | an image by its name, ID or start of an ID |
//! | `store.rs` | the store |
//!
//! No lock is taken. dockerd writes layer, config and name in this order and removes them in the opposite order, and
//! replaces `repositories.json` by a rename. So names are read first, then configs, then layers. Where something is
//! missing or wrong, the names are read again: they tell whether the image was removed meanwhile or is damaged.
//!
//! docker's containerd store is not read here: see `transport/combined/docker_dir.rs`.

pub(crate) mod data_root;
mod driver;
mod images;
mod layers;
mod names;
mod select;
mod store;

pub(crate) use select::IdPrefix;
pub use store::{DockerDirStore, MeasuredLayers};
