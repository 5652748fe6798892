//! Opening what a SRC means for serving it.

use super::{NetworkOptions, SourceOptions, containerd_place, registry};
use crate::cli::address::Place;
use crate::cli::context::Run;
use crate::cli::options::SourceEngine;
use crate::serve::backend::catalog::Backend;
use crate::serve::backend::repository_names;
use crate::serve::{LocalBackend, UpstreamBackend};
use crate::source::{Selector, Source, Store};
use crate::transport::archive;
use crate::transport::archive::Input;
use crate::transport::containerd::ContainerdStore;
use crate::transport::layout::LayoutStore;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens what `place` means for serving it.
pub fn shelf(place: &Place, from: &SourceOptions, reach: &NetworkOptions, run: &Run) -> Result<Arc<dyn Backend>> {
    let whole = |pick: &Option<Selector>| match pick {
        None => Ok(()),
        Some(pick) => Err(Error::usage(format!("all of a place is served; leave {pick} out"))),
    };
    let file = match place {
        Place::Registry(reference) => {
            if reference.tag.is_some() || reference.digest.is_some() {
                return Err(Error::usage("a repository is served with all its tags; leave the tag out"));
            }
            let registry = registry(&reference.host, &reference.repository, &from.registry.side(), reach, run)?;
            return Ok(Arc::new(UpstreamBackend::one_repository(registry, &reference.repository)));
        }
        Place::Prefix(prefix) => {
            let registry = registry(prefix.host(), prefix.path(), &from.registry.side(), reach, run)?;
            return Ok(Arc::new(UpstreamBackend::below_prefix(registry, prefix.path())));
        }
        Place::Containerd { pick } => {
            whole(pick)?;
            return containerd_shelf(&from.engine, run);
        }
        Place::Oci { dir, pick } => {
            whole(pick)?;
            return layout_shelf(dir, run);
        }
        Place::Path(path) if path.is_dir() => return layout_shelf(path, run),
        Place::DockerArchive { file, pick } | Place::OciArchive { file, pick } => {
            whole(pick)?;
            file
        }
        Place::Path(path) => path,
        Place::DockerDaemon { .. } | Place::Ssh { .. } | Place::Stdio => {
            return Err(Error::usage(
                "an engine or a pipe is no store that can be served; serve containerd:, or copy it to a layout first",
            ));
        }
    };
    archive_shelf(file, run)
}

/// An archive, read anew when another one has taken its place.
fn archive_shelf(file: &Path, run: &Run) -> Result<Arc<dyn Backend>> {
    let (path, watch) = (file.to_owned(), run.watch());
    let open = move || match archive::open(&Input::File(path.clone()), watch.clone())? {
        Source::Store(store) => Ok(store),
        Source::Stream(_) => Err(Error::usage(format!(
            "{} is compressed as a whole, so that nothing in it can be found without reading it all; copy it to a \
             plain .tar or to a layout first",
            path.display()
        ))),
    };
    let shelf = LocalBackend::reloading(
        file.to_owned(),
        Duration::ZERO,
        repository_names::default_repository(file),
        open,
        run.watch(),
    )?;
    Ok(Arc::new(shelf))
}

fn layout_shelf(dir: &Path, run: &Run) -> Result<Arc<dyn Backend>> {
    let open = dir.to_owned();
    let open = move || Ok(Arc::new(LayoutStore::open(&open)?) as Arc<dyn Store>);
    let shelf = LocalBackend::reloading(
        dir.join("index.json"),
        Duration::ZERO,
        repository_names::default_repository(dir),
        open,
        run.watch(),
    )?;
    Ok(Arc::new(shelf))
}

/// containerd's directory while containerd runs: its database is read anew when it has changed.
fn containerd_shelf(options: &SourceEngine, run: &Run) -> Result<Arc<dyn Backend>> {
    const REST: Duration = Duration::from_millis(500);
    let (root, namespace) = containerd_place(options);
    let database = root.join("io.containerd.metadata.v1.bolt/meta.db");
    let open = move || Ok(Arc::new(ContainerdStore::open(&root, namespace.as_deref())?) as Arc<dyn Store>);
    Ok(Arc::new(LocalBackend::reloading(database, REST, "containerd".to_owned(), open, run.watch())?))
}
