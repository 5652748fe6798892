//! The sources of repositories: local stores, a writable directory, another registry.

pub mod catalog;
pub(super) mod local;
pub(super) mod reload;
pub mod repository_names;
pub(super) mod upstream;
pub(super) mod verified_reader;
pub(super) mod writable;
