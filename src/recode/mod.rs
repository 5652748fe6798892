//! Changing the coding of a layer as it passes, deterministically.

use crate::error::{Error, Result};
use crate::image::{Coding, Digest};
use std::io::Read;

/// What a layer was, unpacked.
pub struct Recoded {
    pub raw: (Digest, u64),
}

pub fn recode(
    _from: &mut (dyn Read + Send),
    _was: Coding,
    _to: Coding,
    _level: Option<i32>,
    _threads: usize,
    _out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Recoded> {
    Err(Error::failed("not built yet"))
}
