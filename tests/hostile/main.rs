//! The hostile corpus, made here: images that lie, archives, layouts and registries that carry them, and what each may
//! leave behind where it was copied to. Each ends in a clear error, and the target stays sound: nothing written
//! outside it, no blob under a name that is not its digest, no name for something that is not all there.
// Tables of cases: what each one does to an image or a registry is a function in the table.
#![allow(clippy::type_complexity, clippy::ptr_arg)]

mod archives;
mod cli;
mod exhaust;
mod images;
mod registries;
#[path = "../support/mod.rs"]
mod support;
mod target;
mod tars;
mod ways;
mod world;
