//! Credentials and tokens: challenges, credential files and helpers, login and logout.

pub(super) mod authorize;
pub mod challenge;
pub(super) mod credentials;
pub(super) mod file;
pub(super) mod files;
pub(super) mod helper;
pub(super) mod login;
pub(super) mod secret;
pub(super) mod state;
pub(super) mod token;
