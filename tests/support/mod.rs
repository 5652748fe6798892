//! What tests share. Use as `#[path = "support/mod.rs"] mod support;`.

pub mod fault_proxy;
pub mod program;
pub mod registry;
pub mod some_registry;
mod routes;
pub mod web;
