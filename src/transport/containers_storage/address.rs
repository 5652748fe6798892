//! `containers-storage:[REF]` as a SRC.

use super::directory::{ContainersStorage, ContainersStorageStore};
use crate::disk::rooted::Resolution;
use crate::sink::Sink;
use crate::source::Selector;
use crate::tarsplit::MeasuredLayers;
use crate::transport::address::{
    Address, Listed, OpenSource, Parsed, RepositoryName, SelectedSource, ServeSource, Transport, all_of,
};
use crate::transport::names;
use crate::transport::options::{Context, ReadOptions, WriteOptions};
use crate::transport::syntax::selector;
use crate::{Error, Result};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The shortest time between two checks of the names of a storage that is in use.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) const CONTAINERS_STORAGE: Transport = Transport {
    scheme: "containers-storage:",
    syntax: "containers-storage:[REF]",
    help: &[
        "SRC: the storage of podman, CRI-O and buildah, without them or while they",
        "run; REF is a name or an image ID; without REF, every image in it",
    ],
    serve_forms: &[("containers-storage:", "podman's, CRI-O's and buildah's storage")],
    parse,
};

fn parse(_: &str, rest: &str) -> Parsed {
    // In skopeo's form, [DRIVER@ROOT+RUNROOT] is before the name. An IPv6 host has no slash.
    if let Some((inside, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && inside.contains('/')
    {
        return Err(Error::usage(format!(
            "containers-storage:[{inside}]: the storage's directory is not part of the address; name it with --src-root"
        )));
    }
    Ok(Box::new(StorageAddress { selector: selector(rest)? }))
}

/// The storage, and an image in it.
#[derive(Debug)]
struct StorageAddress {
    selector: Option<Selector>,
}

impl fmt::Display for StorageAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CONTAINERS_STORAGE.scheme)?;
        self.selector.as_ref().map_or(Ok(()), |selector| selector.fmt(f))
    }
}

impl Address for StorageAddress {
    fn source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<SelectedSource> {
        let store = open(options, context)?;
        Ok(SelectedSource { source: OpenSource::Store(Arc::new(store)), selector: self.selector.clone(), name: None })
    }

    fn sink(&self, _options: &WriteOptions<'_>, _context: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::usage(format!(
            "{self} is read only; write an archive for podman load, or use ssh://HOST for the podman of another host"
        )))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{}{}", CONTAINERS_STORAGE.scheme, names::selector_key(self.selector())))
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    /// Lists without reading a layer. Images without a name have their IDs.
    fn list(&self, options: &ReadOptions<'_>, context: &Context) -> Result<Option<Vec<Listed>>> {
        if self.selector.is_some() {
            return Ok(None);
        }
        let names = open(options, context)?.names_and_ids()?;
        Ok(Some(names.into_iter().map(|name| (name, None)).collect()))
    }

    fn serve_source(&self, options: &ReadOptions<'_>, context: &Context) -> Result<ServeSource> {
        all_of(self.selector())?;
        let (root, watch) = (options.storage_root.map(Path::to_owned), context.watch.clone());
        let open = move || ContainersStorage::open(root.as_deref(), Resolution::default(), watch.clone());
        let (watched, measured) = (open()?.names_files(), MeasuredLayers::default());
        Ok(ServeSource::Store {
            watched,
            poll_interval: POLL_INTERVAL,
            repository: RepositoryName::Fixed("containers-storage"),
            open: Box::new(move || Ok(Arc::new(ContainersStorageStore::new(open()?, measured.clone())))),
        })
    }
}

fn open(options: &ReadOptions<'_>, context: &Context) -> Result<ContainersStorageStore> {
    ContainersStorageStore::open(options.storage_root, Resolution::default(), context.watch.clone())
}
