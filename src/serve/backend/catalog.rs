//! The traits of backends and repositories, and the catalog of all backends of a server. All of it may block; the
//! server calls it on blocking threads.

use crate::error::Result;
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;

/// The `<reference>` of a manifest: a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    Tag(String),
    Digest(Digest),
}

/// A request for a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryRequest {
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
    Everywhere,
    /// Only this server: the client is another server, and forwarding its request could form a cycle.
    Local,
}

/// The freshness of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Current,
    /// The last known result, because upstream does not respond now.
    LastKnown,
}

/// The result of a prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetched {
    /// This repository needs no prefetch.
    NotNeeded,
    /// The manifest was not found upstream or at a peer.
    NotFound,
    /// The manifest is available under this digest without further waiting.
    Found(Digest, Freshness),
}

/// A source of repositories.
pub trait Backend: Send + Sync {
    /// The names of all known repositories, in any order.
    fn repositories(&self) -> Result<Vec<String>>;
    /// The requested repository, if this backend has it. Must be cheap: it is called for every request.
    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>>;
}

/// A snapshot of one repository. Missing content is `None`, not an error.
pub trait Repository: Send + Sync {
    /// Every tag, in any order.
    fn tags(&self) -> Result<Vec<String>>;
    /// Returns a manifest whose digest was verified.
    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>>;
    /// Does slow upstream work (resolve a tag, fetch a missing manifest) before the caller takes memory for the
    /// manifest.
    fn prefetch(&self, _at: &TagOrDigest) -> Result<Prefetched> {
        Ok(Prefetched::NotNeeded)
    }
    /// The size of a manifest in bytes, if it is known without reading it. A large manifest then waits for memory.
    fn manifest_size(&self, _at: &TagOrDigest) -> Result<Option<u64>> {
        Ok(None)
    }
    /// The size of a blob in bytes.
    fn blob(&self, digest: &Digest) -> Result<Option<u64>>;
    /// Opens a blob of `size` bytes at offset `from`. The reader may stay idle for minutes, so it must not occupy more
    /// than a buffer. While the blob is still downloading, the reader must not block the thread: it returns
    /// `WouldBlock`, and is polled again.
    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>>;
    /// The manifests that have `subject` as their subject.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;
}

/// All backends of a server, in order of precedence.
#[derive(Clone, Default)]
pub struct Catalog {
    backends: Vec<Arc<dyn Backend>>,
}

impl Catalog {
    /// Adds a backend with lower precedence than the existing ones.
    pub fn add(&mut self, backend: Arc<dyn Backend>) {
        self.backends.push(backend);
    }

    /// Every repository name once, in lexical order.
    pub fn repositories(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for backend in &self.backends {
            names.extend(backend.repositories()?);
        }
        Ok(names)
    }

    /// The requested repository, merged from all backends that have it.
    pub fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let mut found = Vec::new();
        let mut failure = None;
        for backend in &self.backends {
            match backend.repository(request) {
                Ok(repository) => found.extend(repository),
                Err(error) => failure = Some(error),
            }
        }
        match (found.len(), failure) {
            (0, Some(error)) => Err(error),
            (0, None) => Ok(None),
            (1, _) => Ok(found.pop()),
            _ => Ok(Some(Arc::new(MergedRepository(found)))),
        }
    }
}

/// Repositories of the same name from several backends, merged.
struct MergedRepository(Vec<Arc<dyn Repository>>);

impl MergedRepository {
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

impl Repository for MergedRepository {
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

    fn manifest(&self, at: &TagOrDigest) -> Result<Option<Manifest>> {
        self.first(|repository| repository.manifest(at))
    }

    fn prefetch(&self, at: &TagOrDigest) -> Result<Prefetched> {
        let mut prefetched = Prefetched::NotNeeded;
        for repository in &self.0 {
            prefetched = repository.prefetch(at)?;
            let has = || {
                matches!(repository.manifest_size(at), Ok(Some(_))) || matches!(repository.manifest(at), Ok(Some(_)))
            };
            if matches!(prefetched, Prefetched::Found(..)) || prefetched == Prefetched::NotNeeded && has() {
                break;
            }
        }
        Ok(prefetched)
    }

    fn manifest_size(&self, at: &TagOrDigest) -> Result<Option<u64>> {
        self.first(|repository| repository.manifest_size(at))
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        self.first(|repository| repository.blob(digest))
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        let has = |repository: &&Arc<dyn Repository>| matches!(repository.blob(digest), Ok(Some(_)));
        let holder = self.0.iter().find(has).unwrap_or(&self.0[0]);
        holder.open(digest, size, from)
    }

    /// A failure counts, unless a repository that has the subject itself lists its referrers: an empty list would say that
    /// the image is not signed.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let (mut all, mut known): (Vec<Descriptor>, HashSet<Digest>) = Default::default();
        let (mut answered, mut failure) = (Vec::new(), None);
        for repository in &self.0 {
            match repository.referrers(subject) {
                Ok(found) => {
                    all.extend(found.into_iter().filter(|referrer| known.insert(referrer.digest)));
                    answered.push(repository);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !answered.iter().any(|one| matches!(one.blob(subject), Ok(Some(_)))) => Err(error),
            _ => Ok(all),
        }
    }
}

/// Parses `bytes` as the manifest that `descriptor` describes; `None` if they are not a manifest, for example if a client
/// requested a layer as a manifest.
pub fn parse_if_manifest(bytes: Vec<u8>, descriptor: &Descriptor) -> Option<Manifest> {
    (bytes.len() as u64 <= MAX_MANIFEST_BYTES).then(|| Manifest::parse(bytes, descriptor).ok()).flatten()
}
