//! Annotations that tools put on a layer about its very bytes: false once the layer is compressed another way, or a
//! reason not to do that at all.

use super::{Coding, Descriptor, layer_coding};

/// Of a layer's descriptor: where a table of contents lies in the compressed bytes, and its digest.
const OF_BYTES: [&str; 2] = [
    // stargz-snapshotter, estargz/types.go.
    "containerd.io/snapshot/stargz/toc.digest",
    "io.containers.estargz.uncompressed-size",
];

/// containers/storage, pkg/chunked: `manifest-checksum`, `manifest-position`, `tarsplit-position`, and under the first
/// name of 2020 the first two.
const OF_BYTES_BEGIN: [&str; 2] = ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];

/// A layer with one of these is not a compressed tar, whatever its media type says, and others name it by its digest:
/// nydus-snapshotter, pkg/label; accelerated-container-image, pkg/label.
const NOT_A_TAR: [&str; 2] = ["containerd.io/snapshot/nydus-blob", "containerd.io/snapshot/overlaybd/blob-digest"];

/// Of a manifest: soci-snapshotter's index of its layers' compressed bytes (SOCI index manifest version 2).
pub(crate) const OF_LAYERS: &str = "com.amazon.soci.index-digest";

/// Of an entry in an index: containers-common prefers this image, since its layers are zstd.
pub(crate) const LAYERS_ARE_ZSTD: &str = "io.github.containers.compression.zstd";

/// Whether the annotation `key` of a layer describes its compressed bytes.
pub(crate) fn describes_bytes(key: &str) -> bool {
    OF_BYTES.contains(&key) || OF_BYTES_BEGIN.iter().any(|begin| key.starts_with(begin))
}

impl Descriptor {
    /// How this layer is compressed, if it is one that may be compressed another way.
    pub fn coding(&self) -> Option<Coding> {
        let opaque = NOT_A_TAR.iter().any(|key| self.annotation(key).is_some());
        layer_coding(&self.media_type).filter(|_| !opaque)
    }
}
