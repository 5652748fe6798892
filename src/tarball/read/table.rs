//! The table of entries of a seekable archive. Links are followed.

use crate::error::{Error, Result};
use crate::tarball::tar::entries::{EntryKind, TarReader};
use crate::tarball::tar::path::{follow, shown};
use crate::tarball::tar::read_at::{ForwardReader, ReadAt};
use std::collections::HashMap;

/// The maximum length of a chain of links.
const MAX_LINKS: usize = 16;

/// The position of a file's data in the archive, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    pub at: u64,
    pub size: u64,
}

#[derive(Debug)]
pub(crate) enum Slot {
    File(Extent),
    /// The name of the target entry; `None` if the link points outside the archive.
    Link(Option<Box<str>>),
}

#[derive(Debug, Default)]
pub(crate) struct EntryTable(HashMap<Box<str>, Slot>);

impl EntryTable {
    /// Reads all headers of `bytes`.
    pub fn read(bytes: &impl ReadAt) -> Result<EntryTable> {
        let mut tar = TarReader::new(ForwardReader::new(bytes));
        let mut table = EntryTable::default();
        while let Some(entry) = tar.next_entry()? {
            let slot = match &entry.kind {
                EntryKind::Directory => continue,
                EntryKind::File => Slot::File(Extent { at: entry.data_at, size: entry.size }),
                link => Slot::link(&entry.name, link),
            };
            table.0.insert(entry.name.into(), slot);
        }
        Ok(table)
    }

    /// Whether the name of an entry contains a backslash.
    pub fn has_backslashes(&self) -> bool {
        self.0.keys().any(|name| name.contains('\\'))
    }

    /// Returns the file that `name` (cleaned) is or links to.
    pub fn find(&self, name: &str) -> Result<Option<Extent>> {
        let name = resolve(name, |name| match self.0.get(name) {
            Some(Slot::Link(target)) => Some(target.as_deref()),
            _ => None,
        })?;
        Ok(match self.0.get(name) {
            Some(Slot::File(extent)) => Some(*extent),
            _ => None,
        })
    }
}

impl Slot {
    /// Creates the slot of an entry that is a link.
    pub fn link(name: &str, kind: &EntryKind) -> Slot {
        Slot::Link(match kind {
            EntryKind::SymbolicLink(target) => follow(name, target).map(Into::into),
            EntryKind::HardLink(target) => Some(target.as_str().into()),
            EntryKind::File | EntryKind::Directory => None,
        })
    }
}

/// Follows `name` through `links`, which returns `None` for a name that is not a link, and `Some(None)` for a link that
/// points outside the archive.
pub(crate) fn resolve<'t>(name: &'t str, links: impl Fn(&str) -> Option<Option<&'t str>>) -> Result<&'t str> {
    let mut at = name;
    for _ in 0..MAX_LINKS {
        match links(at) {
            None => return Ok(at),
            Some(Some(target)) => at = target,
            Some(None) => {
                return Err(Error::invalid(format!("the link {} points outside the archive", shown(at))));
            }
        }
    }
    Err(Error::invalid(format!("the link {} is circular, or a chain of more than {MAX_LINKS} links", shown(name))))
}
