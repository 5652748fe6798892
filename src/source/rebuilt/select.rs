//! An image by what users of an engine type: a name, an image ID, the start of an ID, `NAME@DIGEST`.

use super::{EngineDirectory, IdPrefix, ImageAt, RebuiltStore};
use crate::error::{Error, Result};
use crate::image::{Digest, Name, Reference};
use crate::source::{Root, Selector, select};
use std::str::FromStr;

impl<D: EngineDirectory> RebuiltStore<D> {
    /// The images that `selector` selects: one, or several of the same ID.
    pub(super) fn find_images(&self, selector: &Selector) -> Result<Vec<ImageAt>> {
        let listed = self.directory().listed()?;
        let local = self.local(selector, &listed);
        let selector = local.as_ref().unwrap_or(selector);
        let found = match selector {
            Selector::Digest(digest) => self.by_digest(digest, &listed)?,
            Selector::Name(text) => match Reference::from_str(text) {
                Ok(Reference { digest: Some(digest), .. }) => Some(self.by_manifest(text, &digest, &listed)?),
                _ => self.by_id_unless_named(text, &listed)?,
            },
        };
        if let Some(found) = found {
            return Ok(vec![found]);
        }
        // Nothing fits, or a tag fits several images: the message lists them.
        let roots: Vec<Root> = listed.iter().map(ImageAt::provisional).collect();
        let chosen =
            select(&roots, std::slice::from_ref(selector)).map_err(|error| error.at(self.directory().label()))?;
        let same = |image: &&ImageAt, root: &Root| image.name == root.name && image.id == root.descriptor.digest;
        Ok(chosen.iter().filter_map(|root| listed.iter().find(|image| same(image, root)).cloned()).collect())
    }

    /// The engine's own name for a name that is not complete, if an image has it.
    fn local(&self, selector: &Selector, listed: &[ImageAt]) -> Option<Selector> {
        let Selector::Name(text) = selector else { return None };
        let local = Name::from(&Reference::from_str(&self.directory().local_name(text)?).ok()?.tagged());
        let has_it = listed.iter().any(|image| image.name.as_ref() == Some(&local));
        has_it.then(|| Selector::Name(local.to_string()))
    }

    /// An ID or its start, which is not the name of an image.
    fn by_id_unless_named(&self, text: &str, listed: &[ImageAt]) -> Result<Option<ImageAt>> {
        let fits = |image: &ImageAt| image.name.as_ref().is_some_and(|name| name.matches(text));
        match IdPrefix::parse(text) {
            Some(prefix) if !listed.iter().any(fits) => self.by_id(&prefix),
            _ => Ok(None),
        }
    }

    fn by_id(&self, prefix: &IdPrefix) -> Result<Option<ImageAt>> {
        let stored = self.directory().every()?;
        let id = prefix.only(stored.iter().map(|image| image.id))?;
        Ok(stored.into_iter().find(|image| Some(image.id) == id))
    }

    /// An image by its ID, by a manifest that the engine recorded, or by the manifest that it gets here.
    fn by_digest(&self, digest: &Digest, listed: &[ImageAt]) -> Result<Option<ImageAt>> {
        let by_id = IdPrefix::parse(&digest.hex()).map(|id| self.by_id(&id)).transpose()?.flatten();
        if by_id.is_some() {
            return Ok(by_id);
        }
        if let Some(recorded) = self.directory().with_manifest(digest, None)? {
            return Ok(Some(recorded));
        }
        for image in listed {
            // A damaged image has no manifest, so that the digest is not its one.
            if self.manifest_of(image).is_ok_and(|made| made.manifest.digest() == *digest) {
                return Ok(Some(image.clone()));
            }
        }
        Ok(None)
    }

    /// An image by `NAME@DIGEST`, where the engine recorded the manifest DIGEST.
    fn by_manifest(&self, text: &str, digest: &Digest, listed: &[ImageAt]) -> Result<ImageAt> {
        let asked = Reference::from_str(text)?;
        let Some(image) = self.directory().with_manifest(digest, Some(&asked))? else {
            return Err(Error::not_found(format!(
                "{}: image {text} was not found; no manifest with this digest is recorded under this name; select the \
                 image by its tag or ID",
                self.directory().label()
            )));
        };
        let tagged = Name::from(&Reference { digest: None, ..asked.clone() });
        let same = |other: &ImageAt| other.id == image.id && other.name.as_ref() == Some(&tagged);
        let has_tag = asked.tag.is_some() && listed.iter().any(same);
        Ok(ImageAt { name: has_tag.then_some(tagged), ..image })
    }
}
