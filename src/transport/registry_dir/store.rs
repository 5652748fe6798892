//! A tree as a source.

use super::image_name::{TreeReference, image_name};
use super::notes::{Broken, Notes};
use super::referrers;
use super::repository::Repository;
use super::served::ServedImage;
use super::tree::{REPOSITORIES, Tree, root};
use super::untagged;
use super::walk::each_repository;
use crate::error::{Error, Kind, Result};
use crate::image::{Attached, Descriptor, Digest, Image, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::progress::Watch;
use crate::source::{BrokenLinks, Profile, ReferrerList, Root, Selector, Store, select};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The maximum number of images that are listed.
const MAX_IMAGES: usize = 100_000;
/// The maximum number of tags without a link that are told.
const MAX_WITHOUT_LINK: usize = 20;

/// Every repository of a tree.
pub struct RegistryDirStore {
    tree: Arc<Tree>,
    /// The repositories of the images that were selected: their links lead to blobs that are stored by another digest.
    selected: Mutex<BTreeSet<String>>,
    /// The repositories in which each image was selected.
    places: Mutex<HashMap<Digest, BTreeSet<String>>>,
    notes: Notes,
}

impl RegistryDirStore {
    /// Opens the tree in `dir`, the `rootdirectory` of a registry or its `docker/registry/v2`.
    ///
    /// Fails with `NotFound` if `dir` does not exist, with `Usage` if it is a file, and with `Invalid` if it is not a
    /// tree.
    pub fn open(dir: &Path) -> Result<RegistryDirStore> {
        Ok(RegistryDirStore {
            tree: Arc::new(open(dir)?),
            selected: Mutex::default(),
            places: Mutex::default(),
            notes: Notes::default(),
        })
    }

    /// Sends messages about what is left out to `watch`.
    pub fn tell(mut self, watch: Arc<dyn Watch>) -> RegistryDirStore {
        self.notes = Notes::to(watch);
        self
    }

    /// The image that `text` names as `REPO[:TAG][@DIGEST]`; `None` if no repository has that name.
    fn named(&self, text: &str) -> Result<Option<Root>> {
        let mut without_link = None;
        for asked in TreeReference::candidates(text) {
            let Some(repository) = self.tree.repository(&asked.repository)? else { continue };
            if let Some(digest) = asked.digest {
                let name = Name::new(format!("{}@{digest}", name_of(&repository)))?;
                return self.root(&repository, Some(name), &digest, &repository.manifest(&digest)?).map(Some);
            }
            let tag = asked.tag_or_latest();
            if repository.current(tag)?.is_some() {
                return self.tagged(&repository, tag).map(Some);
            }
            if repository.has_index(tag)? {
                without_link.get_or_insert_with(|| repository.without_link(tag));
            }
        }
        without_link.map_or(Ok(None), |sentence| Err(Error::not_found(sentence)))
    }

    /// The names of the tags of the repository `text`; `None` if `text` has a tag or a digest, or names no repository.
    pub fn tags_of(&self, text: &str) -> Result<Option<Vec<Name>>> {
        for asked in TreeReference::candidates(text).iter().filter(|one| one.tag.is_none() && one.digest.is_none()) {
            let Some(repository) = self.tree.repository(&asked.repository)? else { continue };
            let (tags, name) = (repository.tags()?, repository.name());
            let without_link = tags.without_link.iter().take(MAX_WITHOUT_LINK);
            without_link.for_each(|tag| self.notes.say(repository.without_link(tag)));
            let mut broken = Broken::default();
            tags.broken.iter().for_each(|error| broken.add(error));
            let broken = broken.sentence();
            broken
                .into_iter()
                .for_each(|why| self.notes.say(format!("{name}: not listed, since it cannot be read: {why}")));
            if tags.current.is_empty() {
                self.notes.say(format!("repository {name} has no tag"));
            }
            let mut names: Vec<Name> = tags.current.iter().map(|tag| image_name(name, tag)).collect::<Result<_>>()?;
            names.sort();
            return Ok(Some(names));
        }
        Ok(None)
    }

    fn tagged(&self, repository: &Repository, tag: &str) -> Result<Root> {
        let (digest, data) = repository.tagged(tag)?;
        self.root(repository, Some(image_name(repository.name(), tag)?), &digest, &data)
    }

    fn root(&self, repository: &Repository, name: Option<Name>, digest: &Digest, data: &Digest) -> Result<Root> {
        let label = name.as_ref().map_or_else(|| repository.name().to_owned(), Name::to_string);
        let root = root_at(&self.tree, name, digest, data).map_err(|e| e.at(label))?;
        self.selected().insert(repository.name().to_owned());
        self.places().entry(*digest).or_default().insert(repository.name().to_owned());
        Ok(root)
    }

    /// All images. Those that are broken are an error, which names them.
    fn all(&self) -> Result<Vec<Root>> {
        let (mut roots, mut broken) = (Vec::new(), Broken::default());
        let without_link = self.each_tag(&mut broken, |repository, tag, broken| {
            self.bounded(roots.len() + broken.count)?;
            match self.tagged(repository, tag) {
                Ok(root) => roots.push(root),
                Err(error) => broken.add(&error.at_once(&format!("{}:{tag}", repository.name()))),
            }
            Ok(())
        })?;
        match broken.count {
            0 => {
                without_link.into_iter().for_each(|sentence| self.notes.say(sentence));
                untagged::sentences(&self.tree, &roots).into_iter().for_each(|sentence| self.notes.say(sentence));
                Ok(roots)
            }
            count => Err(Error::several(
                Kind::Invalid,
                &format!(
                    "{}: {count} of {} images cannot be read; select the others by name:",
                    self.tree.describe(),
                    roots.len() + count
                ),
                &broken.shown,
            )),
        }
    }

    /// Calls `each` with every tag that has a link. What cannot be read is added to `broken`. Returns sentences about the
    /// tags whose link is missing.
    fn each_tag(
        &self,
        broken: &mut Broken,
        mut each: impl FnMut(&Repository, &str, &mut Broken) -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut without_link = Vec::new();
        each_repository(&self.tree, |found| {
            let (repository, tags) = match found.and_then(|repository| Ok((repository.tags()?, repository))) {
                Ok((tags, repository)) => (repository, tags),
                Err(error) => {
                    broken.add(&error);
                    return Ok(());
                }
            };
            tags.broken.iter().for_each(|error| broken.add(error));
            let room = MAX_WITHOUT_LINK.saturating_sub(without_link.len());
            without_link.extend(tags.without_link.iter().take(room).map(|tag| repository.without_link(tag)));
            tags.current.iter().try_for_each(|tag| each(&repository, tag, broken))
        })?;
        Ok(without_link)
    }

    fn bounded(&self, count: usize) -> Result<()> {
        match count >= MAX_IMAGES {
            true => Err(Error::invalid(format!(
                "{} has more than {MAX_IMAGES} images; select some of them as registry-dir:DIR:REPO:TAG",
                self.tree.describe()
            ))),
            false => Ok(()),
        }
    }

    /// Selects among all names, without reading a manifest.
    fn searched(&self, selector: &Selector) -> Result<Root> {
        let (mut all, mut broken) = (Vec::new(), Broken::default());
        self.each_tag(&mut broken, |repository, tag, _| {
            self.bounded(all.len())?;
            // A broken link is reported for the image that is selected.
            if let Ok(Some(digest)) = repository.current(tag) {
                let name = image_name(repository.name(), tag)?;
                all.push(Root::new(Some(name), Descriptor::new("", digest, 0)));
            }
            Ok(())
        })?;
        let found = select(&all, std::slice::from_ref(selector)).map_err(|error| match broken.sentence() {
            Some(broken) if error.kind() == Kind::NotFound => {
                Error::not_found(format!("{error}; not searched, since it cannot be read: {broken}"))
            }
            _ => error,
        });
        let name = found.map_err(|e| e.at(self.tree.describe()))?.pop().and_then(|root| root.name);
        let name = name.map(|name| name.to_string()).unwrap_or_default();
        self.named(&name)?.ok_or_else(|| Error::not_found(format!("image {name} was removed while imgmv read it")))
    }

    fn selected(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.selected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Digest, BTreeSet<String>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn selected_repositories(&self) -> Result<Vec<Repository>> {
        let selected = self.selected().clone();
        self.repositories(&selected)
    }

    fn repositories(&self, names: &BTreeSet<String>) -> Result<Vec<Repository>> {
        let open = |name: &String| self.tree.repository(name).transpose();
        names.iter().filter_map(open).collect()
    }

    /// The digest by which the blob `digest` is stored; `None` if it is missing.
    fn stored(&self, digest: &Digest) -> Result<Option<Digest>> {
        if self.tree.size(digest)?.is_some() {
            return Ok(Some(*digest));
        }
        let selected = self.selected().clone();
        for name in selected {
            let Some(repository) = self.tree.repository(&name)? else { continue };
            if let Some(data) = repository.linked(digest)?
                && self.tree.size(&data)?.is_some()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Opens the tree in `dir`, which must exist.
pub(super) fn open(dir: &Path) -> Result<Tree> {
    if let Some(tree) = Tree::open(dir)? {
        return Ok(tree);
    }
    let shown = dir.display();
    let Some(found) = super::tree::open(&root(dir))? else {
        return Err(Error::not_found(format!("no registry's storage tree at {shown}: the directory does not exist")));
    };
    let other = match found.size("oci-layout")? {
        Some(_) => "it is an OCI layout; write oci:DIR",
        None => "it has no docker/registry/v2; name the rootdirectory of the registry's configuration",
    };
    Err(Error::invalid(format!("{shown} is not a registry's storage tree: {other}")))
}

/// The name of `repository` in the names of its images.
fn name_of(repository: &Repository) -> String {
    let name = image_name(repository.name(), "x").map(|name| name.to_string()).unwrap_or_default();
    name.strip_suffix(":x").unwrap_or_default().to_owned()
}

/// The root `digest`, whose manifest is stored as `data`.
pub(super) fn root_at(tree: &Tree, name: Option<Name>, digest: &Digest, data: &Digest) -> Result<Root> {
    let bytes = tree.read(data, MAX_MANIFEST_BYTES)?.ok_or_else(|| missing(tree, "manifest", data))?;
    let claim = Descriptor::new("", *digest, bytes.len() as u64);
    let manifest = Manifest::parse(bytes, &claim).map_err(|e| e.at(tree.blob_path(data)))?;
    Ok(Root::new(name, manifest.descriptor))
}

/// The file of the blob that is stored as `data`.
pub(super) fn file(tree: &Tree, data: Option<Digest>, blob: &Digest) -> Result<File> {
    let file = data.map(|data| tree.blob(&data)).transpose()?.flatten();
    file.ok_or_else(|| missing(tree, "blob", blob))
}

/// The raw manifest that is stored as `data`.
pub(super) fn manifest(tree: &Tree, data: Option<Digest>, digest: &Digest) -> Result<Vec<u8>> {
    let bytes = data.map(|data| tree.read(&data, MAX_MANIFEST_BYTES)).transpose()?.flatten();
    bytes.ok_or_else(|| missing(tree, "manifest", digest))
}

fn missing(tree: &Tree, what: &str, digest: &Digest) -> Error {
    Error::not_found(format!(
        "{what} {digest} is not in the tree: {} is missing; a garbage collection removed it, or the disk is damaged",
        tree.blob_path(digest)
    ))
}

impl Store for RegistryDirStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        if selectors.is_empty() {
            return self.all();
        }
        let one = |selector: &Selector| match selector {
            Selector::Name(text) => match self.named(text)? {
                Some(root) => Ok(root),
                None => self.searched(selector),
            },
            Selector::Digest(digest) => root_at(&self.tree, None, digest, digest),
        };
        selectors.iter().map(one).collect()
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        manifest(&self.tree, self.stored(&at.digest)?, &at.digest)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut file = file(&self.tree, self.stored(&blob.digest)?, &blob.digest)?;
        if from > 0 {
            let sought = file.seek(SeekFrom::Start(from));
            sought.map_err(|e| Error::reading(format!("blob {} in {}", blob.digest, self.tree.describe()), e))?;
        }
        Ok(Box::new(file))
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        let stored = self.stored(digest).ok().flatten();
        Some(self.tree.blob_path(&stored.unwrap_or(*digest)))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let Some(data) = self.stored(digest)? else { return Ok(None) };
        Ok(self.tree.size(&data)?.map(|size| Descriptor::new("", *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        let (mut names, mut broken) = (Vec::new(), Broken::default());
        let without_link = self.each_tag(&mut broken, |repository, tag, _| {
            self.bounded(names.len())?;
            names.push(image_name(repository.name(), tag)?);
            Ok(())
        })?;
        without_link.into_iter().for_each(|sentence| self.notes.say(sentence));
        if let Some(sentence) = broken.sentence() {
            self.notes.say(format!("{}: not listed, since it cannot be read: {sentence}", self.tree.describe()));
        }
        Ok(names)
    }

    /// In the repositories of the images that were selected.
    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        let mut found = ReferrerList::default();
        for repository in self.selected_repositories()? {
            found.merge(ReferrerList::from(referrers::list(&self.tree, &repository, subject)?));
        }
        Ok(found)
    }

    /// As [`RegistryDirStore::referrers`]; of each tag the first one.
    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        let mut found: Vec<(String, Descriptor)> = Vec::new();
        for repository in self.selected_repositories()? {
            for (tag, at) in referrers::digest_tagged(&self.tree, &repository, subject)? {
                if found.iter().all(|(known, _)| *known != tag) {
                    found.push((tag, at));
                }
            }
        }
        Ok(found)
    }

    /// In each repository in which the image was selected by a name.
    fn broken_links(&self, image: &Image) -> Result<BrokenLinks> {
        let names = self.places().get(&image.source_digest).cloned().unwrap_or_default();
        let own = self.repositories(&names)?;
        let mut served = ServedImage::new(&self.tree);
        for repository in &own {
            image.found_manifests().for_each(|manifest| served.check(repository, manifest));
        }
        for Attached { manifest, .. } in image.attached.iter().filter(|_| !own.is_empty()) {
            // Another repository of the copy may have it instead.
            let has = |one: &&Repository| !matches!(one.revision(&manifest.digest()), Ok(None));
            match own.iter().find(has) {
                Some(repository) => served.check(repository, manifest),
                None => match (self.selected_repositories()?.iter().find(has), own.first()) {
                    (Some(repository), _) | (None, Some(repository)) => served.check(repository, manifest),
                    (None, None) => {}
                },
            }
        }
        Ok(served.broken)
    }

    /// A registry's tree may have an index with only some of its images: a copy of another tool or of imgmv wrote it.
    fn profile(&self) -> Profile {
        let empty_message = format!("{} has no image: no tag is in {REPOSITORIES}", self.tree.describe());
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}
