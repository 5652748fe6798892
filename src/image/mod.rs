//! Values of the OCI image-spec and distribution-spec: digests, references, descriptors, manifests, platforms. No I/O.

mod annotations;
mod attached;
mod config;
mod descriptor;
mod digest;
pub mod implicit_index;
mod json;
mod layout_index;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod synthesised;
mod tree;

pub(crate) use annotations::{SOCI_INDEX, ZSTD_PREFERRED, describes_bytes};
pub(crate) use attached::ORIGINAL;
pub use attached::{
    Attached, MAX_COPIED_REFERRERS, ReferrerType, digest_tags, is_digest_tag, is_referrers_tag, referrers_tag,
    tagged_subject, with_referrers, without_referrer,
};
pub use config::Config;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub(crate) use json::{bounds as json_bounds, tree as json_tree};
pub use layout_index::{LayoutIndex, MAX_NAMES};
pub(crate) use layout_index::{REF_NAME, remove_name};
pub use manifest::{Body, MAX_MANIFEST_BYTES, Manifest};
pub use media_type::{Coding, layer_coding, with_coding};
pub use platform::Platform;
pub use reference::{DEFAULT_REGISTRY, Name, Reference};
pub(crate) use reference::{is_host, is_repository, is_tag};
pub use synthesised::{synthesised, uncompressed_layer};
pub use tree::Image;
