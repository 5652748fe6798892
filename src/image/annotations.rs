//! Annotations about the compressed bytes of a layer. Recompressing the layer makes them wrong, or must not be done at
//! all.

use super::{Coding, Descriptor, layer_coding};

/// Layer annotations: the position of a table of contents in the compressed bytes, and its digest.
const BYTES_KEYS: [&str; 2] = [
    // stargz-snapshotter, estargz/types.go.
    "containerd.io/snapshot/stargz/toc.digest",
    "io.containers.estargz.uncompressed-size",
];

/// Prefixes of layer annotations (containers/storage, pkg/chunked): `manifest-checksum`, `manifest-position` and
/// `tarsplit-position`. The second prefix was used in 2020, for the first two only.
const BYTES_KEY_PREFIXES: [&str; 2] = ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];

/// A layer with one of these annotations is not a compressed tar, whatever its media type is, and other documents refer
/// to it by digest (nydus-snapshotter, pkg/label; accelerated-container-image, pkg/label).
const NOT_A_TAR: [&str; 2] = ["containerd.io/snapshot/nydus-blob", "containerd.io/snapshot/overlaybd/blob-digest"];

/// Manifest annotation: soci-snapshotter's index of the layers' compressed bytes (SOCI index manifest version 2).
pub(crate) const SOCI_INDEX: &str = "com.amazon.soci.index-digest";

/// Annotation on an entry of an index: containers-common prefers this image, since its layers are zstd.
pub(crate) const ZSTD_PREFERRED: &str = "io.github.containers.compression.zstd";

/// Whether the annotation `key` of a layer describes its compressed bytes.
pub(crate) fn describes_bytes(key: &str) -> bool {
    BYTES_KEYS.contains(&key) || BYTES_KEY_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

impl Descriptor {
    /// Returns the compression of this layer, if the layer may be recompressed.
    pub fn coding(&self) -> Option<Coding> {
        let opaque = NOT_A_TAR.iter().any(|key| self.annotation(key).is_some());
        layer_coding(&self.media_type).filter(|_| !opaque)
    }
}
