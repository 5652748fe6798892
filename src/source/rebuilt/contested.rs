//! Names that images of several storage drivers have: the engine changed its driver, and what the earlier one stored is
//! still there. The name is that of the driver in use.

use super::{EngineDirectory, ImageAt, RebuiltStore};
use crate::error::Result;
use crate::image::{Name, Reference};
use std::collections::{HashMap, HashSet};

/// The images by each of their names.
pub(super) struct ByName {
    pub named: Vec<ImageAt>,
    /// Other images under names of `named`.
    pub others: Vec<ImageAt>,
}

impl ByName {
    /// Divides `all`. Of the images of one name, that of the first driver has it. The same image of another driver is left
    /// out.
    fn new(all: Vec<ImageAt>) -> ByName {
        let mut owners: HashMap<Name, ImageAt> = HashMap::new();
        for image in &all {
            let Some(name) = &image.name else { continue };
            let owner = owners.entry(name.clone()).or_insert_with(|| image.clone());
            if image.driver < owner.driver {
                *owner = image.clone();
            }
        }
        let owner = |image: &ImageAt| image.name.as_ref().and_then(|name| owners.get(name));
        let (named, others): (Vec<ImageAt>, Vec<ImageAt>) =
            all.into_iter().partition(|image| owner(image).is_none_or(|owner| owner.driver == image.driver));
        let others =
            others.into_iter().filter(|image| owner(image).is_some_and(|owner| owner.id != image.id)).collect();
        ByName { named, others }
    }

    /// The images for a list. A name of two images is shown with the IDs of both.
    pub fn for_list(self) -> Vec<ImageAt> {
        let ByName { mut named, others } = self;
        let contested: HashSet<Option<Name>> = others.iter().map(|image| image.name.clone()).collect();
        named.extend(others);
        for image in &mut named {
            if contested.contains(&image.name) {
                image.name = image.name.as_ref().map(|name| name_with_id(name, image));
            }
        }
        named.sort_by(|one, other| one.name.cmp(&other.name));
        named
    }
}

fn name_with_id(name: &Name, image: &ImageAt) -> Name {
    let reference = name.reference().map(|reference| Reference { digest: Some(image.id), ..reference });
    reference.map_or_else(|| name.clone(), |reference| Name::from(&reference))
}

impl<D: EngineDirectory> RebuiltStore<D> {
    /// The images by each name.
    pub(super) fn by_name(&self) -> Result<ByName> {
        Ok(ByName::new(self.directory().named()?))
    }

    /// Tells the user that `other` does not have its name here.
    pub(super) fn tell_contested(&self, other: &ImageAt) {
        let Some(name) = &other.name else { return };
        let (directory, id) = (self.directory(), other.id);
        directory.watch().say(&format!(
            "{name} is also the name of image {id} of the storage driver {}, which is not the one in use; select that image \
             as {}",
            directory.driver_name(other),
            name_with_id(name, other)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn a_name_is_that_of_the_first_driver() {
        let image = |driver: usize, id: &str, name: &str| {
            ImageAt::new(driver, Digest::of(id.as_bytes()), Some(Name::new(name).unwrap()))
        };
        let all = vec![
            image(1, "b", "h.io/x:1"),
            image(0, "a", "h.io/x:1"),
            image(1, "c", "h.io/y:1"),
            image(0, "c", "h.io/y:1"),
        ];
        let found = ByName::new(all);
        assert_eq!(found.named, [image(0, "a", "h.io/x:1"), image(0, "c", "h.io/y:1")]);
        assert_eq!(found.others, [image(1, "b", "h.io/x:1")]);
        let listed: Vec<String> = found.for_list().into_iter().map(|image| image.label()).collect();
        assert_eq!(listed.len(), 3);
        assert!(listed[0].starts_with("h.io/x:1@sha256:") && listed[2] == "h.io/y:1", "{listed:?}");
    }
}
