//! Files that several processes share: directories without links, directories whose links stay inside, file locks,
//! checkpoints of partial files.

pub(crate) mod checkpoints;
pub(crate) mod directory;
pub(crate) mod lock;
pub(crate) mod rooted;
