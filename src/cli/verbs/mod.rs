//! One file per verb: its options, its help and its code.

pub(super) mod blob;
pub(super) mod cache;
pub(super) mod completions;
pub(super) mod copy;
pub(super) mod delete;
pub(super) mod diff;
pub(super) mod digest;
pub(super) mod inspect;
pub(super) mod list;
pub(super) mod load;
pub(super) mod login;
pub(super) mod logout;
pub(super) mod man;
pub(super) mod save;
pub(super) mod serve;
pub(super) mod sync;
pub(super) mod tag;
pub(super) mod verify;
