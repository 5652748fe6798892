//! The promises of `Store`, `Sink` and `BlobWriter`, each checked over every store and every sink.
//!
//! A new transport adds one line to `every_store` (conformance/stores.rs) or `every_sink` (conformance/sinks.rs). A row
//! may except a promise, with the reason; the test prints it.

#[path = "support/memory.rs"]
mod memory;
#[path = "support/registry_tree.rs"]
mod registry_tree;
#[path = "support/mod.rs"]
mod support;

#[path = "conformance/contents.rs"]
mod contents;
#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/sample.rs"]
mod sample;
#[path = "conformance/sink_promises.rs"]
mod sink_promises;
#[path = "conformance/sinks.rs"]
mod sinks;
#[path = "conformance/store_promises.rs"]
mod store_promises;
#[path = "conformance/stores.rs"]
mod stores;
#[path = "conformance/writer_promises.rs"]
mod writer_promises;
