//! imgmv: any source of container images to any sink, through one engine.
//!
//! The map: [`image`] holds the field's values; [`source`], [`sink`], [`transfer`], [`plan`] and [`copy`] are the
//! engine; [`share`] gives one source to several copies; [`recode`] packs layers anew; [`archive`] reads and writes the tar forms; [`remote`] runs commands here or
//! on another host; [`transport`] has one folder for each kind of place. `main` and `cli` are the only code that
//! prints.

pub mod cancel;
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

pub use crate::error::{Error, Kind, Result};
