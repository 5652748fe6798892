//! Several stores as one: a place whose images are in stores of different kinds.

use super::{BrokenLinks, Profile, ReferrerList, Root, Selector, Store, TagListing};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Image, Name};
use crate::progress::Watch;
use std::io::Read;
use std::sync::Arc;

/// The images of several stores. Each blob is read from the first store that has it, and a name that images of several
/// stores have is that of the first one.
pub struct Several {
    stores: Vec<Arc<dyn Store>>,
    watch: Arc<dyn Watch>,
}

impl Several {
    /// The images of `stores`, of which the one in use is the first. `watch` gets the messages about names of two images.
    pub fn new(stores: Vec<Arc<dyn Store>>, watch: Arc<dyn Watch>) -> Several {
        Several { stores, watch }
    }

    fn selected(&self, selector: &Selector) -> Result<Vec<Root>> {
        let (mut found, mut reasons): (Vec<Root>, Vec<String>) = (Vec::new(), Vec::new());
        for store in &self.stores {
            match store.roots(std::slice::from_ref(selector)) {
                Ok(roots) if found.is_empty() => found = roots,
                Ok(roots) => {
                    if let (Some(one), Some(other)) = (found.first(), roots.first())
                        && one.descriptor.digest != other.descriptor.digest
                    {
                        if one.name != other.name {
                            let names = [one, other].map(|root| shown(root.name.as_ref()));
                            return Err(Error::usage(format!(
                                "{selector} matches images in different stores: {}; write the full name of one",
                                names.join(", ")
                            )));
                        }
                        self.tell_contested(one, other);
                    }
                }
                Err(error) if error.kind() == Kind::NotFound => reasons.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() { Err(Error::not_found(reasons.join("; "))) } else { Ok(found) }
    }

    /// The images of all stores. Where a name is that of an earlier store's image, another image does not have it here.
    fn all(&self) -> Result<Vec<Root>> {
        let mut all: Vec<Root> = Vec::new();
        for store in &self.stores {
            let earlier = all.len();
            for root in store.roots(&[])? {
                let has_name = |owner: &&Root| owner.name.is_some() && owner.name == root.name;
                match all[..earlier].iter().find(has_name) {
                    Some(owner) if owner.descriptor.digest == root.descriptor.digest => {}
                    Some(owner) => {
                        self.tell_contested(owner, &root);
                        all.push(Root { name: None, ..root });
                    }
                    None => all.push(root),
                }
            }
        }
        Ok(all)
    }

    fn tell_contested(&self, owner: &Root, other: &Root) {
        self.watch.say(&format!(
            "{} is also the name of an image of a store that is not the one in use, {}; {} has the name",
            shown(owner.name.as_ref()),
            other.descriptor.digest,
            owner.descriptor.digest
        ));
    }

    /// The first store that has `digest`.
    fn holder(&self, digest: &Digest) -> Result<&dyn Store> {
        for store in &self.stores {
            if store.find(digest)?.is_some() {
                return Ok(&**store);
            }
        }
        Err(Error::not_found(format!("none of the stores has {digest}")))
    }
}

fn shown(name: Option<&Name>) -> &str {
    name.map(Name::as_str).unwrap_or_default()
}

impl Store for Several {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        if selectors.is_empty() {
            return self.all();
        }
        let mut roots = Vec::new();
        for selector in selectors {
            roots.extend(self.selected(selector)?);
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
        for store in &self.stores {
            if let Some(found) = store.find(digest)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for store in &self.stores {
            names.extend(store.names()?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn visit_tags(&self, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<TagListing> {
        let mut listing = TagListing::default();
        for store in &self.stores {
            listing += store.visit_tags(visit)?;
        }
        Ok(listing)
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        let mut found = ReferrerList::default();
        for store in &self.stores {
            found.merge(store.referrers(subject)?);
        }
        Ok(found)
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        self.holder(digest).ok()?.file_of(digest)
    }

    fn broken_links(&self, image: &Image) -> Result<BrokenLinks> {
        let mut found = BrokenLinks::default();
        for store in &self.stores {
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
        let profiles: Vec<Profile> = self.stores.iter().map(|store| store.profile()).collect();
        let messages: Vec<&str> = profiles.iter().map(|profile| &*profile.empty_message).collect();
        Profile {
            is_sparse: profiles.iter().any(|profile| profile.is_sparse),
            reports_synthesised: profiles.iter().any(|profile| profile.reports_synthesised),
            empty_message: messages.join("; "),
            ..Profile::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::source::select;

    /// A store of roots without their manifests.
    struct Roots(Vec<Root>);

    impl Store for Roots {
        fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
            select(&self.0, selectors)
        }

        fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
            Err(Error::not_found(at.digest.to_string()))
        }

        fn open(&self, blob: &Descriptor, _from: u64) -> Result<Box<dyn Read + Send + '_>> {
            Err(Error::not_found(blob.digest.to_string()))
        }

        fn find(&self, _digest: &Digest) -> Result<Option<Descriptor>> {
            Ok(None)
        }
    }

    fn root(name: &str, text: &str) -> Root {
        Root::new(Some(Name::new(name).unwrap()), Descriptor::new("", Digest::of(text.as_bytes()), 1))
    }

    #[test]
    fn a_name_is_that_of_the_first_store() {
        let first = Roots(vec![root("h.io/x:1", "a"), root("h.io/y:1", "b")]);
        let second = Roots(vec![root("h.io/x:1", "c"), root("h.io/y:1", "b"), root("h.io/z:1", "d")]);
        let several = Several::new(vec![Arc::new(first), Arc::new(second)], Arc::new(Silent));
        let all: Vec<(String, Digest)> = several.roots(&[]).unwrap().iter().map(shown_with_digest).collect();
        let expected = [("h.io/x:1", "a"), ("h.io/y:1", "b"), ("", "c"), ("h.io/z:1", "d")];
        assert_eq!(all, expected.map(|(name, text)| (name.to_owned(), Digest::of(text.as_bytes()))));
        let selected = several.roots(&[Selector::Name("h.io/x:1".to_owned())]).unwrap();
        assert_eq!(selected[0].descriptor.digest, Digest::of(b"a"));
        let selected = several.roots(&[Selector::Digest(Digest::of(b"c"))]).unwrap();
        assert_eq!(selected[0].descriptor.digest, Digest::of(b"c"));
    }

    fn shown_with_digest(root: &Root) -> (String, Digest) {
        (shown(root.name.as_ref()).to_owned(), root.descriptor.digest)
    }
}
