//! The properties of a store that the copy plans with.

use crate::image::Descriptor;

/// The properties of a store, as plain values.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The repository, where the store is one.
    pub origin: Option<Origin>,
    /// An index may be stored without some of the images it lists, as docker and containerd do. The copy then calls `find` before it
    /// plans to copy a child.
    pub is_sparse: bool,
    /// The copy reports each manifest that was made here ([`super::Root::synthesised`]). Archives in docker-save's old form are
    /// read without that report.
    pub reports_synthesised: bool,
    /// Each blob costs a network round trip. The copy then reads several ahead for a sink that takes one at a time.
    pub is_remote: bool,
    /// A thread of the store reads an open blob ahead, in bounded memory. The copy then needs no thread for it.
    pub reads_ahead: bool,
    /// The best number of blobs to read at the same time; advice.
    pub parallel_reads: usize,
    /// The error message for a store without any image: its name, and what was found in it.
    pub empty_message: String,
    /// Whether `open` downloads this nondistributable layer from its own `urls` when the store does not have it.
    pub downloads: fn(&Descriptor) -> bool,
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            origin: None,
            is_sparse: false,
            reports_synthesised: false,
            is_remote: false,
            reads_ahead: false,
            parallel_reads: 4,
            empty_message: "the source holds no image".to_owned(),
            downloads: |_| false,
        }
    }
}

/// A repository of a registry. A sink at the same registry mounts its blobs instead of copying them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `HOST[:PORT]`, as in references.
    pub host: String,
    /// The repository at the registry (`library/app`).
    pub repository: String,
}
