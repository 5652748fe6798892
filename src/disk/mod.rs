//! Files that several processes share: directories entered step by step, locks, checksums beside partial files.

pub(crate) mod checkpoints;
pub(crate) mod directory;
pub(crate) mod lock;
