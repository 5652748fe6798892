//! Files that several processes share: directories without links, file locks, checkpoints of partial files.

pub(crate) mod checkpoints;
pub(crate) mod directory;
pub(crate) mod lock;
