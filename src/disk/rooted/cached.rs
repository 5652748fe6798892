//! A file that its program replaces by a rename, parsed again when it was replaced.

use super::Rooted;
use crate::error::{Error, Result};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

/// A file as it was at one time: another one is in its place, or it was written, when the stamp differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileStamp {
    place: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file with `metadata`.
    pub fn of(metadata: &Metadata) -> FileStamp {
        FileStamp {
            place: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The parsed content of a file: each version is parsed once.
#[derive(Debug)]
pub(crate) struct CachedFile<T>(Mutex<Option<(FileStamp, Arc<T>)>>);

impl<T> Default for CachedFile<T> {
    fn default() -> Self {
        CachedFile(Mutex::default())
    }
}

impl<T: Default> CachedFile<T> {
    /// The content of the file `path` in `root`, of at most `limit` bytes, as `parse` parses it; the default if the file does
    /// not exist. The error of `parse` is the end of a sentence.
    ///
    /// # Errors
    /// - `Invalid`: the file is damaged or too large.
    /// - Those of [`Rooted::file`].
    pub fn read(
        &self,
        root: &Rooted,
        path: &str,
        limit: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Arc<T>> {
        let Some(file) = root.file(path)? else { return Ok(Arc::default()) };
        let stamp = FileStamp::of(&file.metadata().map_err(|error| Error::reading(root.display(path), error))?);
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, parsed)) = &*cached
            && *known == stamp
        {
            return Ok(parsed.clone());
        }
        let bytes = root.content(file, path.as_bytes(), limit)?;
        let parsed = parse(&bytes).map_err(|why| Error::invalid(format!("{}: {why}", root.display(path))))?;
        let parsed = Arc::new(parsed);
        *cached = Some((stamp, parsed.clone()));
        Ok(parsed)
    }
}
