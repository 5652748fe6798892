//! An image by what users of an engine type: a name, an image ID, the start of an ID, `NAME@DIGEST`.

use super::contested::ByName;
use super::{EngineDirectory, IdPrefix, ImageAt, RebuiltStore};
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Name, Reference};
use crate::source::{Root, Selector, select};
use std::str::FromStr;

impl<D: EngineDirectory> RebuiltStore<D> {
    /// The image that `selector` selects.
    pub(super) fn find_image(&self, selector: &Selector) -> Result<ImageAt> {
        let ByName { named, others } = self.by_name()?;
        let local = self.local(selector, &named);
        let selector = local.as_ref().unwrap_or(selector);
        let found = match selector {
            Selector::Digest(digest) => self.by_digest(digest)?,
            Selector::Name(text) => match Reference::from_str(text) {
                Ok(Reference { digest: Some(digest), .. }) => Some(self.by_manifest(text, &digest, &named, &others)?),
                _ => self.by_id_unless_named(text, &named)?,
            },
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let found = self.among(selector, &named)?;
        others.iter().filter(|other| other.name == found.name).for_each(|other| self.tell_contested(other));
        Ok(found)
    }

    /// The one of `named` that `selector` selects. Where none does, the message lists all images.
    fn among(&self, selector: &Selector, named: &[ImageAt]) -> Result<ImageAt> {
        let choose = |images: &[ImageAt]| {
            let roots: Vec<Root> = images.iter().map(ImageAt::provisional).collect();
            let chosen = select(&roots, std::slice::from_ref(selector))?.pop();
            let same = |image: &&ImageAt, root: &Root| image.name == root.name && image.id == root.descriptor.digest;
            let image = chosen.and_then(|root| images.iter().find(|image| same(image, &root)).cloned());
            image.ok_or_else(|| Error::not_found(format!("image {selector} was not found")))
        };
        let chosen = match choose(named) {
            Err(error) if error.kind() == Kind::NotFound => choose(&self.directory().listed()?),
            chosen => chosen,
        };
        chosen
            .map_err(|error| match self.directory().names_damage() {
                Some(damage) if error.kind() == Kind::NotFound => {
                    Error::invalid(format!("{error}, of what can be read: {damage}"))
                }
                _ => error,
            })
            .map_err(|error| error.at(self.directory().label()))
    }

    /// The engine's own name for a name that is not complete, if an image has it.
    fn local(&self, selector: &Selector, named: &[ImageAt]) -> Option<Selector> {
        let Selector::Name(text) = selector else { return None };
        let local = Name::from(&Reference::from_str(&self.directory().local_name(text)?).ok()?.tagged());
        let has_it = named.iter().any(|image| image.name.as_ref() == Some(&local));
        has_it.then(|| Selector::Name(local.to_string()))
    }

    /// An ID or its start, which is not the name of an image.
    fn by_id_unless_named(&self, text: &str, named: &[ImageAt]) -> Result<Option<ImageAt>> {
        let fits = |image: &ImageAt| image.name.as_ref().is_some_and(|name| name.matches(text));
        match IdPrefix::parse(text) {
            Some(prefix) if !named.iter().any(fits) => self.by_id(&prefix),
            _ => Ok(None),
        }
    }

    fn by_id(&self, prefix: &IdPrefix) -> Result<Option<ImageAt>> {
        let stored = self.directory().every()?;
        let id = prefix.only(stored.iter().map(|image| image.id))?;
        Ok(stored.into_iter().find(|image| Some(image.id) == id))
    }

    /// An image by its ID, by a manifest that the engine recorded, or by the manifest that it gets here.
    fn by_digest(&self, digest: &Digest) -> Result<Option<ImageAt>> {
        let by_id = IdPrefix::parse(&digest.hex()).map(|id| self.by_id(&id)).transpose()?.flatten();
        if by_id.is_some() {
            return Ok(by_id);
        }
        if let Some(recorded) = self.directory().with_manifest(digest, None)? {
            return Ok(Some(recorded));
        }
        for image in self.directory().listed()? {
            // A damaged image has no manifest, so that the digest is not its one.
            if self.manifest_of(&image).is_ok_and(|made| made.manifest.digest() == *digest) {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// An image by `NAME@DIGEST`, where DIGEST is a manifest that the engine recorded, the image ID, or the manifest that the
    /// image gets here.
    fn by_manifest(&self, text: &str, digest: &Digest, named: &[ImageAt], others: &[ImageAt]) -> Result<ImageAt> {
        let asked = Reference::from_str(text)?;
        let tagged = Name::from(&Reference { digest: None, ..asked.clone() });
        if let Some(image) = self.directory().with_manifest(digest, Some(&asked))? {
            let same = |other: &ImageAt| other.id == image.id && other.name.as_ref() == Some(&tagged);
            let has_tag = asked.tag.is_some() && named.iter().any(same);
            return Ok(ImageAt { name: has_tag.then_some(tagged), ..image });
        }
        for image in named.iter().chain(others).filter(|image| image.name.as_ref() == Some(&tagged)) {
            if image.id == *digest || self.manifest_of(image).is_ok_and(|made| made.manifest.digest() == *digest) {
                return Ok(image.clone());
            }
        }
        Err(Error::not_found(format!(
            "{}: image {text} was not found; no manifest with this digest is recorded under this name; select the image by \
             its tag or ID",
            self.directory().label()
        )))
    }

    /// The name with a digest of an image without another name, where `manifest` has that digest. Of another one the user is
    /// told that the image loses it.
    pub(super) fn name_by_digest(&self, image: &ImageAt, manifest: &Digest) -> Option<Name> {
        let pulled = self.directory().pulled_as(image);
        let kept = pulled.iter().find(|reference| reference.digest == Some(*manifest));
        if let (None, Some(lost)) = (kept, pulled.first()) {
            self.directory().watch().say(&format!(
                "image {} was pulled as {lost}, but that manifest is not stored; the image gets a new one, and does not get \
                 this name",
                image.id
            ));
        }
        kept.map(Name::from)
    }
}
