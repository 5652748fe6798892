//! What tests share. Use as `#[path = "support/mod.rs"] mod support;`.

pub mod registry;
mod routes;
pub mod web;
