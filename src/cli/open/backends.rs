//! Opening a SRC to serve it.

use super::{NetworkOptions, SourceOptions};
use crate::Result;
use crate::cli::address::Address;
use crate::cli::context::CliRun;
use crate::serve::backend::catalog::Backend;
use crate::serve::backend::repository_names;
use crate::serve::{LocalBackend, RepositoriesBackend, UpstreamBackend};
use crate::transport::address::{RepositoryName, ServeSource};
use std::sync::Arc;

/// Opens `address` to serve it.
pub fn backend(
    address: &dyn Address,
    from: &SourceOptions,
    network: &NetworkOptions,
    run: &CliRun,
) -> Result<Arc<dyn Backend>> {
    Ok(match address.serve_source(&from.read_options(network, run), &network.context(run))? {
        ServeSource::Store { watched, poll_interval, repository, open } => {
            let repository = match repository {
                RepositoryName::Fixed(name) => name.to_owned(),
                RepositoryName::FromPath(path) => repository_names::default_repository(&path),
            };
            Arc::new(LocalBackend::reloading(watched, poll_interval, repository, open, run.watch())?)
        }
        ServeSource::Repositories(location) => Arc::new(RepositoriesBackend::new(location)),
        ServeSource::Below { registry, path } => Arc::new(UpstreamBackend::below_prefix(registry, &path)),
        ServeSource::Repository { registry, repository } => {
            Arc::new(UpstreamBackend::one_repository(registry, &repository))
        }
    })
}
