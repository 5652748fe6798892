//! Pushing blobs: upload sessions, chunks, and how an upload resumes.

pub mod body_limit;
pub(super) mod body_pipe;
pub(super) mod monolithic;
pub mod resume_cache;
pub(super) mod session;
pub(super) mod streamed;
pub(super) mod target;
