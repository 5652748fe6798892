//! What a server has to offer: repositories, found by name on shelves. Everything here blocks; the server calls it
//! from threads that may.

use crate::error::Result;
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    Tag(String),
    Digest(Digest),
}

/// Which repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// As the path has it: checked to be a repository's name, and nothing more.
    pub name: String,
    /// The registry that a client of a mirror means (containerd's `?ns=`), as the client wrote it.
    pub ns: Option<String>,
    /// Who asks: a user of this server, whose password was right.
    pub user: Option<String>,
    pub search: Search,
}

/// How far a server goes for what is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Search {
    /// Elsewhere too, if it is not here.
    #[default]
    Anywhere,
    /// No further than what lies here: another server is looking, and would wait for itself in the end.
    Here,
}

/// How sure an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Now,
    /// It was so when somebody last answered, and now nobody does.
    Last,
}

/// What came of asking others for a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nobody has to be asked.
    Here,
    /// Nobody has it.
    Nowhere,
    /// It is found at once under this digest.
    At(Digest, Known),
}

/// A kind of source: where repositories are looked for.
pub trait Backend: Send + Sync {
    /// The names of all repositories that are known, in any order.
    fn repositories(&self) -> Result<Vec<String>>;
    /// The repository that is wanted, if this shelf has it. Cheap: it is asked for with every request.
    fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>>;
}

/// One repository, as it is at the moment. Whatever is not there is `None`, and not an error.
pub trait Repository: Send + Sync {
    /// Every tag, in any order.
    fn tags(&self) -> Result<Vec<String>>;
    /// A manifest, its digest checked.
    fn manifest(&self, at: &At) -> Result<Option<Manifest>>;
    /// Asks whoever has to be asked first, which may take long.
    fn settle(&self, _at: &At) -> Result<Settled> {
        Ok(Settled::Here)
    }
    /// How many bytes a manifest has, where that is known without reading it: then a large one waits for room in
    /// memory.
    fn weight(&self, _at: &At) -> Result<Option<u64>> {
        Ok(None)
    }
    /// The size of a blob in bytes.
    fn blob(&self, digest: &Digest) -> Result<Option<u64>>;
    /// The bytes of a blob of `size` bytes from offset `from` on. The reader may be left alone for minutes: it must not
    /// hold more than a buffer. One that has nothing yet (a blob that is still coming in) says `WouldBlock` rather than
    /// keep a thread waiting, and is asked again soon.
    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>>;
    /// What refers to `subject`.
    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>>;
}

/// All shelves; the first that has something gives it.
#[derive(Clone, Default)]
pub struct Catalog {
    shelves: Vec<Arc<dyn Backend>>,
}

impl Catalog {
    /// Adds a shelf that is asked after those there are.
    pub fn add(&mut self, shelf: Arc<dyn Backend>) {
        self.shelves.push(shelf);
    }

    pub fn is_empty(&self) -> bool {
        self.shelves.is_empty()
    }

    /// Every name once, in order.
    pub fn repositories(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for shelf in &self.shelves {
            names.extend(shelf.repositories()?);
        }
        Ok(names)
    }

    /// What all shelves have under that name.
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

/// Repositories of the same name from several shelves, as one.
struct Several(Vec<Arc<dyn Repository>>);

impl Several {
    /// The first that has it. One that fails does not keep others from answering.
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
        // One that fails does not hide what others have.
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

/// `bytes` as the manifest `claim` says they are; `None` where they are no manifest at all, as with a layer that was
/// asked for as one.
pub fn as_manifest(bytes: Vec<u8>, claim: &Descriptor) -> Option<Manifest> {
    (bytes.len() as u64 <= MAX_MANIFEST_BYTES).then(|| Manifest::parse(bytes, claim).ok()).flatten()
}
