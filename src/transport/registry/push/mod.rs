//! Pushing blobs: upload sessions, chunks, and how an upload resumes.

pub mod body_limit;
pub(super) mod body_pipe;
pub(super) mod book;
pub(super) mod booked_upload;
pub(super) mod monolithic;
pub(super) mod placement;
pub mod resume_cache;
pub(super) mod session;
pub(super) mod streamed;
pub(super) mod target;
