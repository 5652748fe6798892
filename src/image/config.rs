//! Image configs (image-spec, config.md): the platform and the diff IDs of an image.

use super::{Digest, Platform};
use crate::error::{Error, Result};
use serde::Deserialize;

/// The fields of an image config that imgmv uses (image-spec, config.md).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Config {
    /// The processor architecture by Go's names (`amd64`); empty if missing.
    #[serde(default)]
    pub architecture: String,
    /// The operating system by Go's names (`linux`); empty if missing.
    #[serde(default)]
    pub os: String,
    /// The variant of the processor (`v7`).
    #[serde(default)]
    pub variant: Option<String>,
    /// The version of the operating system, used by Windows.
    #[serde(default, rename = "os.version")]
    pub os_version: Option<String>,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl Config {
    /// Parses the JSON of a config. Fails with `Invalid` if it is not an image's config.
    pub fn parse(bytes: &[u8]) -> Result<Config> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid(format!("config {} is not an image config: {e}", Digest::of(bytes))))
    }

    /// Returns the digests of the uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        self.rootfs.as_ref().map_or(&[], |rootfs| &rootfs.diff_ids)
    }

    /// Returns the platform of the image, with normalized names.
    pub fn platform(&self) -> Platform {
        let platform = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        Platform { os_version: self.os_version.clone(), ..platform }
    }
}
