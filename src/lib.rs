//! imgmv copies container images from any source to any sink through one engine.
//!
//! [`image`] holds the values of the OCI specifications; [`source`], [`sink`], [`transfer`] and [`copy`] are the
//! engine; [`fanout`] reads one source for several copies; [`compress`] recompresses layers; [`tarball`] reads and
//! writes the tar forms; [`remote`] runs commands here or on another host; [`transport`] has one folder for each kind
//! of place; [`serve`] is a registry in front of stores. `cli` is the only code that prints.

#![forbid(unsafe_code)]

pub mod cancel;
mod cli;
pub mod compress;
pub mod copy;
mod disk;
pub mod error;
pub mod fanout;
pub mod image;
pub mod progress;
pub mod rate_limit;
pub mod remote;
pub mod serve;
pub mod sink;
pub mod source;
pub mod tarball;
pub mod transfer;
pub mod transport;

pub use crate::cli::main;
pub use crate::error::{Error, Kind, Result};
