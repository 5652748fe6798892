//! Engines (nerdctl, docker, ctr, podman), here and on other hosts: found by one question, given an archive on their
//! load command's standard input, and asked afterwards what they have.

mod delta;
mod expected;
mod fetch;
mod fetch_blob;
mod finish;
mod inventory;
mod kind;
mod line_compression;
mod load;
mod probe;
mod rename;
mod saved;
mod scripts;
mod session;
mod sink;
mod verify;

pub use fetch::{FetchStore, Row};
pub use kind::{Engine, Found, ImageStore, Loader};
pub use line_compression::LineCompression;
pub use probe::find;
pub use saved::{names, saved};
pub use sink::EngineSink;
