//! Names of images in a tree.

use crate::error::{Error, Result};
use crate::image::{Digest, Name, Reference, is_repository, is_tag};

/// The host in the names of images: a tree does not know its registry's.
const HOST: &str = "localhost";

/// The name of the image `tag` in `repository`.
///
/// Fails with `Invalid` if the name is too long.
pub(super) fn image_name(repository: &str, tag: &str) -> Result<Name> {
    Name::new(format!("{HOST}/{repository}:{tag}"))
}

/// The image of a tree that has the name `name`; `None` for the name of another image.
pub(super) fn in_tree(name: &Name) -> Option<TreeReference> {
    TreeReference::parse(name.as_str().strip_prefix(HOST)?.strip_prefix('/')?).ok()
}

/// `REPO[:TAG][@DIGEST]`, as a user selects an image in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeReference {
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl TreeReference {
    /// Parses `text`. The repository is the path as it is: `app` is not `library/app`.
    ///
    /// Fails with `Usage`.
    pub fn parse(text: &str) -> Result<TreeReference> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(300).collect();
            Error::usage(format!("{shown:?} is not an image in a registry's storage tree: {why}; expected REPO:TAG"))
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|e: Error| wrong(&e.to_string()))?)),
            None => (text, None),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some((_, tag)) if !tag.contains('/') => return Err(wrong("its tag is not a tag")),
            _ => (rest, None),
        };
        // A host with a port cannot be a part of a path in the tree.
        match is_repository(repository) {
            true => Ok(TreeReference { repository: repository.to_owned(), tag, digest }),
            false => Err(wrong("its repository has other characters than lower-case letters, digits and ._-/")),
        }
    }

    /// The tag, or `latest`.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// The repositories that `text` may mean, the most literal first: its path as it is, then without a host.
    pub fn candidates(text: &str) -> Vec<TreeReference> {
        let literal = TreeReference::parse(text).ok();
        let below = text.parse::<Reference>().ok().map(|reference| TreeReference {
            repository: reference.repository,
            tag: reference.tag,
            digest: reference.digest,
        });
        literal.into_iter().chain(below).collect()
    }

    /// The name of the image at a destination.
    ///
    /// Fails with `Usage` if the reference has a digest.
    pub fn name(&self) -> Result<Name> {
        match self.digest {
            None => image_name(&self.repository, self.tag_or_latest()),
            Some(digest) => {
                Err(Error::usage(format!("@{digest} cannot be a name at DST: an image's digest is fixed; use a tag")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_path_as_it_is() {
        for (text, repository, tag) in [
            ("app", "app", None),
            ("app:2", "app", Some("2")),
            ("team/app:v1", "team/app", Some("v1")),
            ("quay.io/org/app:1", "quay.io/org/app", Some("1")),
        ] {
            let found = TreeReference::parse(text).unwrap();
            assert_eq!((found.repository.as_str(), found.tag.as_deref()), (repository, tag), "{text}");
            let name = found.name().unwrap();
            let read = name.reference().expect("a full name");
            assert_eq!((read.repository.as_str(), read.tag.as_deref()), (repository, Some(found.tag_or_latest())));
        }
        for text in ["", "App", "a:", "../a", "_layers", "a/_manifests:1", "localhost:5000/a:1", "a@sha256:12", "a b"] {
            assert!(TreeReference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_full_name_means_its_path_where_the_literal_one_is_missing() {
        let paths = |text: &str| -> Vec<String> {
            TreeReference::candidates(text).into_iter().map(|found| found.repository).collect()
        };
        assert_eq!(paths("app:1"), ["app", "library/app"]);
        assert_eq!(paths("localhost/team/app:1"), ["localhost/team/app", "team/app"]);
        assert_eq!(paths("localhost:5000/team/app:1"), ["team/app"]);
    }
}
