//! The sources of repositories: local stores, a writable directory, another registry.

pub mod catalog;
mod digest_tags;
pub(super) mod local;
pub(super) mod reload;
pub(super) mod repositories;
pub mod repository_names;
mod store_repository;
pub(super) mod upstream;
pub(super) mod verified_reader;
pub(super) mod writable;
