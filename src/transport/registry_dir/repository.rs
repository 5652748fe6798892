//! One repository of a tree: its tags and links.

use super::image_name::image_name;
use super::link;
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Digest, Name, is_tag};
use crate::message::some_of;

pub(super) const LAYERS: &str = "_layers";
pub(super) const MANIFESTS: &str = "_manifests";
pub(super) const REVISIONS: &str = "revisions";
pub(super) const TAGS: &str = "tags";
pub(super) const CURRENT: &str = "current";
/// The links to all manifests that a tag pointed at.
pub(super) const INDEX: &str = "index";
/// The maximum number of tags of one repository.
const MAX_TAGS: usize = 100_000;
/// The maximum number of manifests of one repository that are searched for those without a tag.
const MAX_REVISIONS: usize = 100_000;

/// The digests of a tag's index that a message names.
const MAX_INDEXED: usize = 3;

/// The tags of a repository.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Those that have a link to a manifest.
    pub current: Vec<String>,
    /// Those whose index is there and whose link is missing.
    pub without_link: Vec<String>,
    /// The errors of those that cannot be read.
    pub broken: Vec<Error>,
}

enum TagState {
    Current,
    WithoutLink,
    /// A registry has just made the folder, or removed what was in it.
    Empty,
}

/// An open repository.
#[derive(Debug)]
pub(super) struct Repository {
    name: String,
    directory: Directory,
    manifests: Directory,
}

impl Repository {
    /// The maximum length of a name, in bytes (distribution-spec: with the host, 255 characters).
    pub const MAX_NAME_BYTES: usize = 255;

    /// The repository in `directory`; `None` if it has no `_manifests`.
    pub fn new(name: &str, directory: Directory) -> Result<Option<Repository>> {
        let manifests = directory.subdirectory(MANIFESTS)?;
        Ok(manifests.map(|manifests| Repository { name: name.to_owned(), directory, manifests }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tags, in any order.
    ///
    /// Fails with `Invalid` if there are more than `MAX_TAGS`.
    pub fn tags(&self) -> Result<Tags> {
        let mut found = Tags::default();
        let Some(tags) = self.manifests.subdirectory(TAGS)? else { return Ok(found) };
        let mut names = Vec::new();
        tags.each_folder(MAX_TAGS, |name| {
            if is_tag(name) {
                names.push(name.to_owned());
            }
            Ok(())
        })
        .map_err(|e| e.at(tags.path().display()))?;
        for tag in names {
            match self.state(&tags, &tag) {
                Ok(TagState::Current) => found.current.push(tag),
                Ok(TagState::WithoutLink) => found.without_link.push(tag),
                Ok(TagState::Empty) => {}
                Err(error) => found.broken.push(error),
            }
        }
        Ok(found)
    }

    /// The state of the folder of `tag` in `tags`. Links are not read.
    fn state(&self, tags: &Directory, tag: &str) -> Result<TagState> {
        let Some(folder) = tags.subdirectory(tag)? else { return Ok(TagState::Empty) };
        let current = folder.subdirectory(CURRENT)?;
        if current.map(|current| current.size(link::LINK)).transpose()?.flatten().is_some() {
            return Ok(TagState::Current);
        }
        let has_index = folder.subdirectory(INDEX)?.is_some();
        Ok(if has_index { TagState::WithoutLink } else { TagState::Empty })
    }

    /// Whether `tag` has an index: it pointed at a manifest.
    pub fn has_index(&self, tag: &str) -> Result<bool> {
        Ok(is_tag(tag) && self.manifests.descend(&[TAGS, tag, INDEX])?.is_some())
    }

    /// The sentence about a tag that has an index and no link.
    pub fn without_link(&self, tag: &str) -> String {
        let name = &self.name;
        let path = self.manifests.path().join(TAGS).join(tag);
        let listed = self.indexed(tag).unwrap_or_default();
        let advice = match listed.first() {
            Some(first) => format!("its index lists {}; select {name}@{first}", some_of(&listed)),
            None => "its index lists no image".to_owned(),
        };
        format!(
            "{name}:{tag}: the tag's link {} is missing, unless a registry is just writing it; {advice}, or push the tag \
             again",
            path.join(CURRENT).join(link::LINK).display()
        )
    }

    /// Some of the digests of the manifests that `tag` pointed at.
    fn indexed(&self, tag: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let path = [TAGS, tag, INDEX, algorithm.name()];
            let Some(folder) = self.manifests.descend(&path)? else { continue };
            folder.each_folder(MAX_TAGS, |hex| {
                let digest = format!("{}:{hex}", algorithm.name()).parse::<Digest>();
                found.extend(digest.ok().filter(|_| found.len() < MAX_INDEXED).map(|digest| digest.to_string()));
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// The names of the tags that point at a manifest. Tags that cannot be read are left out.
    pub fn names(&self) -> Result<Vec<Name>> {
        self.tags()?.current.iter().map(|tag| image_name(&self.name, tag)).collect()
    }

    /// The manifest that `tag` points at; `None` if the repository does not have the tag.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn current(&self, tag: &str) -> Result<Option<Digest>> {
        if !is_tag(tag) {
            return Ok(None);
        }
        match self.manifests.descend(&[TAGS, tag, CURRENT])? {
            Some(current) => link::read(&current),
            None => Ok(None),
        }
    }

    /// The target of `tag`'s index link to `digest`, which a registry follows to delete the manifest; `None` if it is
    /// missing.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn tag_index(&self, tag: &str, digest: &Digest) -> Result<Option<Digest>> {
        match self.manifests.descend(&[TAGS, tag, INDEX])? {
            Some(index) => link::target(&index, digest),
            None => Ok(None),
        }
    }

    /// The data of the manifest `digest`; `None` if the repository does not have it.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn revision(&self, digest: &Digest) -> Result<Option<Digest>> {
        match self.manifests.subdirectory(REVISIONS)? {
            Some(revisions) => link::target(&revisions, digest),
            None => Ok(None),
        }
    }

    /// The digests that have a folder in `revisions`. A registry that deletes a manifest leaves the folder.
    ///
    /// Fails with `Invalid` if there are more than `MAX_REVISIONS`.
    pub fn revisions(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Some(folder) = self.manifests.descend(&[REVISIONS, algorithm.name()])? else { continue };
            folder
                .each_folder(MAX_REVISIONS, |hex| {
                    found.extend(format!("{}:{hex}", algorithm.name()).parse::<Digest>());
                    Ok(())
                })
                .map_err(|e| e.at(folder.path().display()))?;
        }
        Ok(found)
    }

    /// The data of the blob or manifest `digest`; `None` if the repository has no link to it.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn linked(&self, digest: &Digest) -> Result<Option<Digest>> {
        let layer = self.layer(digest)?;
        if layer.is_some() { Ok(layer) } else { self.revision(digest) }
    }

    /// The data of the blob `digest`; `None` if the repository has no layer link to it.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn layer(&self, digest: &Digest) -> Result<Option<Digest>> {
        match self.directory.subdirectory(LAYERS)? {
            Some(layers) => link::target(&layers, digest),
            None => Ok(None),
        }
    }

    /// The path of the layer link of `digest`, for messages.
    pub fn layer_path(&self, digest: &Digest) -> String {
        self.directory.display(&link_path(LAYERS, digest))
    }

    /// The path of the revision link of `digest`, for messages.
    pub fn revision_path(&self, digest: &Digest) -> String {
        self.manifests.display(&link_path(REVISIONS, digest))
    }

    /// The data of the manifest that `tag` points at, and its digest.
    ///
    /// Fails with `NotFound` if the tag is missing or dangles, and with `Invalid` if a link is broken.
    pub fn tagged(&self, tag: &str) -> Result<(Digest, Digest)> {
        let name = &self.name;
        let missing = || match self.has_index(tag) {
            Ok(true) => Error::not_found(self.without_link(tag)),
            _ => Error::not_found(format!("repository {name} has no tag {tag}")),
        };
        let digest = self.current(tag)?.ok_or_else(missing)?;
        Ok((digest, self.manifest(&digest).map_err(|e| e.at(format!("{name}:{tag}")))?))
    }

    /// The data of the manifest `digest`.
    ///
    /// Fails with `NotFound` if the repository has no revision link for it.
    pub fn manifest(&self, digest: &Digest) -> Result<Digest> {
        self.revision(digest)?.ok_or_else(|| {
            Error::not_found(format!(
                "manifest {digest} was deleted, or the tree is damaged: {} is missing; if the data still exists, \
                 :@{digest} reads it",
                self.revision_path(digest)
            ))
        })
    }
}

/// The path of the link of `digest` below `folder`.
fn link_path(folder: &str, digest: &Digest) -> String {
    format!("{folder}/{}/{}/{}", digest.algorithm().name(), digest.hex(), link::LINK)
}
