//! One source for several destinations side by side.

use super::{NetworkOptions, OpenSource, Opened, SourceOptions, UnopenedSource, unread};
use crate::cli::address::Place;
use crate::cli::context::Run;
use crate::cli::output::terminal::lock;
use crate::copy::Source;
use crate::fanout::{Limits, SharedStore, Subscriber};
use crate::image::Name;
use crate::source::{Selector, Store};
use crate::tarball::UnopenedArchive;
use crate::{Error, Result};
use std::sync::{Arc, Mutex};

/// One source for several copies at once.
pub struct Parted {
    shares: Shares,
    picks: Vec<Selector>,
    name: Option<Name>,
}

enum Shares {
    /// For those who begin together; who comes later is given one then.
    Store(SharedStore, Mutex<Vec<Subscriber>>),
    Tapes(Mutex<Vec<UnopenedArchive>>),
}

/// Opens what `place` means as a SRC for `members` copies, of which `at_once` run side by side.
pub fn parted(
    place: &Place,
    from: &SourceOptions,
    reach: &NetworkOptions,
    members: usize,
    at_once: usize,
    run: &Run,
) -> Result<Parted> {
    let UnopenedSource { ready, picks, name } = unread(place, from, reach, run)?;
    let limits = Limits::default();
    let shares = match ready {
        OpenSource::Store(store) => {
            let shared = SharedStore::new(store, limits, &run.cancel);
            // What is wrong with the source is told once.
            shared.subscribe().roots(&picks)?;
            let first = (0..at_once).map(|_| shared.subscribe()).collect();
            Shares::Store(shared, Mutex::new(first))
        }
        OpenSource::UnopenedArchive(_) if members > at_once => {
            return Err(Error::usage(format!(
                "SRC passes once, so all {members} destinations have to take it at once: say --parallel {members}, or \
                 save it to a file first"
            )));
        }
        OpenSource::UnopenedArchive(tape) => Shares::Tapes(Mutex::new(tape.split(members, &limits, &run.cancel)?)),
    };
    Ok(Parted { shares, picks, name })
}

impl Parted {
    /// The source for the next of the members, each of which takes one.
    pub fn next(&self) -> Result<Opened> {
        let source = match &self.shares {
            Shares::Store(shared, first) => {
                Source::Shared(Arc::new(lock(first).pop().unwrap_or_else(|| shared.subscribe())))
            }
            Shares::Tapes(tapes) => match lock(tapes).pop() {
                Some(tape) => Source::Stream(Box::new(tape.stream())),
                None => return Err(Error::failed("there are more destinations than were counted")),
            },
        };
        Ok(Opened { source, picks: self.picks.clone(), name: self.name.clone() })
    }
}
