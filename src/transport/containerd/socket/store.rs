//! A containerd's images as a source, by its socket.

use super::call::Scope;
use super::connection::Connection;
use super::listing;
use super::read::{BlobReader, size, small};
use super::status::code;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, MAX_NAMES, Name};
use crate::progress::Watch;
use crate::rate_limit::Limited;
use crate::source::{Profile, Root, Selector, Store};
use crate::transport::address::Listed;
use crate::transport::containerd::catalog::Catalog;
use crate::transport::containerd::records::Record;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The images of one containerd, as it listed them when the store was opened.
///
/// containerd gives a blob only to a namespace that has it, so each blob's namespace is looked up.
pub struct SocketStore {
    connection: Arc<Connection>,
    catalog: Catalog,
    /// The namespaces of the blobs that were found so far.
    found_in: Mutex<HashMap<Digest, String>>,
    watch: Arc<dyn Watch>,
}

impl SocketStore {
    /// Lists the images of `namespace`, or of all namespaces.
    ///
    /// # Errors
    /// - `NotFound`: containerd has no such namespace.
    /// - `NotFound`, `Denied`, `RemoteHost`: the socket cannot be opened, or nothing answers on it.
    /// - `Invalid`: what answers does not follow containerd's protocol.
    pub fn open(connection: Arc<Connection>, namespace: Option<&str>, watch: Arc<dyn Watch>) -> Result<SocketStore> {
        let place = connection.name().to_owned();
        let failed = |failure: super::status::Failure| failure.into_error(&place, "listing images");
        let namespaces = listing::namespaces(&connection).map_err(failed)?;
        let namespaces: Vec<String> = namespaces.into_iter().map(|namespace| namespace.name).collect();
        let mut records: Vec<Record> = Vec::new();
        for name in namespaces.iter().filter(|name| namespace.is_none_or(|asked| asked == *name)) {
            listing::images(&connection, name, &mut records).map_err(failed)?;
        }
        let catalog = Catalog::new(place, namespaces, records, namespace)?;
        Ok(SocketStore { connection, catalog, found_in: Mutex::default(), watch })
    }

    /// The names with the digests and media types that they point at.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let roots = self.catalog.all().into_iter();
        let listed =
            roots.filter_map(|root| Some((root.name?, Some((root.descriptor.digest, root.descriptor.media_type)))));
        listed.collect()
    }

    fn found_in(&self) -> MutexGuard<'_, HashMap<Digest, String>> {
        self.found_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespaces that may have `digest`: the one where it was found before, then the others.
    fn candidates(&self, digest: &Digest) -> Vec<String> {
        let named = self.catalog.records().iter().find(|record| record.target.digest == *digest);
        let first = self.found_in().get(digest).cloned().or_else(|| named.map(|record| record.namespace.clone()));
        let others = self.catalog.read_namespaces().iter().filter(|name| Some(*name) != first.as_ref());
        first.iter().chain(others).cloned().collect()
    }

    /// The result of `attempt` in the first namespace that has `digest`.
    fn in_its_namespace<T>(&self, digest: &Digest, attempt: impl Fn(&Scope) -> Result<Option<T>>) -> Result<Option<T>> {
        for namespace in self.candidates(digest) {
            if let Some(found) = attempt(&Scope::namespace(&namespace))? {
                let mut found_in = self.found_in();
                if found_in.len() < MAX_NAMES {
                    found_in.insert(*digest, namespace);
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn read_small(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Vec<u8>>> {
        self.in_its_namespace(digest, |scope| small(&self.connection, scope, digest, size, &self.watch))
    }

    /// Looks for the blobs of a manifest in the namespace of the manifest first.
    fn expect_children(&self, manifest: &Digest, bytes: &[u8]) {
        let Some(namespace) = self.found_in().get(manifest).cloned() else { return };
        let Ok(manifest) = crate::image::Manifest::from_bytes(bytes.to_vec(), "") else { return };
        let mut found_in = self.found_in();
        for blob in manifest.children().iter().chain(manifest.blobs()) {
            if found_in.len() < MAX_NAMES {
                found_in.entry(blob.digest).or_insert_with(|| namespace.clone());
            }
        }
    }
}

impl Store for SocketStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.catalog.roots(selectors, |digest| self.read_small(digest, None))
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let size = (at.size > 0).then_some(at.size);
        let bytes = self.read_small(&at.digest, size)?.ok_or_else(|| self.catalog.missing_manifest(&at.digest))?;
        self.expect_children(&at.digest, &bytes);
        Ok(bytes)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let size = (blob.size > 0).then_some(blob.size);
        let opened = self.in_its_namespace(&blob.digest, |scope| {
            if size == Some(from) {
                return Ok(Some(Box::new(io::empty()) as Box<dyn Read + Send>));
            }
            let (connection, watch) = (self.connection.clone(), self.watch.clone());
            let mut reader = BlobReader::new(connection, scope.clone(), blob.digest, from, size, watch);
            match reader.open() {
                Ok(()) => Ok(Some(Box::new(Limited::new(reader, self.connection.limits().rate.as_ref())) as Box<_>)),
                Err(failure) if failure.is(code::NOT_FOUND) => Ok(None),
                Err(failure) if failure.is(code::OUT_OF_RANGE) => Err(Error::invalid(format!(
                    "{}: blob {} ends before byte {from}",
                    self.catalog.place(),
                    blob.digest
                ))),
                Err(failure) => Err(failure.into_error(self.connection.name(), &reader.action())),
            }
        })?;
        opened.ok_or_else(|| self.catalog.missing_blob(blob))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let size = self.in_its_namespace(digest, |scope| {
            let action = format!("looking for {digest}");
            size(&self.connection, scope, digest).map_err(|f| f.into_error(self.connection.name(), &action))
        })?;
        Ok(size.map(|size| Descriptor::new(self.catalog.media_type(digest), *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.catalog.names())
    }

    /// containerd stores an index with the image of one platform only.
    fn profile(&self) -> Profile {
        let empty_message = self.catalog.empty_message();
        // The socket may be one that ssh -L forwards.
        Profile { is_sparse: true, is_remote: true, reads_ahead: true, empty_message, ..Profile::default() }
    }
}
