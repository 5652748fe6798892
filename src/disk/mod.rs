//! Files that several processes share: directories entered step by step, locks, checksums beside partial files.

pub(super) mod checkpoints;
pub(super) mod directory;
pub(super) mod lock;
