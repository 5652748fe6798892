//! Which clients may read and write.

pub(super) mod browser_guard;
pub(super) mod tokens;
pub mod users;
