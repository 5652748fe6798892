//! Engines (nerdctl, docker, ctr, podman), here and on other hosts: found by one question, given an archive on their
//! load command's standard input, and asked afterwards what they have.

mod delta;
mod ending;
mod fetch;
mod fetch_blob;
mod found;
mod held;
mod load;
mod probe;
mod promised;
mod proof;
mod saved;
mod scripts;
mod session;
mod settle;
mod sink;
mod wire;

pub use fetch::{FetchStore, Row};
pub use found::{Engine, Found, ImageStore, Loader};
pub use probe::find;
pub use saved::{names, saved};
pub use sink::EngineSink;
pub use wire::Wire;
