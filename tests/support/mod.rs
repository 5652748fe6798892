//! What tests share. Use as `#[path = "support/mod.rs"] mod support;`.

pub mod containerd_stand_in;
pub mod containerd_storage;
pub mod docker_dir;
pub mod engines;
pub mod fault_proxy;
pub mod noise;
pub mod odd_layers;
pub mod program;
pub mod proxy;
pub mod registry;
mod routes;
pub mod shell;
pub mod signing;
pub mod some_registry;
pub mod sshd;
pub mod storage_dir;
pub mod tar_split;
pub mod web;
