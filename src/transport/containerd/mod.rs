//! `containerd:`: images read from containerd's directory, while containerd runs or from the disk of another host.
//!
//! Names come from the database (a bolt file, read without its lock), blobs from the content store. imgmv writes
//! nothing there: it loads images through containerd's import.

pub(crate) mod address;
mod bolt;
mod live;
mod page;
mod records;
mod store;

pub use records::{Record, images_in};
pub use store::ContainerdStore;
