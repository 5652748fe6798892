//! The field's own values (OCI image-spec and distribution-spec): digests, references, descriptors, manifests,
//! platforms. No I/O here.

mod described;
mod descriptor;
mod digest;
mod json;
mod layout_index;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
pub mod side_by_side;
mod tree;

pub(crate) use described::{LAYERS_ARE_ZSTD, OF_LAYERS, describes_bytes};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub(crate) use json::tree as json_tree;
pub use layout_index::{LayoutIndex, MAX_NAMES};
pub use manifest::{Body, Config, MAX_MANIFEST, Manifest};
pub use media_type::{Coding, layer_coding, with_coding};
pub use platform::Platform;
pub use reference::{DEFAULT_REGISTRY, Name, Reference};
pub(crate) use reference::{is_host, is_repository, is_tag};
pub use tree::Image;
