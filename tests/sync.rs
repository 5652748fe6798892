//! `imgmv sync`: many images from a list, a pattern or a file, to every kind of destination.

#[path = "support/mod.rs"]
mod support;

#[path = "sync/copies.rs"]
mod copies;
#[path = "sync/credentials.rs"]
mod credentials;
#[path = "sync/deletes.rs"]
mod deletes;
#[path = "sync/failures.rs"]
mod failures;
#[path = "sync/killed.rs"]
mod killed;
#[path = "sync/locked.rs"]
mod locked;
#[path = "sync/memory.rs"]
mod memory;
#[path = "sync/real.rs"]
mod real;
#[path = "sync/scene.rs"]
mod scene;
