//! One repository of a tree as a source, and all repositories by name, for `imgmv serve`. Each request reads the tree,
//! so what another process writes is served at once.

use super::hashed_reads::HashedReads;
use super::notes::Notes;
use super::referrers;
use super::repository::Repository;
use super::store::{file, manifest, open, root_at};
use super::tree::Tree;
use super::walk::each_repository;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Name};
use crate::progress::Watch;
use crate::source::{ReferrerList, Repositories, Root, Selector, Store};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The repositories of a tree.
pub struct TreeRepositories {
    tree: Arc<Tree>,
    notes: Notes,
}

impl TreeRepositories {
    /// Opens the tree in `dir`.
    ///
    /// Fails like [`super::RegistryDirStore::open`].
    pub fn open(dir: &Path) -> Result<TreeRepositories> {
        Ok(TreeRepositories { tree: Arc::new(open(dir)?), notes: Notes::default() })
    }

    /// Sends messages about what is left out to `watch`.
    pub fn tell(mut self, watch: Arc<dyn Watch>) -> TreeRepositories {
        self.notes = Notes::to(watch);
        self
    }
}

impl Repositories for TreeRepositories {
    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        each_repository(&self.tree, |found| {
            match found {
                Ok(repository) => names.push(repository.name().to_owned()),
                Err(error) => self.notes.say(format!("{error}; it is left out of the list of repositories")),
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        let Some(repository) = self.tree.repository(name)? else { return Ok(None) };
        Ok(Some(Arc::new(RepositoryStore { tree: self.tree.clone(), repository, reads: HashedReads::default() })))
    }
}

/// One repository, opened for one request. As in a registry, it has the blobs and manifests that it has links to.
struct RepositoryStore {
    tree: Arc<Tree>,
    repository: Repository,
    reads: HashedReads,
}

impl Store for RepositoryStore {
    /// A selector by name is a tag.
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let one = |selector: &Selector| {
            let (digest, data) = match selector {
                Selector::Name(tag) => self.repository.tagged(tag)?,
                Selector::Digest(digest) => (*digest, self.repository.manifest(digest)?),
            };
            root_at(&self.tree, None, &digest, &data)
        };
        selectors.iter().map(one).collect()
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        manifest(&self.tree, self.repository.linked(&at.digest)?, &at.digest)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let file = file(&self.tree, self.repository.linked(&blob.digest)?, &blob.digest)?;
        Ok(Box::new(self.reads.read(file, blob, from)?))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let Some(data) = self.repository.linked(digest)? else { return Ok(None) };
        Ok(self.tree.size(&data)?.map(|size| Descriptor::new("", *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        self.repository.names()
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        referrers::list(&self.tree, &self.repository, subject).map(ReferrerList::from)
    }

    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        referrers::digest_tagged(&self.tree, &self.repository, subject)
    }
}
