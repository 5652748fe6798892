//! Where pushes go: below one directory, an OCI layout for each repository at the path of its name, which every other
//! tool reads as `oci:DIR/team/app:TAG`. Each blob has a second name (a hard link) in `DIR/.imgmv-shared`, so that it
//! takes its space once however many repositories have it.

use super::catalog::{At, Backend, Repository, Wanted, as_manifest};
use super::reload::Live;
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

/// No part of a repository's name begins with a dot.
const POOL: &str = ".imgmv-shared";
/// What lies in a layout: a part of a name that is called so gets a `_` behind it, with which none ends.
const TAKEN: [&str; 3] = ["blobs", "index.json", "oci-layout"];
/// Layouts that are kept open.
const OPEN: usize = 64;
/// Directories that are looked into for a list of repositories, at most.
const LOOKED_INTO: usize = 100_000;

/// A directory of layouts that can be pushed to.
pub struct Target {
    dir: PathBuf,
    pool: PushedLayout,
    open: Mutex<HashMap<String, Arc<House>>>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// One repository.
struct House {
    layout: PushedLayout,
    live: Live<Housed>,
}

struct Housed {
    store: LayoutStore,
    /// Where in the store's entries each tag is.
    tags: BTreeMap<String, usize>,
}

impl Housed {
    fn tagged(&self, tag: &str) -> Option<&Descriptor> {
        self.tags.get(tag).map(|at| &self.store.entries()[*at].descriptor)
    }
}

impl Target {
    /// The directory `dir`, made if need be.
    ///
    /// Fails with `Unwritable` where it cannot be written.
    pub fn open(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<Target> {
        let pool = PushedLayout::pool(&dir.join(POOL), watch.clone(), cancel)?;
        Ok(Target { dir: dir.to_owned(), pool, open: Mutex::default(), watch, cancel: cancel.clone() })
    }

    /// What blobs are shared through.
    pub fn pool(&self) -> &PushedLayout {
        &self.pool
    }

    /// The layout of the repository `name`; `None` where nothing was pushed there.
    pub fn layout(&self, name: &str) -> Result<Option<PushedLayout>> {
        Ok(self.house(name)?.map(|house| house.layout.clone()))
    }

    /// The same, made where there is none.
    pub fn make_layout(&self, name: &str) -> Result<PushedLayout> {
        if let Some(layout) = self.layout(name)? {
            return Ok(layout);
        }
        PushedLayout::create(&self.path(name), self.watch.clone(), &self.cancel)
    }

    fn path(&self, name: &str) -> PathBuf {
        let parts = name.split('/').map(|part| match TAKEN.contains(&part) {
            true => format!("{part}_"),
            false => part.to_owned(),
        });
        self.dir.join(parts.collect::<PathBuf>())
    }

    fn house(&self, name: &str) -> Result<Option<Arc<House>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.path(name);
        match open.get(name) {
            Some(house) if house.layout.is_at(&dir) => return Ok(Some(house.clone())),
            // Removed, or another directory by now: what is written to the old one would be lost.
            Some(_) => drop(open.remove(name)),
            None => {}
        }
        let Some(layout) = PushedLayout::open(&dir, self.watch.clone(), &self.cancel)? else { return Ok(None) };
        let file = dir.join("index.json");
        let house = Arc::new(House { layout, live: Live::following(file, Duration::ZERO, move || housed(&dir)) });
        if open.len() >= OPEN {
            open.clear();
        }
        open.insert(name.to_owned(), house.clone());
        Ok(Some(house))
    }

    /// Removes uploads that nobody has gone on with for `life`, in every repository.
    pub fn expire(&self, life: Duration) -> Result<usize> {
        let mut expired = self.pool.expire(life);
        for name in self.repositories()? {
            self.cancel.check()?;
            expired += self.layout(&name)?.map_or(0, |layout| layout.expire(life));
        }
        Ok(expired)
    }
}

fn housed(dir: &Path) -> Result<Housed> {
    let store = LayoutStore::open(dir)?;
    let mut tags = BTreeMap::new();
    for (at, root) in store.entries().iter().enumerate() {
        let Some(name) = &root.name else { continue };
        let Some(tag) = name.tag() else { continue };
        // A full name, as another tool may have written it, is of less weight than the tag itself.
        match name.reference() {
            None => drop(tags.insert(tag, at)),
            Some(_) => drop(tags.entry(tag).or_insert(at)),
        }
    }
    Ok(Housed { store, tags })
}

impl Backend for Target {
    fn repositories(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut ahead = vec![(self.dir.clone(), String::new())];
        let mut looked_into = 0;
        while let Some((dir, name)) = ahead.pop() {
            looked_into += 1;
            if looked_into > LOOKED_INTO {
                break;
            }
            // A directory that goes away meanwhile has nothing in it.
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            let mut is_layout = false;
            for entry in entries.flatten() {
                let file = entry.file_name();
                let Some(file) = file.to_str() else { continue };
                is_layout |= file == "index.json";
                let part = file.strip_suffix('_').unwrap_or(file);
                let taken = TAKEN.contains(&file);
                if !taken && is_repository(part) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let below = if name.is_empty() { part.to_owned() } else { format!("{name}/{part}") };
                    ahead.push((entry.path(), below));
                }
            }
            if is_layout && !name.is_empty() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Pushed images are a mirror's too: what `?ns=` says is a path's beginning, if there is such a repository.
    fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>> {
        let prefixed = wanted.ns.as_ref().map(|ns| format!("{ns}/{}", wanted.name)).filter(|name| is_repository(name));
        let house = match prefixed.map(|name| self.house(&name)).transpose()?.flatten() {
            Some(house) => Some(house),
            None => self.house(&wanted.name)?,
        };
        Ok(match house {
            Some(house) => Some(Arc::new(Stored(house.live.now()?))),
            None => None,
        })
    }
}

struct Stored(Arc<Housed>);

impl Repository for Stored {
    fn tags(&self) -> Result<Vec<String>> {
        Ok(self.0.tags.keys().cloned().collect())
    }

    fn manifest(&self, at: &At) -> Result<Option<Manifest>> {
        let store = &self.0.store;
        match at {
            At::Tag(tag) => match self.0.tagged(tag) {
                Some(entry) => Manifest::parse(store.manifest(entry)?, entry).map(Some),
                None => Ok(None),
            },
            At::Digest(digest) => match store.find(digest)? {
                Some(claim) if claim.size <= MAX_MANIFEST_BYTES => Ok(as_manifest(store.manifest(&claim)?, &claim)),
                _ => Ok(None),
            },
        }
    }

    fn weight(&self, at: &At) -> Result<Option<u64>> {
        match at {
            At::Tag(tag) => Ok(self.0.tagged(tag).map(|entry| entry.size)),
            At::Digest(digest) => self.blob(digest),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.0.store.find(digest)?.map(|found| found.size))
    }

    /// The file itself: what is deleted meanwhile is still sent to its end.
    fn open(&self, digest: &Digest, _: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        let file = self.0.store.file(digest)?;
        let mut file = file.ok_or_else(|| Error::not_found(format!("blob {digest} was deleted just now")))?;
        file.seek(SeekFrom::Start(from)).map_err(|e| Error::reading(format!("blob {digest}"), e))?;
        Ok(Box::new(file))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.0.store.referrers(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn no_repository_lies_inside_anothers_layout() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(dir.path(), Arc::new(Silent), &Cancel::default()).unwrap();
        let names = ["a", "a/b", "a/blobs", "a/blobs/sha256", "a/index.json", "oci-layout", "blobs"];
        for name in names {
            target.make_layout(name).unwrap();
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
