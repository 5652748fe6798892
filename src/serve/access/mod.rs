//! Access control: users, tokens and the guard against web pages.

pub(super) mod browser_guard;
pub(super) mod tokens;
pub mod users;
