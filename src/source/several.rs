//! Several stores as one: a place whose images are in stores of different kinds.

use super::{BrokenLinks, Profile, ReferrerList, Root, Selector, Store};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Image, Name};
use std::io::Read;
use std::sync::Arc;

/// The images of several stores. Each blob is read from the first store that has it.
pub struct Several(Vec<Arc<dyn Store>>);

impl Several {
    /// The images of `stores`, in this order.
    pub fn new(stores: Vec<Arc<dyn Store>>) -> Several {
        Several(stores)
    }

    fn selected(&self, selector: &Selector) -> Result<Vec<Root>> {
        let (mut found, mut reasons): (Vec<Root>, Vec<String>) = (Vec::new(), Vec::new());
        for store in &self.0 {
            match store.roots(std::slice::from_ref(selector)) {
                Ok(roots) if found.is_empty() => found = roots,
                Ok(roots) => {
                    if let (Some(one), Some(other)) = (found.first(), roots.first())
                        && one.descriptor.digest != other.descriptor.digest
                    {
                        let (one, other) = (shown(one), shown(other));
                        return Err(Error::usage(format!(
                            "{selector} matches images in different stores: {one}, {other}; select one by its digest"
                        )));
                    }
                }
                Err(error) if error.kind() == Kind::NotFound => reasons.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() { Err(Error::not_found(reasons.join("; "))) } else { Ok(found) }
    }

    /// The first store that has `digest`.
    fn holder(&self, digest: &Digest) -> Result<&dyn Store> {
        for store in &self.0 {
            if store.find(digest)?.is_some() {
                return Ok(&**store);
            }
        }
        Err(Error::not_found(format!("none of the stores has {digest}")))
    }
}

/// The name and the digest of an image.
fn shown(root: &Root) -> String {
    let name = root.name.as_ref().map(Name::as_str).unwrap_or_default();
    format!("{name}@{}", root.descriptor.digest)
}

impl Store for Several {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let mut roots = Vec::new();
        for selector in selectors {
            roots.extend(self.selected(selector)?);
        }
        if selectors.is_empty() {
            for store in &self.0 {
                roots.extend(store.roots(&[])?);
            }
        }
        Ok(roots)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.holder(&at.digest)?.manifest(at)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.holder(&blob.digest)?.open(blob, from)
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        for store in &self.0 {
            if let Some(found) = store.find(digest)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for store in &self.0 {
            names.extend(store.names()?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        let mut found = ReferrerList::default();
        for store in &self.0 {
            found.merge(store.referrers(subject)?);
        }
        Ok(found)
    }

    fn broken_links(&self, image: &Image) -> Result<BrokenLinks> {
        let mut found = BrokenLinks::default();
        for store in &self.0 {
            found.merge(store.broken_links(image)?);
        }
        Ok(found)
    }

    fn located(&self, blob: &Descriptor, error: Error) -> Error {
        match self.holder(&blob.digest) {
            Ok(store) => store.located(blob, error),
            Err(_) => error,
        }
    }

    fn profile(&self) -> Profile {
        let profiles: Vec<Profile> = self.0.iter().map(|store| store.profile()).collect();
        let messages: Vec<&str> = profiles.iter().map(|profile| &*profile.empty_message).collect();
        Profile {
            is_sparse: profiles.iter().any(|profile| profile.is_sparse),
            reports_synthesised: profiles.iter().any(|profile| profile.reports_synthesised),
            empty_message: messages.join("; "),
            ..Profile::default()
        }
    }
}
