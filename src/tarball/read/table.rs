//! Which entry lies where in a seekable archive, links followed.

use crate::error::{Error, Result};
use crate::tarball::tar::entries::{Walk, What};
use crate::tarball::tar::path::{follow, shown};
use crate::tarball::tar::read_at::{Forward, ReadAt};
use std::collections::HashMap;

/// Links to links, at most.
const MAX_LINKS: usize = 16;

/// Where a file's data lies, in bytes from the archive's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub at: u64,
    pub size: u64,
}

#[derive(Debug)]
pub(crate) enum Slot {
    File(Place),
    /// Resolved as far as the name of another entry; `None` where it leads out of the archive.
    Link(Option<Box<str>>),
}

#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<Box<str>, Slot>);

impl Table {
    /// One pass over the headers of `bytes`.
    pub fn read(bytes: &impl ReadAt) -> Result<Table> {
        let mut walk = Walk::new(Forward::new(bytes));
        let mut table = Table::default();
        while let Some(entry) = walk.next_entry()? {
            let slot = match &entry.what {
                What::Directory => continue,
                What::File => Slot::File(Place { at: entry.at, size: entry.size }),
                link => Slot::link(&entry.name, link),
            };
            table.0.insert(entry.name.into(), slot);
        }
        Ok(table)
    }

    /// Whether the name of an entry has a backslash in it.
    pub fn has_backslashes(&self) -> bool {
        self.0.keys().any(|name| name.contains('\\'))
    }

    /// The file that `name` (cleaned) is or leads to.
    pub fn find(&self, name: &str) -> Result<Option<Place>> {
        let name = resolve(name, |name| match self.0.get(name) {
            Some(Slot::Link(target)) => Some(target.as_deref()),
            _ => None,
        })?;
        Ok(match self.0.get(name) {
            Some(Slot::File(place)) => Some(*place),
            _ => None,
        })
    }
}

impl Slot {
    /// The slot of an entry that is a link.
    pub fn link(name: &str, what: &What) -> Slot {
        Slot::Link(match what {
            What::SymbolicLink(target) => follow(name, target).map(Into::into),
            What::HardLink(target) => Some(target.as_str().into()),
            What::File | What::Directory => None,
        })
    }
}

/// Follows `name` through `links` (outer `None`: no link; inner `None`: leads out of the archive).
pub(crate) fn resolve<'t>(name: &'t str, links: impl Fn(&str) -> Option<Option<&'t str>>) -> Result<&'t str> {
    let mut at = name;
    for _ in 0..MAX_LINKS {
        match links(at) {
            None => return Ok(at),
            Some(Some(target)) => at = target,
            Some(None) => {
                return Err(Error::invalid(format!("the link {} leads out of the archive", shown(at))));
            }
        }
    }
    Err(Error::invalid(format!("the link {} goes round in a circle or on for too long", shown(name))))
}
