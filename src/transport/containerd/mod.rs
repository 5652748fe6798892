//! `containerd:`: images read from containerd's directory, while containerd runs or from the disk of another host, and
//! read and written by its socket (`socket`).
//!
//! In the directory, names come from the database (a bolt file, read without its lock), blobs from the content store.
//! imgmv writes nothing there. `catalog` has what both ways list.

pub(crate) mod address;
mod bolt;
mod catalog;
mod live;
mod page;
mod records;
pub(crate) mod socket;
mod store;

pub use records::images_in;
pub use store::ContainerdStore;
