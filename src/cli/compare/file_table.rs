//! The files of an image as its layers give them, highest layer first (image-spec, layer.md, "Whiteouts").
//!
//! Of the layers that both images have at their start, only the files are recorded that one image has and the other
//! replaces or removes. So memory grows with the differences and not with the images.

use crate::tarball::{LayerEntry, LayerEntryKind};
use crate::{Error, Result};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

/// The records of one comparison; about 400 bytes of memory each, with their part of a JSON document.
const MAX_RECORDS: usize = 100_000;
/// The paths of one comparison.
const MAX_PATH_BYTES: usize = 8 << 20;
/// About 40 bytes of memory each.
const MAX_SHARED_FILES: usize = 700_000;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Other files of the aufs file system.
const AUFS: &str = ".wh..wh.";

/// A file, without its path and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    pub kind: LayerEntryKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// The first half of the sha256 of the content, or of the link's target.
    pub hash: [u8; 16],
}

/// The files of one image.
#[derive(Default)]
pub struct FileTable {
    /// With the number of the layer, counted from the highest one.
    files: HashMap<Box<str>, (u16, FileState)>,
    /// Paths that higher layers remove, with everything below them.
    removed: HashSet<Box<str>>,
    /// Directories of which higher layers hide the content.
    opaque: HashSet<Box<str>>,
    /// The whiteouts of the current layer, which affect only the layers below it.
    pending: Vec<Hidden>,
    layer: u16,
}

enum Hidden {
    Removed(String),
    Opaque(String),
}

/// The number of records of one comparison, which is limited.
#[derive(Default)]
pub struct Budget {
    records: usize,
    path_bytes: usize,
    layers: u64,
}

impl Budget {
    /// The number of the next layer that is read.
    pub fn next_layer(&mut self) -> u64 {
        self.layers += 1;
        self.layers
    }

    fn take(&mut self, path: &str) -> Result<()> {
        self.records += 1;
        self.path_bytes += path.len();
        match self.records > MAX_RECORDS || self.path_bytes > MAX_PATH_BYTES {
            true => Err(Error::failed(format!(
                "the layers have too many different files: at most {MAX_RECORDS} files and {MAX_PATH_BYTES} bytes of \
                 paths are compared; compare the images without --files"
            ))),
            false => Ok(()),
        }
    }
}

impl FileTable {
    /// Continues with the next lower layer.
    pub fn next_layer(&mut self) {
        for hidden in std::mem::take(&mut self.pending) {
            match hidden {
                Hidden::Removed(path) => self.removed.insert(path.into()),
                Hidden::Opaque(path) => self.opaque.insert(path.into()),
            };
        }
        self.layer = self.layer.saturating_add(1);
    }

    /// Records `path` if it is a whiteout; returns whether it is one.
    pub fn hide(&mut self, path: &str, budget: &mut Budget) -> Result<bool> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(removed) = name.strip_prefix(WHITEOUT) else { return Ok(false) };
        if name == OPAQUE {
            budget.take(directory)?;
            self.pending.push(Hidden::Opaque(directory.to_owned()));
        } else if !name.starts_with(AUFS) && !removed.is_empty() {
            budget.take(path)?;
            let path = if directory.is_empty() { removed.to_owned() } else { format!("{directory}/{removed}") };
            self.pending.push(Hidden::Removed(path));
        }
        Ok(true)
    }

    /// Whether the file `path` of the current layer is in the image: a higher layer neither has nor hides it.
    pub fn shows(&self, path: &str) -> bool {
        if self.files.get(path).is_some_and(|(layer, _)| *layer != self.layer) || self.removed.contains(path) {
            return false;
        }
        let replaces = |above: &str| {
            let file = self.files.get(above);
            file.is_some_and(|(layer, state)| *layer != self.layer && state.kind != LayerEntryKind::Directory)
        };
        let hides = |above: &str| self.removed.contains(above) || self.opaque.contains(above) || replaces(above);
        !hides("") && !path.match_indices('/').any(|(at, _)| hides(&path[..at]))
    }

    /// Hides the content of the directory `path` in lower layers if the current layer has a file there. Only a file that
    /// is not visible itself needs it.
    pub fn cover(&mut self, path: &str, budget: &mut Budget) -> Result<()> {
        let is_directory =
            |(layer, state): &(u16, FileState)| *layer != self.layer && state.kind == LayerEntryKind::Directory;
        if self.files.get(path).is_some_and(is_directory) {
            budget.take(path)?;
            self.pending.push(Hidden::Opaque(path.to_owned()));
        }
        Ok(())
    }

    /// Records a file of the current layer; a later entry of a layer replaces an earlier one.
    pub fn insert(&mut self, path: &str, state: FileState, budget: &mut Budget) -> Result<()> {
        if !self.files.contains_key(path) {
            budget.take(path)?;
        }
        self.files.insert(path.into(), (self.layer, state));
        Ok(())
    }

    /// The file of the current layer to which a hard link leads.
    pub fn linked(&self, target: &str) -> Option<&FileState> {
        self.files.get(target).filter(|(layer, _)| *layer == self.layer).map(|(_, state)| state)
    }

    /// The recorded files.
    pub fn into_files(self) -> HashMap<Box<str>, FileState> {
        self.files.into_iter().map(|(path, (_, state))| (path, state)).collect()
    }
}

/// The paths of files that both images have from the same layer, by hash: they hide the content of a directory at the
/// same path in lower layers.
#[derive(Default)]
pub struct SharedFiles {
    hash_keys: RandomState,
    paths: HashSet<u64>,
    /// Those of the current layer.
    pending: Vec<u64>,
}

impl SharedFiles {
    /// Fails with `Failed` for more than [`MAX_SHARED_FILES`].
    pub fn insert(&mut self, path: &str) -> Result<()> {
        self.pending.push(self.hash_keys.hash_one(path));
        match self.paths.len() + self.pending.len() > MAX_SHARED_FILES {
            true => Err(Error::failed(format!(
                "the layers have more than {MAX_SHARED_FILES} files; compare the images without --files"
            ))),
            false => Ok(()),
        }
    }

    /// Continues with the next lower layer.
    pub fn next_layer(&mut self) {
        self.paths.extend(self.pending.drain(..));
    }

    /// Whether a file of a higher layer is above `path`.
    pub fn hides(&self, path: &str) -> bool {
        path.match_indices('/').any(|(at, _)| self.paths.contains(&self.hash_keys.hash_one(&path[..at])))
    }
}

impl FileState {
    /// The state of `entry`, without a hash.
    pub fn new(entry: &LayerEntry) -> FileState {
        FileState {
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            hash: [0; 16],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> FileState {
        FileState { kind: LayerEntryKind::File, mode: 0, uid: 0, gid: 0, size: 0, hash: [0; 16] }
    }

    #[test]
    fn whiteouts_hide_lower_layers_and_not_their_own() {
        let (mut table, mut budget) = (FileTable::default(), Budget::default());
        for whiteout in ["a/.wh.b", "c/.wh..wh..opq", ".wh.d"] {
            assert!(table.hide(whiteout, &mut budget).unwrap());
        }
        assert!(table.hide(".wh..wh.plnk", &mut budget).unwrap() && !table.hide("a/wh.b", &mut budget).unwrap());
        assert!(table.shows("a/b") && table.shows("c/x") && table.shows("d"));
        table.insert("c/new", file(), &mut budget).unwrap();
        table.insert("e", file(), &mut budget).unwrap();
        table.next_layer();
        for hidden in ["a/b", "a/b/c", "c/x", "c/x/y", "d", "d/e/f", "c/new", "e", "e/below"] {
            assert!(!table.shows(hidden), "{hidden}");
        }
        for shown in ["a", "a/bc", "c", "dd", "plnk"] {
            assert!(table.shows(shown), "{shown}");
        }
    }

    #[test]
    fn the_number_of_records_is_limited() {
        let (mut table, mut budget) = (FileTable::default(), Budget { records: MAX_RECORDS - 1, ..Budget::default() });
        table.insert("a", file(), &mut budget).unwrap();
        table.insert("a", file(), &mut budget).unwrap();
        assert!(table.insert("b", file(), &mut budget).unwrap_err().to_string().contains("without --files"));
    }
}
