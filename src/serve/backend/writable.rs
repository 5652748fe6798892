//! The destination of pushes: a directory with one OCI layout per repository, at the path of its name, which other
//! tools read as `oci:DIR/team/app:TAG`. Each blob has a hard link in `DIR/.imgmv-shared`, so a blob in several
//! repositories takes its space once.

use super::catalog::{Backend, Repository, RepositoryRequest, TagOrDigest, parse_if_manifest};
use super::reload::Reloading;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, is_repository};
use crate::progress::Watch;
use crate::source::Store;
use crate::transport::layout::{LayoutStore, PushedLayout};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The directory of shared blobs; a part of a repository name cannot start with a dot.
const SHARED_DIR: &str = ".imgmv-shared";
/// Names of files in a layout. A name part that equals one of them gets the suffix `_`, which a name part cannot have.
const RESERVED_NAMES: [&str; 3] = ["blobs", "index.json", "oci-layout"];
/// The maximum number of open layouts.
const MAX_OPEN_LAYOUTS: usize = 64;
/// The maximum number of directories that are read for a list of repositories.
const MAX_DIRECTORIES: usize = 100_000;

/// A directory of layouts that accepts pushes.
pub struct WritableBackend {
    dir: PathBuf,
    pool: PushedLayout,
    open: Mutex<HashMap<String, Arc<OpenRepository>>>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One open repository.
struct OpenRepository {
    layout: PushedLayout,
    loaded: Reloading<LoadedLayout>,
}

struct LoadedLayout {
    store: LayoutStore,
    /// The index of each tag in the store's entries.
    tags: BTreeMap<String, usize>,
}

impl LoadedLayout {
    fn by_tag(&self, tag: &str) -> Option<&Descriptor> {
        self.tags.get(tag).map(|at| &self.store.entries()[*at].descriptor)
    }
}

impl WritableBackend {
    /// Opens the directory `dir`; creates it if it does not exist.
    ///
    /// Fails with `Unwritable` if the directory cannot be written.
    pub fn open(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<WritableBackend> {
        let pool = PushedLayout::pool(&dir.join(SHARED_DIR), watch.clone(), cancel)?;
        Ok(WritableBackend { dir: dir.to_owned(), pool, open: Mutex::default(), watch, cancel: cancel.clone() })
    }

    /// The directory of shared blobs.
    pub fn pool(&self) -> &PushedLayout {
        &self.pool
    }

    /// The layout of the repository `name`; `None` if nothing was pushed to it.
    pub fn layout(&self, name: &str) -> Result<Option<PushedLayout>> {
        Ok(self.open_repository(name)?.map(|open_repository| open_repository.layout.clone()))
    }

    /// The layout of the repository `name`; creates it if it does not exist.
    pub fn create_layout(&self, name: &str) -> Result<PushedLayout> {
        if let Some(layout) = self.layout(name)? {
            return Ok(layout);
        }
        PushedLayout::create(&self.path(name), self.watch.clone(), &self.cancel)
    }

    fn path(&self, name: &str) -> PathBuf {
        let parts = name.split('/').map(|part| match RESERVED_NAMES.contains(&part) {
            true => format!("{part}_"),
            false => part.to_owned(),
        });
        self.dir.join(parts.collect::<PathBuf>())
    }

    fn open_repository(&self, name: &str) -> Result<Option<Arc<OpenRepository>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.path(name);
        match open.get(name) {
            Some(open_repository) if open_repository.layout.is_at(&dir) => return Ok(Some(open_repository.clone())),
            // The directory was removed or replaced; writes to the open one would be lost.
            Some(_) => drop(open.remove(name)),
            None => {}
        }
        let Some(layout) = PushedLayout::open(&dir, self.watch.clone(), &self.cancel)? else { return Ok(None) };
        let file = dir.join("index.json");
        let open_repository = Arc::new(OpenRepository {
            layout,
            loaded: Reloading::new(vec![file], Duration::ZERO, move || load_layout(&dir)),
        });
        if open.len() >= MAX_OPEN_LAYOUTS {
            open.clear();
        }
        open.insert(name.to_owned(), open_repository.clone());
        Ok(Some(open_repository))
    }

    /// Prunes uploads that were not written for `lifetime`, in every repository; returns their number.
    pub fn prune_uploads(&self, lifetime: Duration) -> Result<usize> {
        let mut pruned = self.pool.remove_expired(lifetime);
        for name in self.repositories()? {
            self.cancel.check()?;
            pruned += self.layout(&name)?.map_or(0, |layout| layout.remove_expired(lifetime));
        }
        Ok(pruned)
    }
}

fn load_layout(dir: &Path) -> Result<LoadedLayout> {
    let store = LayoutStore::open(dir)?;
    let mut tags = BTreeMap::new();
    for (at, entry) in store.entries().iter().enumerate() {
        let Some(name) = &entry.name else { continue };
        let Some(tag) = name.tag() else { continue };
        // A plain tag takes precedence over a full name, which another tool may have written.
        match name.reference() {
            None => drop(tags.insert(tag, at)),
            Some(_) => drop(tags.entry(tag).or_insert(at)),
        }
    }
    Ok(LoadedLayout { store, tags })
}

impl Backend for WritableBackend {
    fn repositories(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut pending = vec![(self.dir.clone(), String::new())];
        let mut directories = 0;
        while let Some((dir, name)) = pending.pop() {
            directories += 1;
            if directories > MAX_DIRECTORIES {
                break;
            }
            // A directory that was removed in the meantime counts as empty.
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            let mut is_layout = false;
            for entry in entries.flatten() {
                let file = entry.file_name();
                let Some(file) = file.to_str() else { continue };
                is_layout |= file == "index.json";
                let part = file.strip_suffix('_').unwrap_or(file);
                let reserved = RESERVED_NAMES.contains(&file);
                if !reserved && is_repository(part) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let below = if name.is_empty() { part.to_owned() } else { format!("{name}/{part}") };
                    pending.push((entry.path(), below));
                }
            }
            if is_layout && !name.is_empty() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// With `?ns=`, the repository `NS/NAME` takes precedence if it exists: pushed images are also served by a mirror.
    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let prefixed =
            request.ns.as_ref().map(|ns| format!("{ns}/{}", request.name)).filter(|name| is_repository(name));
        let open_repository = match prefixed.map(|name| self.open_repository(&name)).transpose()?.flatten() {
            Some(open_repository) => Some(open_repository),
            None => self.open_repository(&request.name)?,
        };
        Ok(match open_repository {
            Some(open_repository) => Some(Arc::new(WritableRepository(open_repository.loaded.current()?))),
            None => None,
        })
    }
}

struct WritableRepository(Arc<LoadedLayout>);

impl Repository for WritableRepository {
    fn tags(&self) -> Result<Vec<String>> {
        Ok(self.0.tags.keys().cloned().collect())
    }

    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>> {
        let store = &self.0.store;
        match at {
            TagOrDigest::Tag(tag) => match self.0.by_tag(tag) {
                Some(entry) => Manifest::parse(store.manifest(entry)?, entry).map(Some),
                None => Ok(None),
            },
            TagOrDigest::Digest(digest) => match store.find(digest)? {
                Some(descriptor) if descriptor.size <= MAX_MANIFEST_BYTES => {
                    Ok(parse_if_manifest(store.manifest(&descriptor)?, &descriptor))
                }
                _ => Ok(None),
            },
        }
    }

    fn manifest_size(&self, at: &TagOrDigest) -> Result<Option<u64>> {
        match at {
            TagOrDigest::Tag(tag) => Ok(self.0.by_tag(tag).map(|entry| entry.size)),
            TagOrDigest::Digest(digest) => self.blob(digest),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.0.store.find(digest)?.map(|found| found.size))
    }

    /// Opens the file once, so that a blob deleted in the meantime is still sent completely.
    fn open(&self, digest: &Digest, _: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        let file = self.0.store.file(digest)?;
        let mut file = file.ok_or_else(|| Error::not_found(format!("blob {digest} was deleted during the request")))?;
        file.seek(SeekFrom::Start(from)).map_err(|e| Error::reading(format!("blob {digest}"), e))?;
        Ok(Box::new(file))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.0.store.referrers(subject)?.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn no_repository_lies_inside_anothers_layout() {
        let dir = tempfile::tempdir().unwrap();
        let target = WritableBackend::open(dir.path(), Arc::new(Silent), &Cancel::default()).unwrap();
        let names = ["a", "a/b", "a/blobs", "a/blobs/sha256", "a/index.json", "oci-layout", "blobs"];
        for name in names {
            target.create_layout(name).unwrap();
        }
        let mut found = target.repositories().unwrap();
        found.sort();
        let mut sorted = names;
        sorted.sort();
        assert_eq!(found, sorted);
        assert!(dir.path().join("a/blobs_/sha256/index.json").exists());
        assert!(!dir.path().join("a/blobs/sha256").exists());
    }
}
