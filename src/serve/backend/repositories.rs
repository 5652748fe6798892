//! A location with several repositories as a backend. Each request opens its repository, so nothing has to be reloaded.

use super::catalog::{Backend, Repository, RepositoryRequest};
use super::local::reopening_reader;
use super::store_repository::StoreRepository;
use crate::error::Result;
use crate::image::is_repository;
use crate::source::Repositories;
use std::sync::Arc;

/// Every repository of a location on this host.
pub struct RepositoriesBackend(Arc<dyn Repositories>);

impl RepositoriesBackend {
    /// Serves the repositories of `location`.
    pub fn new(location: Arc<dyn Repositories>) -> RepositoriesBackend {
        RepositoriesBackend(location)
    }
}

impl Backend for RepositoriesBackend {
    fn repositories(&self) -> Result<Vec<String>> {
        self.0.names()
    }

    /// With `?ns=`, the repository `NS/NAME` takes precedence if it exists, as in a directory that accepts pushes.
    fn repository(&self, request: &RepositoryRequest) -> Result<Option<Arc<dyn Repository>>> {
        let prefixed =
            request.ns.as_ref().map(|ns| format!("{ns}/{}", request.name)).filter(|name| is_repository(name));
        let store = match prefixed.map(|name| self.0.open(&name)).transpose()?.flatten() {
            Some(store) => Some(store),
            None => self.0.open(&request.name)?,
        };
        Ok(store.map(|store| Arc::new(StoreRepository { store, open: reopening_reader }) as Arc<dyn Repository>))
    }
}
