//! Loads a value from files, and reloads it when one of them changes. For example, other tools may write to a layout, or
//! to containerd's database, while it is served.

use crate::error::Result;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The granularity of file times, at most. A file modified this recently may change again with the same modification
/// time.
const TIME_GRANULARITY: Duration = Duration::from_millis(50);

type Reload<T> = dyn Fn() -> Result<T> + Send + Sync;

/// A `T` that is reloaded when one of its files changes.
pub struct Reloading<T> {
    load: Box<Reload<T>>,
    files: Vec<PathBuf>,
    /// The minimum time between two reloads.
    min_interval: Duration,
    loaded: Mutex<Option<Loaded<T>>>,
}

struct Loaded<T> {
    stamps: Vec<Option<Stamp>>,
    checked: Instant,
    value: Arc<T>,
}

/// The metadata of a file by which a change is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
    /// Whether a later change is certain to change the metadata.
    stable: bool,
}

impl<T> Reloading<T> {
    /// Creates a value that `load` loads again when one of `files` changes, at most once in `min_interval`.
    pub fn new(
        files: Vec<PathBuf>,
        min_interval: Duration,
        load: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Reloading<T> {
        Reloading { load: Box::new(load), files, min_interval, loaded: Mutex::default() }
    }

    /// The current value. If reloading fails, the previous value stays, if one exists.
    pub fn current(&self) -> Result<Arc<T>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &mut *loaded {
            if loaded.checked.elapsed() < self.min_interval {
                return Ok(loaded.value.clone());
            }
            // A file that does not exist yet is as good as one that did not change.
            let stamps = self.stamps();
            let is_stable = stamps.iter().flatten().all(|stamp| stamp.stable) && stamps.iter().any(Option::is_some);
            if is_stable && stamps == loaded.stamps {
                return Ok(loaded.value.clone());
            }
        }
        // Taken before the files are read, so that a write in the meantime counts as a change.
        let stamps = self.stamps();
        match ((self.load)(), &mut *loaded) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                *loaded = Some(Loaded { stamps, checked: Instant::now(), value: value.clone() });
                Ok(value)
            }
            (Err(_), Some(loaded)) if stamps.iter().any(Option::is_some) => {
                loaded.checked = Instant::now();
                Ok(loaded.value.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files.iter().map(|file| Stamp::of(file)).collect()
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Stamp> {
        let found = std::fs::metadata(file).ok()?;
        let age = found.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            stable: age.is_some_and(|age| age > TIME_GRANULARITY),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_anew_when_the_file_has_changed_and_stays_when_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let read = file.clone();
        let load = move || match std::fs::read_to_string(&read)?.as_str() {
            "bad" => Err(crate::Error::invalid("bad")),
            text => Ok(text.to_owned()),
        };
        let value = Reloading::new(vec![file.clone()], Duration::ZERO, load);
        assert!(value.current().is_err());
        for (written, loaded) in [("one", "one"), ("two", "two"), ("bad", "two"), ("three", "three")] {
            std::fs::write(&file, written).unwrap();
            assert_eq!(*value.current().unwrap(), loaded);
        }
        let before = value.current().unwrap();
        std::thread::sleep(TIME_GRANULARITY * 2);
        let stable = value.current().unwrap();
        assert!(Arc::ptr_eq(&stable, &value.current().unwrap()));
        assert_eq!(before, stable);
    }
}
