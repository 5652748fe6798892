//! `registry-dir:DIR`: the storage tree of a CNCF distribution registry's filesystem driver, as a source and a
//! destination. No registry has to run; one that runs may use the tree at the same time.
//!
//! Below `DIR/docker/registry/v2` a blob is `blobs/ALG/HH/HEX/data`. A repository is a folder with `_manifests`: its
//! links are files with a digest as their content, in `_layers` (blobs), `_manifests/revisions` (manifests) and
//! `_manifests/tags`. The content of a link counts, not its path: a registry stores a push by sha512 as sha256 data
//! behind a sha512 link.
//!
//! A tree does not know the host of its registry. Its images have the names `localhost/REPO:TAG`, so that a copy keeps
//! the whole path; an image is selected as `REPO:TAG`.
//!
//! **Writing.** The order is data, `_layers` links, revision links (children first), then the tag's `index` and
//! `current` links. A tag's folder is made complete and renamed into place, since a registry lists each folder in
//! `tags`. Unfinished files and folders are in `blobs/sha256` under `.imgmv-…`, which registries skip; for places in
//! another mount, they are in a folder near the place (`stages.rs`). Each new file and folder has the owner and the permissions of `repositories`: a registry that runs as another user could not write
//! otherwise. The registry's garbage collection has no lock, and deletes data without links. So a copy reads back what
//! it has named, and reports what was removed.
//!
//! **Serving.** `imgmv serve` hashes each blob while it sends it, and withholds the end of a damaged one.
//!
//! **Referrers.** A registry of this kind has no API for them. They are revisions of each repository that has their subject, and an index
//! under the tag `ALG-HEX` lists them, to which imgmv adds its own (distribution-spec, "Referrers Tag Schema").

pub(crate) mod address;
mod harbor;
mod hashed_reads;
mod image_name;
mod link;
mod notes;
mod owner;
mod read_back;
mod referrers;
mod repository;
mod repository_store;
mod served;
mod sink;
mod sink_referrers;
mod sink_tree;
mod stages;
mod store;
mod temp_directory;
mod tree;
mod untagged;
mod walk;

pub use repository_store::TreeRepositories;
pub use sink::RegistryDirSink;
pub use store::RegistryDirStore;
