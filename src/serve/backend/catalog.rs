//! The traits of backends and repositories, and the catalog of all backends of a server. All of it may block; the
//! server calls it on blocking threads.

use crate::error::Result;
use crate::image::{Descriptor, Digest, MAX_MANIFEST, Manifest};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

/// The `<reference>` of a manifest: a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    Tag(String),
    Digest(Digest),
}

/// A request for a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The name in the request's path; only its syntax is checked.
    pub name: String,
    /// The registry for which a client asks a mirror (containerd's `?ns=`), as the client wrote it.
    pub ns: Option<String>,
    /// The authenticated user.
    pub user: Option<String>,
    pub search: Search,
}

/// The places that a server searches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Search {
    /// This server, then peers and upstream registries.
    #[default]
    Anywhere,
    /// Only this server: the client is another server, and forwarding its request could form a cycle.
    Here,
}

/// The freshness of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Now,
    /// The last known answer, because upstream does not respond now.
    Last,
}

/// The result of a prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// This repository needs no prefetch.
    Here,
    /// The manifest was not found upstream or at a peer.
    Nowhere,
    /// The manifest is available under this digest without further waiting.
    At(Digest, Known),
}

/// A source of repositories.
pub trait Backend: Send + Sync {
    /// The names of all known repositories, in any order.
    fn repositories(&self) -> Result<Vec<String>>;
    /// The requested repository, if this backend has it. Must be cheap: it is called for every request.
    fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>>;
}

/// A snapshot of one repository. Missing content is `None`, not an error.
pub trait Repository: Send + Sync {
    /// Every tag, in any order.
    fn tags(&self) -> Result<Vec<String>>;
    /// Returns a manifest whose digest was verified.
    fn manifest(&self, at: &At) -> Result<Option<Manifest>>;
    /// Does slow upstream work (resolve a tag, fetch a missing manifest) before the caller takes memory for the
    /// manifest.
    fn settle(&self, _at: &At) -> Result<Settled> {
        Ok(Settled::Here)
    }
    /// The size of a manifest in bytes, if it is known without reading it. A large manifest then waits for memory.
    fn weight(&self, _at: &At) -> Result<Option<u64>> {
        Ok(None)
    }
    /// The size of a blob in bytes.
    fn blob(&self, digest: &Digest) -> Result<Option<u64>>;
    /// Opens a blob of `size` bytes at offset `from`. The reader may stay idle for minutes, so it must not occupy more
    /// than a buffer. If no bytes are available yet (the blob is still downloading), the reader returns `WouldBlock`
    /// instead of blocking the thread, and is polled again.
    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>>;
    /// The manifests that have `subject` as their subject.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;
}

/// All backends of a server, in order of precedence.
#[derive(Clone, Default)]
pub struct Catalog {
    shelves: Vec<Arc<dyn Backend>>,
}

impl Catalog {
    /// Adds a backend with lower precedence than the existing ones.
    pub fn add(&mut self, shelf: Arc<dyn Backend>) {
        self.shelves.push(shelf);
    }

    pub fn is_empty(&self) -> bool {
        self.shelves.is_empty()
    }

    /// Every repository name once, in lexical order.
    pub fn repositories(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for shelf in &self.shelves {
            names.extend(shelf.repositories()?);
        }
        Ok(names)
    }

    /// The requested repository, merged from all backends that have it.
    pub fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>> {
        let mut found = Vec::new();
        let mut failure = None;
        for shelf in &self.shelves {
            match shelf.repository(wanted) {
                Ok(repository) => found.extend(repository),
                Err(error) => failure = Some(error),
            }
        }
        match (found.len(), failure) {
            (0, Some(error)) => Err(error),
            (0, None) => Ok(None),
            (1, _) => Ok(found.pop()),
            _ => Ok(Some(Arc::new(Several(found)))),
        }
    }
}

/// Repositories of the same name from several backends, merged.
struct Several(Vec<Arc<dyn Repository>>);

impl Several {
    /// The first result. A failure counts only if no other repository has a result.
    fn first<T>(&self, ask: impl Fn(&dyn Repository) -> Result<Option<T>>) -> Result<Option<T>> {
        let mut failure = None;
        for repository in &self.0 {
            match ask(&**repository) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

impl Repository for Several {
    fn tags(&self) -> Result<Vec<String>> {
        let (mut tags, mut failure) = (BTreeSet::new(), None);
        for repository in &self.0 {
            match repository.tags() {
                Ok(own) => tags.extend(own),
                Err(error) => failure = Some(error),
            }
        }
        // A failure does not hide the tags of other repositories.
        failure.filter(|_| tags.is_empty()).map_or_else(|| Ok(tags.into_iter().collect()), Err)
    }

    fn manifest(&self, at: &At) -> Result<Option<Manifest>> {
        self.first(|repository| repository.manifest(at))
    }

    fn settle(&self, at: &At) -> Result<Settled> {
        let mut settled = Settled::Here;
        for repository in &self.0 {
            settled = repository.settle(at)?;
            let has = || matches!(repository.weight(at), Ok(Some(_))) || matches!(repository.manifest(at), Ok(Some(_)));
            if matches!(settled, Settled::At(..)) || settled == Settled::Here && has() {
                break;
            }
        }
        Ok(settled)
    }

    fn weight(&self, at: &At) -> Result<Option<u64>> {
        self.first(|repository| repository.weight(at))
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        self.first(|repository| repository.blob(digest))
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        let has = |repository: &&Arc<dyn Repository>| matches!(repository.blob(digest), Ok(Some(_)));
        let holder = self.0.iter().find(has).unwrap_or(&self.0[0]);
        holder.open(digest, size, from)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut all: Vec<Descriptor> = Vec::new();
        for repository in &self.0 {
            for referrer in repository.referrers(subject)? {
                if all.iter().all(|known| known.digest != referrer.digest) {
                    all.push(referrer);
                }
            }
        }
        Ok(all)
    }
}

/// Parses `bytes` as the manifest that `claim` describes; `None` if they are not a manifest, for example if a client
/// requested a layer as a manifest.
pub fn as_manifest(bytes: Vec<u8>, claim: &Descriptor) -> Option<Manifest> {
    (bytes.len() as u64 <= MAX_MANIFEST).then(|| Manifest::parse(bytes, claim).ok()).flatten()
}
