//! The command line: one file a verb, and the only code that prints.

mod address;
pub mod args;
pub mod context;
mod copy_many;
mod open;
mod options;
pub mod output;
pub mod signals;
mod verbs;
mod verify_blobs;
mod vm_hosts;
