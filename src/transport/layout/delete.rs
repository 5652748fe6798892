//! Deleting names and manifests of a layout. Layers and configs stay, since other images may have them.

use super::PushedLayout;
use super::store::LayoutStore;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Digest, Name};
use crate::progress::Watch;
use crate::source::Store;
use crate::transport::address::{Deleter, NameTargets, TagDeletion};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A layout of which names and manifests are deleted.
pub(super) struct LayoutDeleter {
    layout: PushedLayout,
    store: Arc<LayoutStore>,
    dir: PathBuf,
}

impl LayoutDeleter {
    /// Opens the layout in `dir`, which `store` reads.
    pub fn open(dir: &Path, store: Arc<LayoutStore>, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<LayoutDeleter> {
        let layout = PushedLayout::open(dir, watch, cancel)?;
        let missing = || Error::invalid(format!("{} is not an OCI layout: it has no file oci-layout", dir.display()));
        Ok(LayoutDeleter { layout: layout.ok_or_else(missing)?, store, dir: dir.to_owned() })
    }
}

impl Deleter for LayoutDeleter {
    /// A name that the layout does not have stands for every name with its tag.
    fn delete_name(&self, name: &Name) -> Result<TagDeletion> {
        if !self.layout.remove_name(name)?
            && let Some(tag) = name.tag()
        {
            self.layout.untag(&tag)?;
        }
        Ok(TagDeletion::Deleted)
    }

    fn visit_names(&self, visit: &mut dyn FnMut(Name) -> Result<()>) -> Result<()> {
        LayoutStore::open(&self.dir)?.entries().iter().filter_map(|root| root.name.clone()).try_for_each(visit)
    }

    fn digest_of(&self, name: &Name) -> Result<Option<Digest>> {
        let store = LayoutStore::open(&self.dir)?;
        let mut digests =
            store.entries().iter().filter(|root| root.name.as_ref() == Some(name)).map(|root| root.descriptor.digest);
        let digest = digests.next();
        match digests.find(|other| Some(*other) != digest) {
            None => Ok(digest),
            Some(other) => {
                let first = digest.unwrap_or(other);
                Err(Error::invalid(format!(
                    "{name} is the name of two images, @{first} and @{other}; delete one by its digest"
                )))
            }
        }
    }

    fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        Ok(self.store.find(digest)?.is_some())
    }

    fn targets(&self) -> Result<NameTargets> {
        let entries = self.store.entries().iter();
        let targets = entries.map(|root| (root.name.clone(), root.descriptor.clone())).collect();
        Ok(NameTargets { targets, unchecked: 0 })
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        self.layout.remove_manifest(digest)
    }
}
