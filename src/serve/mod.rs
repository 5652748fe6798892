//! `imgmv serve`: a registry (OCI distribution-spec v1.1) in front of existing stores; nothing is copied first.
//!
//! This folder is the only asynchronous code. hyper speaks HTTP/1.1. Work that may block runs on a blocking thread,
//! one buffer or one lookup at a time.
//!
//! - [`listen`] accepts connections; [`server`] has the state that requests share; `http` parses requests, routes them
//!   and streams bodies; [`access`] decides which clients may read and write; `handlers` has one file for each group of
//!   endpoints; [`access_log`] records every request.
//! - [`backend`] has the two traits: a `Backend` finds a `Repository` by name. `local` serves a store,
//!   `repositories` a location with several repositories, `upstream` a registry, `writable` a directory that clients push to. `reload` reopens a store when its file changes.
//!   `repository_names` maps image names to repositories.
//! - [`mirror`] is a backend over other registries, with a cache.
//!
//! **Slow clients.** The connection requests a buffer, and a thread reads it. So a client that does not read occupies
//! one or two buffers and no thread. A client that moves less than 1 KiB in an idle time is disconnected
//! (`http/minimum_rate.rs`); a request's head has one idle time in total. Buffers shrink with the number of connections
//! (`http/connection.rs`), so the memory of 1,000 connections is bounded. Large manifests wait for memory
//! (`handlers/manifest_memory.rs`).
//!
//! **Pushes** go through `transport/layout`. An upload is a partial file with an ID, and has checkpoints like any
//! partial file. `transfer::IncomingBlob` hashes it, and makes the `Verified` that storing a blob requires. Manifests
//! are stored after their content, `index.json` is written under its lock, and tags come last. A new request for an
//! upload ends the previous request for it (`handlers/uploads.rs`): the client of that request has lost its connection.
//! A request that writes continues as a task when its connection breaks, so the received bytes are stored and counted.
//! A client *cancels* an upload (DELETE); the server *prunes* an upload without a request in its lifetime.

pub mod access;
pub mod access_log;
pub mod backend;
mod handlers;
mod http;
pub mod listen;
pub mod mirror;
pub mod server;

pub use access::users::Rights;
pub use backend::local::LocalBackend;
pub use backend::repositories::RepositoriesBackend;
pub use backend::upstream::UpstreamBackend;
pub use backend::writable::WritableBackend;
pub use http::tls::Certificate;
pub use listen::Listener;
pub use mirror::cache::{MirrorCache, Pools};
pub use mirror::evict::CacheBudget;
pub use mirror::peers::Peers;
pub use mirror::upstreams::{Endpoint, Upstream};
pub use mirror::{Caches, CredentialSharing, MirrorBackend, MirrorMode};
pub use server::{ClientLimits, ServerOptions};
