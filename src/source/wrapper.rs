//! Stores that change how blobs are opened, and leave everything else to another store.

use super::{BrokenLinks, Profile, ReferrerList, Root, Selector, Store, TagListing};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Image, Name};
use std::io::Read;

/// A store that opens the blobs of another store in its own way; it is a [`Store`] itself.
pub trait Wrapper: Send + Sync {
    /// The other store, which answers everything but `open`.
    fn wrapped(&self) -> &dyn Store;

    /// As [`Store::open`].
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// The profile of this store, made of the profile of the other one.
    fn change(&self, profile: Profile) -> Profile {
        profile
    }
}

impl<W: Wrapper> Store for W {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.wrapped().roots(selectors)
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        self.wrapped().manifest(at)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.open_blob(blob, from)
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        self.wrapped().find(digest)
    }

    fn resolve(&self, selector: &Selector) -> Result<Option<Descriptor>> {
        self.wrapped().resolve(selector)
    }

    fn names(&self) -> Result<Vec<Name>> {
        self.wrapped().names()
    }

    fn visit_tags(&self, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<TagListing> {
        self.wrapped().visit_tags(visit)
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        self.wrapped().referrers(subject)
    }

    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        self.wrapped().digest_tagged(subject)
    }

    fn unlisted_digest_tags(&self) -> Vec<(String, Descriptor)> {
        self.wrapped().unlisted_digest_tags()
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        self.wrapped().file_of(digest)
    }

    fn broken_links(&self, image: &Image) -> Result<BrokenLinks> {
        self.wrapped().broken_links(image)
    }

    fn located(&self, blob: &Descriptor, error: Error) -> Error {
        self.wrapped().located(blob, error)
    }

    fn profile(&self) -> Profile {
        self.change(self.wrapped().profile())
    }
}
