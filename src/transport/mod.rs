//! One folder for each kind of place; transports never import one another.

pub mod archive;
pub mod containerd;
pub mod engine;
pub mod layout;
pub mod registry;
