//! An image by what users of docker type: a name, an image ID, the start of an ID, `NAME@DIGEST`.

use super::images;
use super::names::Named;
use super::store::{DockerDirStore, ImageAt};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Name, Reference, media_type};
use crate::source::{Root, Selector, select};
use std::str::FromStr;

/// The minimum length of the start of an ID: `docker images` prints 12 characters. A shorter word is a tag or name.
const MIN_PREFIX: usize = 12;
const HEX: usize = 64;

/// An image ID or its start, with or without `sha256:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdPrefix(String);

impl IdPrefix {
    /// Parses `text`; `None` if it cannot be an ID.
    pub fn parse(text: &str) -> Option<IdPrefix> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let fits =
            (MIN_PREFIX..=HEX).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| IdPrefix(hex.to_owned()))
    }

    /// The one of `ids` that begins so; `None` if none does.
    ///
    /// # Errors
    /// - `Usage`: several begin so.
    pub fn only(&self, ids: impl IntoIterator<Item = Digest>) -> Result<Option<Digest>> {
        let mut found: Vec<Digest> = ids.into_iter().filter(|id| id.hex().starts_with(&self.0)).collect();
        found.sort();
        found.dedup();
        match found[..] {
            [] => Ok(None),
            [id] => Ok(Some(id)),
            [first, second, ..] => Err(Error::usage(format!(
                "{} is the start of several image IDs ({first}, {second}); write more of it",
                self.0
            ))),
        }
    }
}

/// The image that one driver's store has under a name or ID. Its descriptor is that of the config, until a manifest is
/// made.
pub(super) fn provisional(name: Option<Name>, id: &Digest) -> Root {
    Root { synthesised: true, ..Root::new(name, Descriptor::new(media_type::OCI_CONFIG, *id, 0)) }
}

impl DockerDirStore {
    /// The images that `selector` selects: one, or several of the same ID.
    pub(super) fn find_images(&self, selector: &Selector) -> Result<Vec<ImageAt>> {
        let listed = self.listed_images()?;
        let found = match selector {
            Selector::Digest(digest) => self.by_digest(digest, &listed)?,
            Selector::Name(text) => match Reference::from_str(text) {
                Ok(Reference { digest: Some(_), .. }) => self.by_manifest(text)?,
                _ => self.by_name(text, &listed)?,
            },
        };
        if let Some(found) = found {
            return Ok(vec![found]);
        }
        // Nothing fits, or a tag fits several images: the message lists them.
        let roots: Vec<Root> = listed.iter().map(ImageAt::provisional).collect();
        let chosen = select(&roots, std::slice::from_ref(selector)).map_err(|error| error.at(self.label()))?;
        let same = |image: &&ImageAt, root: &Root| image.name == root.name && image.id == root.descriptor.digest;
        Ok(chosen.iter().filter_map(|root| listed.iter().find(|image| same(image, root)).cloned()).collect())
    }

    /// An exact name, else an ID or its start.
    fn by_name(&self, text: &str, listed: &[ImageAt]) -> Result<Option<ImageAt>> {
        let fits = |image: &ImageAt| image.name.as_ref().is_some_and(|name| name.matches(text));
        match IdPrefix::parse(text) {
            Some(prefix) if !listed.iter().any(fits) => self.by_id(&prefix),
            _ => Ok(None),
        }
    }

    fn by_id(&self, prefix: &IdPrefix) -> Result<Option<ImageAt>> {
        let mut stored = Vec::new();
        for (at, driver) in self.drivers().iter().enumerate() {
            stored.extend(images::ids(driver)?.into_iter().map(|id| ImageAt { driver: at, id, name: None }));
        }
        let id = prefix.only(stored.iter().map(|image| image.id))?;
        Ok(stored.into_iter().find(|image| Some(image.id) == id))
    }

    /// An image by its ID, by the manifest that it was pulled with, or by the manifest that it gets here.
    fn by_digest(&self, digest: &Digest, listed: &[ImageAt]) -> Result<Option<ImageAt>> {
        let by_id = IdPrefix::parse(&digest.hex()).map(|id| self.by_id(&id)).transpose()?.flatten();
        if by_id.is_some() {
            return Ok(by_id);
        }
        if let Some(pulled) = self.pulled_as(|named| named.reference.digest == Some(*digest))? {
            return Ok(Some(pulled));
        }
        for image in listed {
            // A damaged image has no manifest, so that the digest is not its one.
            if self.manifest_of(image).is_ok_and(|manifest| manifest.digest() == *digest) {
                return Ok(Some(image.clone()));
            }
        }
        Ok(None)
    }

    /// An image by `NAME@DIGEST`, where docker recorded that it pulled the manifest DIGEST.
    fn by_manifest(&self, text: &str) -> Result<Option<ImageAt>> {
        let asked = Reference::from_str(text)?;
        let pulled = self.pulled_as(|named| {
            named.reference.digest == asked.digest && named.reference.full_repository() == asked.full_repository()
        })?;
        let Some(image) = pulled else {
            return Err(Error::not_found(format!(
                "{}: image {text} was not found; docker stores no manifests, and records none with this digest under \
                 this name; select the image by its tag or ID",
                self.label()
            )));
        };
        let tagged = Name::from(&Reference { digest: None, ..asked.clone() });
        let same = |other: &ImageAt| other.id == image.id && other.name.as_ref() == Some(&tagged);
        let has_tag = asked.tag.is_some() && self.listed_images()?.iter().any(same);
        Ok(Some(ImageAt { name: has_tag.then_some(tagged), ..image }))
    }

    /// The image whose `NAME@DIGEST` fits. The user is told that the manifest itself is not stored.
    fn pulled_as(&self, fits: impl Fn(&Named) -> bool) -> Result<Option<ImageAt>> {
        for (at, driver) in self.drivers().iter().enumerate() {
            let names = super::names::read(driver)?;
            if let Some(named) = names.into_iter().find(|named| fits(named)) {
                self.watch().say(&format!(
                    "docker pulled image {} as {}, but does not store that manifest; the image gets a new one",
                    named.id, named.reference
                ));
                return Ok(Some(ImageAt { driver: at, id: named.id, name: None }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_tags() {
        let id = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, expected) in [
            (id, true),
            (&id[..12], true),
            (&id[..11], false),
            (&*format!("sha256:{id}"), true),
            (&*format!("sha256:{}", &id[..12]), true),
            (&*format!("{id}0"), false),
            ("abcdefabcdeg", false),
            ("E3B0C44298FC", false),
        ] {
            assert_eq!(IdPrefix::parse(text).is_some(), expected, "{text}");
        }
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let prefix = IdPrefix::parse(&ids[0].hex()[..12]).unwrap();
        assert_eq!(prefix.only(ids).unwrap(), Some(ids[0]));
        assert_eq!(prefix.only([ids[1]]).unwrap(), None);
        let every = IdPrefix(String::new());
        assert!(every.only(ids).unwrap_err().to_string().contains("start of several image IDs"));
    }
}
