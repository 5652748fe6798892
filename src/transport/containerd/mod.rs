//! `containerd:` read straight from containerd's directory, while containerd runs or off a disk that no longer does.
//!
//! Names come from its database (a bolt file, read without its lock), blobs from its content store. Nothing is ever
//! written there: images go into containerd through its own import.

pub(crate) mod address;
mod bolt;
mod live;
mod page;
mod records;
mod store;

pub use records::{Record, images_in};
pub use store::ContainerdStore;
