//! Media types (image-spec, media-types.md; docker's image manifest version 2, schema 2) and the compression of layers.

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, uncompressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, compressed with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The artifact manifest, withdrawn before image-spec 1.1 but still in use.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// docker's manifest list, its form of an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// docker's image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// docker's layer, uncompressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// docker's layer, compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// docker's layer, compressed with zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Schema 1: withdrawn by docker, and refused with a message.
pub const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
/// Bytes of unknown type (RFC 2046, section 4.5.1).
pub const OCTETS: &str = "application/octet-stream";

/// The compression of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// Not compressed.
    Raw,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

impl Coding {
    /// Returns the name on the command line and in messages: `none`, `gzip` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Raw => "none",
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }

    /// Detects the compression by the first bytes of a blob (RFC 1952; RFC 8878).
    pub fn sniff(head: &[u8]) -> Coding {
        match head {
            [0x1f, 0x8b, ..] => Coding::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Coding::Zstd,
            _ => Coding::Raw,
        }
    }
}

/// Returns the compression of a filesystem layer that may be recompressed. `None` for all other types (artifacts,
/// encrypted layers, unknown types), which are copied unchanged.
pub fn layer_coding(media_type: &str) -> Option<Coding> {
    Some(match media_type {
        OCI_LAYER | DOCKER_LAYER => Coding::Raw,
        OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => Coding::Gzip,
        OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Coding::Zstd,
        _ => return None,
    })
}

/// Returns the layer type with `coding` of the same family (OCI or docker) as `media_type`.
pub fn with_coding(media_type: &str, coding: Coding) -> &'static str {
    let docker = media_type.starts_with("application/vnd.docker.");
    match (docker, coding) {
        (false, Coding::Raw) => OCI_LAYER,
        (false, Coding::Gzip) => OCI_LAYER_GZIP,
        (false, Coding::Zstd) => OCI_LAYER_ZSTD,
        (true, Coding::Raw) => DOCKER_LAYER,
        (true, Coding::Gzip) => DOCKER_LAYER_GZIP,
        (true, Coding::Zstd) => DOCKER_LAYER_ZSTD,
    }
}

/// Whether this is a foreign layer: OCI's nondistributable types (deprecated) and docker's foreign types.
pub(crate) fn is_foreign_layer(media_type: &str) -> bool {
    const KINDS: [&str; 2] = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let coding = KINDS.iter().find_map(|kind| media_type.strip_prefix(kind));
    coding.is_some_and(|coding| ["", "+gzip", "+zstd", ".gzip", ".zstd"].contains(&coding))
}

/// Whether both types are an index, or both an image manifest, in OCI or docker form.
pub(crate) fn same_kind(one: &str, other: &str) -> bool {
    let pair = |a, b| [one, other].iter().all(|&media_type| media_type == a || media_type == b);
    one == other || pair(OCI_INDEX, DOCKER_LIST) || pair(OCI_MANIFEST, DOCKER_MANIFEST)
}

/// Whether this is an index, in OCI or docker form.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether this is a manifest of an image or artifact, in OCI or docker form.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST | OCI_ARTIFACT)
}
