//! SRC and DST on the command line. [`crate::transport::table`] parses one address.

pub(super) mod braces;
pub(super) mod destinations;
pub mod help;
pub(super) mod hint;

pub(super) use crate::transport::address::Address;
pub(super) use crate::transport::table::parse;

use crate::Result;
use crate::copy::Naming;
use crate::transport::combined::PathAddress;
use std::ffi::OsStr;

/// An archive, as `save` and `load` name it: a file, or `-`.
pub fn archive(word: &OsStr) -> Result<Box<dyn Address>> {
    match word == "-" {
        true => parse(word),
        false => Ok(Box::new(PathAddress(word.into()))),
    }
}

/// The names of images that are copied to `address`: its own, else `given` (`--as`), else the source's.
pub fn naming(address: &dyn Address, given: &[String]) -> Result<Naming> {
    let names = address.names(given)?;
    Ok(if names.is_empty() { Naming::Keep } else { Naming::Names(names) })
}
