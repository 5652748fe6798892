//! Another registry as a shelf: every request is asked there, and nothing is kept.

use super::catalog::{At, Backend, Repository, Search, Wanted};
use crate::error::{Kind, Result};
use crate::image::{DEFAULT_REGISTRY, Descriptor, Digest, Manifest};
use crate::source::{Root, Selector, Store};
use crate::transport::registry::{Registry, RepositoryStore};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Repositories that are remembered; each holds what upstream's manifests were asked for and not fetched.
const REMEMBERED: usize = 256;
/// In bytes; two of them wait while a client is slow.
const BUFFER: usize = 64 << 10;

/// What of a registry is served.
pub struct UpstreamBackend {
    registry: Arc<Registry>,
    /// Empty, or parts that end in `/`: served names are below it.
    prefix: String,
    /// The only one, where one was named.
    only: Option<String>,
    open: Mutex<HashMap<String, Arc<RepositoryStore>>>,
}

impl UpstreamBackend {
    /// Every repository below `prefix` (empty, or ending in `/`), under the rest of its name.
    pub fn below(registry: Arc<Registry>, prefix: &str) -> UpstreamBackend {
        UpstreamBackend { registry, prefix: prefix.to_owned(), only: None, open: Mutex::default() }
    }

    /// One repository, under its own name.
    pub fn of(registry: Arc<Registry>, repository: &str) -> UpstreamBackend {
        UpstreamBackend { only: Some(repository.to_owned()), ..UpstreamBackend::below(registry, "") }
    }

    fn store(&self, repository: String) -> Arc<RepositoryStore> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= REMEMBERED && !open.contains_key(&repository) {
            open.clear();
        }
        let store = open.entry(repository).or_insert_with_key(|name| Arc::new(self.registry.repository(name)));
        store.clone()
    }
}

impl Backend for UpstreamBackend {
    /// Only what was named: a registry's own list may be of any length, and many give none.
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.only.iter().cloned().collect())
    }

    fn repository(&self, wanted: &Wanted) -> Result<Option<Arc<dyn Repository>>> {
        let here = wanted.ns.as_ref().is_none_or(|ns| ns == self.registry.host());
        let named = self.only.as_ref().is_none_or(|only| *only == wanted.name);
        if !here || !named || wanted.search == Search::Here {
            return Ok(None);
        }
        // As everywhere: docker's own images are called by one part alone.
        let docker = self.registry.host() == DEFAULT_REGISTRY && self.prefix.is_empty() && !wanted.name.contains('/');
        let prefix = if docker { "library/" } else { &self.prefix };
        Ok(Some(Arc::new(Upstream(self.store(format!("{prefix}{}", wanted.name))))))
    }
}

struct Upstream(Arc<RepositoryStore>);

impl Upstream {
    fn root(&self, at: &At) -> Result<Option<Root>> {
        let pick = match at {
            At::Tag(tag) => Selector::Name(tag.clone()),
            At::Digest(digest) => Selector::Digest(*digest),
        };
        Ok(there(self.0.roots(&[pick]))?.and_then(|mut roots| roots.pop()))
    }
}

fn there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Repository for Upstream {
    fn tags(&self) -> Result<Vec<String>> {
        let names = there(self.0.names())?.unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.tag()).collect())
    }

    fn manifest(&self, at: &At) -> Result<Option<Manifest>> {
        let Some(root) = self.root(at)? else { return Ok(None) };
        root.read(&*self.0).map(Some)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.0.find(digest)?.map(|found| found.size))
    }

    fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Box<dyn Read + Send>> {
        pumped(self.0.clone(), Descriptor::new("", *digest, size), from)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(there(self.0.referrers(subject))?.unwrap_or_default())
    }
}

/// The bytes of `blob`, read by a thread of its own that keeps the connection open, a few buffers ahead.
///
/// Fails where the first bytes cannot be had.
pub fn pumped(store: Arc<dyn Store>, blob: Descriptor, from: u64) -> Result<Box<dyn Read + Send>> {
    let (send, receive) = mpsc::sync_channel::<io::Result<Vec<u8>>>(1);
    let (opened, open) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("pump".into()).spawn(move || {
        let mut bytes = match store.open(&blob, from) {
            Ok(bytes) => bytes,
            Err(error) => return drop(opened.send(Err(error))),
        };
        let _ = opened.send(Ok(()));
        loop {
            let mut buffer = vec![0; BUFFER];
            let read = bytes.read(&mut buffer).map(|n| {
                buffer.truncate(n);
                buffer
            });
            let last = !matches!(&read, Ok(buffer) if !buffer.is_empty());
            // Fails when the client has gone.
            if send.send(read).is_err() || last {
                return;
            }
        }
    })?;
    open.recv().map_err(|_| crate::Error::failed("the thread that reads upstream has ended"))??;
    Ok(Box::new(Pumped { from: receive, buffer: Vec::new(), at: 0 }))
}

struct Pumped {
    from: mpsc::Receiver<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for Pumped {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            self.buffer = match self.from.recv() {
                Ok(read) => read?,
                Err(_) => return Ok(0),
            };
            self.at = 0;
        }
        let n = out.len().min(self.buffer.len() - self.at);
        out[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
