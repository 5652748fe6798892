//! Another registry as a backend: every request is forwarded, and nothing is cached.

use super::catalog::{Backend, Repository, RepositoryRequest, Search};
use super::store_repository::StoreRepository;
use crate::error::Result;
use crate::image::{DEFAULT_REGISTRY, Descriptor};
use crate::source::Store;
use crate::transport::registry::{Registry, RepositoryStore};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// The maximum number of open repositories; each may hold manifests that were resolved and not read yet.
const MAX_OPEN_REPOSITORIES: usize = 256;
/// The size of a read buffer; two of them wait for a slow client.
const BUFFER_BYTES: usize = 64 << 10;

/// A registry, or the part of it that is served.
pub struct UpstreamBackend {
    registry: Arc<Registry>,
    /// The prefix of the served names: empty, or ending in `/`.
    prefix: String,
    /// The only served repository, if the user named one.
    only: Option<String>,
    open: Mutex<HashMap<String, Arc<RepositoryStore>>>,
}

impl UpstreamBackend {
    /// Serves every repository below `prefix` (empty, or ending in `/`), under the rest of its name.
    pub fn below_prefix(registry: Arc<Registry>, prefix: &str) -> UpstreamBackend {
        UpstreamBackend { registry, prefix: prefix.to_owned(), only: None, open: Mutex::default() }
    }

    /// Serves one repository, under its own name.
    pub fn one_repository(registry: Arc<Registry>, repository: &str) -> UpstreamBackend {
        UpstreamBackend { only: Some(repository.to_owned()), ..UpstreamBackend::below_prefix(registry, "") }
    }

    fn store(&self, repository: String) -> Arc<RepositoryStore> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_OPEN_REPOSITORIES && !open.contains_key(&repository) {
            open.clear();
        }
        let store = open.entry(repository).or_insert_with_key(|name| Arc::new(self.registry.repository(name)));
        store.clone()
    }
}

impl Backend for UpstreamBackend {
    /// Only the named repository: a registry's catalog may have any length, and many registries have none.
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.only.iter().cloned().collect())
    }

    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let matches_host = request.ns.as_ref().is_none_or(|ns| ns == self.registry.host());
        let matches_name = self.only.as_ref().is_none_or(|only| *only == request.name);
        if !matches_host || !matches_name || request.search == Search::Local {
            return Ok(None);
        }
        // On docker.io a name with one part belongs to `library/`.
        let docker = self.registry.host() == DEFAULT_REGISTRY && self.prefix.is_empty() && !request.name.contains('/');
        let prefix = if docker { "library/" } else { &self.prefix };
        let store = self.store(format!("{prefix}{}", request.name));
        Ok(Some(Arc::new(StoreRepository { store, open: spawn_reader })))
    }
}

/// Reads `blob` on a separate thread that keeps the connection open and reads a few buffers ahead.
///
/// Fails if the blob cannot be opened.
pub fn spawn_reader(store: Arc<dyn Store>, blob: Descriptor, from: u64) -> Result<Box<dyn Read + Send>> {
    let (send, receive) = mpsc::sync_channel::<io::Result<Vec<u8>>>(1);
    let (opened, open) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("pump".into()).spawn(move || {
        let mut bytes = match store.open(&blob, from) {
            Ok(bytes) => bytes,
            Err(error) => return drop(opened.send(Err(error))),
        };
        let _ = opened.send(Ok(()));
        loop {
            let mut buffer = vec![0; BUFFER_BYTES];
            let read = bytes.read(&mut buffer).map(|n| {
                buffer.truncate(n);
                buffer
            });
            let last = !matches!(&read, Ok(buffer) if !buffer.is_empty());
            // Fails if the client has disconnected.
            if send.send(read).is_err() || last {
                return;
            }
        }
    })?;
    open.recv().map_err(|_| crate::Error::failed("the thread that reads from upstream ended unexpectedly"))??;
    Ok(Box::new(ThreadReader { from: receive, buffer: Vec::new(), at: 0 }))
}

struct ThreadReader {
    from: mpsc::Receiver<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for ThreadReader {
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
