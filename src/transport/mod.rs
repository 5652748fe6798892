//! One folder for each kind of location; transports never import one another.
//!
//! [`table`] has a row for each transport and parses addresses. [`address`] is the trait by which the command line opens,
//! compares and names them; each transport implements it in its own `address.rs`. [`options`] are the values that the
//! command line fills in. A transport imports no other one; only `table`, [`combined`] (addresses that two transports
//! share), `address`, `options` and `open` import them.

pub(crate) mod address;
pub mod archive;
pub(crate) mod combined;
pub mod containerd;
pub(crate) mod containers_storage;
pub(crate) mod docker_dir;
pub mod engine;
pub mod layout;
pub(crate) mod names;
pub(crate) mod open;
pub(crate) mod options;
pub mod registry;
pub mod registry_dir;
mod syntax;
pub(crate) mod table;
