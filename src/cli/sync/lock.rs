//! The lock file: the digest of each image of an earlier run, one `NAME@DIGEST` a line. It is a list of images itself.

use crate::image::{Digest, Reference};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The digests of images by host, repository and tag.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    images: BTreeMap<Reference, Digest>,
}

impl LockFile {
    /// Reads the text of the lock file `label`.
    ///
    /// # Errors
    /// - `Invalid`, with the line: it is not `NAME:TAG@DIGEST`, or a name has two digests.
    pub fn parse(text: &str, label: &str) -> Result<LockFile> {
        let mut lock = LockFile::default();
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |why: &str| Error::invalid(format!("{label}, line {number}: {why}"));
            let reference: Reference = line.parse().map_err(|error: Error| wrong(&error.to_string()))?;
            let Some(digest) = reference.digest.filter(|_| reference.tag.is_some()) else {
                return Err(wrong(&format!("{line:?} is not NAME:TAG@DIGEST")));
            };
            let image = Reference { digest: None, ..reference };
            if lock.images.insert(image.clone(), digest).is_some_and(|before| before != digest) {
                return Err(wrong(&format!("{image} has a second digest")));
            }
        }
        Ok(lock)
    }

    /// Adds the image `name` with a tag; an image by digest needs no lock.
    pub fn add(&mut self, name: &Reference, digest: Digest) {
        if name.tag.is_some() {
            self.images.insert(Reference { digest: None, ..name.clone() }, digest);
        }
    }

    /// The digest of `image`, which has a tag.
    pub fn digest(&self, image: &Reference) -> Option<Digest> {
        self.images.get(image).copied()
    }

    /// The tags of `repository`.
    pub fn tags<'l>(&'l self, repository: &'l Reference) -> impl Iterator<Item = &'l str> {
        let first = Reference { tag: None, digest: None, ..repository.clone() };
        let same = |image: &Reference| (&image.host, &image.repository) == (&repository.host, &repository.repository);
        self.images
            .range(first..)
            .map(|(image, _)| image)
            .take_while(move |image| same(image))
            .filter_map(|image| image.tag.as_deref())
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::from("# Written by imgmv sync. With --locked the next run copies these digests.\n");
        for (image, digest) in &self.images {
            let _ = writeln!(text, "{image}@{digest}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_written_lock_file_is_read_again() {
        let mut lock = LockFile::default();
        for name in ["b.lan/app:2", "b.lan/app:1", "b.lan/app/x:1", "a.lan/app:1"] {
            lock.add(&name.parse().unwrap(), DIGEST.parse().unwrap());
        }
        assert_eq!(LockFile::parse(&lock.text(), "lock").unwrap(), lock);
        let tags: Vec<String> = lock.tags(&"b.lan/app".parse().unwrap()).map(str::to_owned).collect();
        assert_eq!(tags, ["1", "2"]);
        assert_eq!(lock.digest(&"a.lan/app:1".parse().unwrap()), Some(DIGEST.parse().unwrap()));
        assert_eq!(lock.digest(&"a.lan/app:2".parse().unwrap()), None);
    }

    #[test]
    fn a_line_that_is_not_a_locked_image_is_named() {
        for line in ["app:1".to_owned(), format!("app@{DIGEST}"), "a b".to_owned()] {
            let error = LockFile::parse(&format!("# ok\n{line}\n"), "x.lock").unwrap_err();
            assert!(error.to_string().starts_with("x.lock, line 2"), "{error}");
        }
    }
}
