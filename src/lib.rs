//! imgmv: any source of container images to any sink, through one engine.
//!
//! The map: [`image`] holds the field's values; [`source`], [`sink`], [`transfer`], [`plan`] and [`copy`] are the
//! engine; [`share`] gives one source to several copies; [`recode`] packs layers anew; [`archive`] reads and writes the tar forms; [`remote`] runs commands here or
//! on another host; [`transport`] has one folder for each kind of place. `main` and `cli` are the only code that
//! prints.

mod ahead;
pub mod archive;
pub mod cancel;
pub mod convert;
pub mod copy;
pub mod error;
mod fill;
mod fixed;
mod folder;
mod hold;
pub mod image;
mod lanes;
pub mod limit;
pub mod pairs;
mod passing;
pub mod plan;
pub mod progress;
mod recent;
pub mod recode;
pub mod remote;
pub mod serve;
pub mod share;
pub mod sink;
pub mod source;
mod sums;
pub mod transfer;
pub mod transport;
mod turns;

pub use error::{Error, Kind, Result};
