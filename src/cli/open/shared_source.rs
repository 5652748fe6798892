//! One source for several destinations that are copied to in parallel.

use super::{NetworkOptions, Opened, SourceOptions, unread};
use crate::cli::address::Address;
use crate::cli::context::CliRun;
use crate::cli::output::terminal::lock;
use crate::copy::Source;
use crate::fanout::{FanoutLimits, SharedStore, Subscriber};
use crate::image::Name;
use crate::source::{Selector, Store};
use crate::tarball::UnopenedArchive;
use crate::transport::address::{OpenSource, SelectedSource};
use crate::{Error, Result};
use std::sync::{Arc, Mutex};

/// One source, with a reader for each copy.
pub struct SharedSource {
    readers: Readers,
    selectors: Vec<Selector>,
    name: Option<Name>,
}

enum Readers {
    /// The readers of the copies that start together; a later copy gets a new one.
    Store(SharedStore, Mutex<Vec<Subscriber>>),
    Archives(Mutex<Vec<UnopenedArchive>>),
}

/// Opens `address` as a SRC for `copies`, of which `at_once` run in parallel.
pub fn shared_source(
    address: &dyn Address,
    from: &SourceOptions,
    network: &NetworkOptions,
    copies: usize,
    at_once: usize,
    run: &CliRun,
) -> Result<SharedSource> {
    let SelectedSource { source, selector, name } = unread(address, from, network, run)?;
    let selectors = Vec::from_iter(selector);
    let limits = FanoutLimits::default();
    let readers = match source {
        OpenSource::Store(store) => {
            let shared = SharedStore::new(store, limits, &run.cancel);
            // An error of the source is reported once, not for each destination.
            shared.subscribe().roots(&selectors)?;
            let first = (0..at_once).map(|_| shared.subscribe()).collect();
            Readers::Store(shared, Mutex::new(first))
        }
        OpenSource::UnopenedArchive(_) if copies > at_once => {
            return Err(Error::usage(format!(
                "SRC can be read only once, so all {copies} destinations must be written at once: use --parallel \
                 {copies}, or save it to a file first"
            )));
        }
        OpenSource::UnopenedArchive(archive) => {
            Readers::Archives(Mutex::new(archive.split(copies, &limits, &run.cancel)?))
        }
    };
    Ok(SharedSource { readers, selectors, name })
}

impl SharedSource {
    /// Returns the source for the next copy.
    pub fn next(&self) -> Result<Opened> {
        let source = match &self.readers {
            Readers::Store(shared, first) => {
                Source::Shared(Arc::new(lock(first).pop().unwrap_or_else(|| shared.subscribe())))
            }
            Readers::Archives(archives) => match lock(archives).pop() {
                Some(archive) => Source::Stream(Box::new(archive.stream())),
                None => return Err(Error::failed("there are more destinations than readers of SRC")),
            },
        };
        Ok(Opened { source, selectors: self.selectors.clone(), name: self.name.clone() })
    }
}
