//! SRC and DST for users of the library. Unlike the command line, nothing is remembered between runs for uploads, and the
//! insecure registries of this host's engines are not read.

use super::address::{OpenSource, SelectedSource};
use super::options::{AccessTo, Context, ReadOptions, WriteOptions};
use super::registry::{Access, RegistryPool};
use super::table;
use crate::cancel::Cancel;
use crate::copy::{Naming, Options, Source};
use crate::disk::PARTIAL_LIFETIME;
use crate::progress::Watch;
use crate::sink::Sink;
use crate::{Error, Result};
use std::ffi::OsStr;
use std::sync::Arc;

/// Opens `address`, written as SRC of the command line. Registries get the stored credentials of docker and podman.
///
/// The options select the image that the address names, and nothing else.
///
/// # Errors
/// - `Usage`: `address` does not have the form of any transport.
/// - `NotFound`, `Network`, `Denied`, `Invalid`, `RemoteHost`: the source cannot be opened.
pub fn open_source(address: &str, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<(Source, Options)> {
    let address = table::parse(OsStr::new(address))?;
    let options = ReadOptions {
        access: stored_credentials(),
        mirrors: &[],
        storage_root: None,
        address: None,
        namespace: None,
        engine: None,
    };
    let SelectedSource { source, selector, name } = address.source(&options, &context(watch, cancel))?;
    let source = match source {
        OpenSource::Store(store) => Source::Store(store),
        OpenSource::UnopenedArchive(archive) => Source::Stream(Box::new(archive.stream())),
    };
    let naming = name.map_or(Naming::Keep, |name| Naming::Names(vec![name]));
    Ok((source, Options { selectors: selector.into_iter().collect(), naming, ..Options::default() }))
}

/// Opens `address`, written as DST of the command line, and returns the names that it gives the image.
///
/// # Errors
/// - `Usage`: `address` does not have the form of any transport, or is a prefix for several repositories.
/// - `Network`, `Denied`, `Unwritable`, `RemoteHost`: the destination cannot be opened.
pub fn open_sink(address: &str, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<(Box<dyn Sink>, Naming)> {
    let address = table::parse(OsStr::new(address))?;
    if address.prefix().is_some() {
        return Err(Error::usage(format!("{address} is a prefix; a copy needs one repository")));
    }
    let names = address.names(&[])?;
    let options = WriteOptions {
        access: stored_credentials(),
        engine: None,
        address: None,
        namespace: None,
        remote_command: None,
        wire_compression: None,
        dry_run: false,
        verify: false,
        waits_for_uploads: false,
        partial_lifetime: PARTIAL_LIFETIME,
        level: None,
    };
    let sink = address.sink(&options, &context(watch, cancel))?;
    Ok((sink, if names.is_empty() { Naming::Keep } else { Naming::Names(names) }))
}

fn stored_credentials() -> AccessTo<'static> {
    Box::new(|_, _| Ok(Access::default()))
}

fn context(watch: Arc<dyn Watch>, cancel: &Cancel) -> Context {
    let timeout = Access::default().timeout;
    Context {
        watch,
        cancel: cancel.clone(),
        ssh: "ssh".to_owned(),
        timeout,
        cache_dir: None,
        limit: None,
        registries: RegistryPool::default(),
    }
}
