//! Which recoded layer belongs to which raw one, as far as it was made or checked here.

use crate::image::{Coding, Digest};

pub struct Pairs;

impl Pairs {
    pub fn find(&self, _raw: &Digest, _to: Coding, _level: Option<i32>) -> Option<(Digest, u64)> {
        None
    }
    pub fn remember(&self, _raw: &Digest, _to: Coding, _level: Option<i32>, _stored: &Digest, _size: u64) {}
}
