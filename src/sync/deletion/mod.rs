//! `--delete` of a sync: which tags of a destination are deleted, because no source has them any more.
//!
//! The steps, of which each needs the result of the one before:
//! 1. [`Scope`]: the names that all entries want in each repository, and how each source was listed.
//! 2. [`list`] and [`RepositoryPlan`]: the tags at the destination that are deleted, and those that are spared, with the reason.
//! 3. [`DeletionPlan::approve`]: the checks of the whole run. Nothing is deleted if a source was not listed, if an
//!    image was not copied, or if a repository loses more tags than `--delete-max` allows.
//! 4. [`ApprovedRepository::carry_out`]: each tag is read again just before its deletion, and spared if it moved.
//!
//! Only names are deleted, never manifests. A tag that belongs to a manifest (`sha256-HEX`, `sha256-HEX.sig`) is deleted only
//! when the destination does not have that manifest: an untagged manifest keeps its signatures.

mod carry_out;
mod destination;
mod limit;
mod owner;
mod plan;
mod repository;
mod scope;
mod source_tags;

#[cfg(test)]
mod tests;

pub use destination::list;
pub use limit::DeletionLimit;
pub use plan::{ApprovedPlan, DeletionPlan};
pub use repository::{PlannedDeletion, RepositoryPlan};
pub use scope::{Scope, WantedNames};
pub use source_tags::SourceTags;
