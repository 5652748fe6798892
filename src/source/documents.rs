//! Small blobs of a store, read completely: configs, and their content.

use super::{Store, with_file};
use crate::error::{Error, Result};
use crate::image::{Config, Descriptor, Hasher, MAX_MANIFEST_BYTES, Manifest, Platform};
use std::io::Read;

/// Reads and verifies an image's config, which is at most as large as a manifest.
pub fn config(store: &dyn Store, at: &Descriptor) -> Result<Config> {
    Config::parse(&document(store, at)?)
}

/// The platform in the config of the image whose manifest is `at`; `None` where it cannot be read.
pub fn platform(store: &dyn Store, at: &Descriptor) -> Option<Platform> {
    let manifest = Manifest::parse(store.manifest(at).ok()?, at).ok()?;
    let platform = config(store, manifest.config()?).ok()?.platform();
    (!platform.os.is_empty()).then_some(platform)
}

/// Reads and verifies a small blob, which is at most as large as a manifest.
pub fn document(store: &dyn Store, at: &Descriptor) -> Result<Vec<u8>> {
    if at.size > MAX_MANIFEST_BYTES {
        return Err(Error::invalid(format!(
            "config {} has {} bytes, more than {MAX_MANIFEST_BYTES}",
            at.digest, at.size
        )));
    }
    let mut bytes = Vec::with_capacity(at.size as usize);
    store.open(at, 0)?.take(at.size + 1).read_to_end(&mut bytes)?;
    let found = Hasher::new(at.digest.algorithm()).with(&bytes).finish();
    match found == at.digest {
        true => Ok(bytes),
        false => {
            let error = Error::invalid(format!("blob {} does not match: got {found}", at.digest));
            Err(with_file(store, &at.digest, error))
        }
    }
}
