//! Writing a repository: uploads, and how they resume.

pub mod body_limit;
pub(super) mod body_pipe;
pub(super) mod cache_file;
pub(super) mod hash_checkpoints;
pub mod resume_cache;
pub(super) mod session;
pub(super) mod streamed;
pub(super) mod upload;
