//! A value that is loaded from a file and reloaded when the file changes, such as a layout or containerd's database
//! that are written while they are served.

use crate::error::Result;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The granularity of file times, at most. A file modified this recently may change again with the same modification
/// time.
const STEP: Duration = Duration::from_millis(50);

type Make<T> = dyn Fn() -> Result<T> + Send + Sync;

/// A `T` that is reloaded when its file changes.
pub struct Live<T> {
    make: Box<Make<T>>,
    file: PathBuf,
    /// The minimum time between two reloads.
    rest: Duration,
    made: Mutex<Option<Made<T>>>,
}

struct Made<T> {
    of: Option<Stamp>,
    looked: Instant,
    it: Arc<T>,
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

impl<T> Live<T> {
    /// Creates a value that `make` loads again when `file` changes, at most once in `rest`.
    pub fn following(file: PathBuf, rest: Duration, make: impl Fn() -> Result<T> + Send + Sync + 'static) -> Live<T> {
        Live { make: Box::new(make), file, rest, made: Mutex::default() }
    }

    /// The current value. If reloading fails, the previous value stays, if one exists.
    pub fn now(&self) -> Result<Arc<T>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &mut *made {
            if made.looked.elapsed() < self.rest {
                return Ok(made.it.clone());
            }
            let stamp = self.stamp();
            if stamp.is_some_and(|stamp| stamp.stable) && stamp == made.of {
                return Ok(made.it.clone());
            }
        }
        // Taken before the file is read, so that a write in the meantime counts as a change.
        let of = self.stamp();
        match ((self.make)(), &mut *made) {
            (Ok(it), _) => {
                let it = Arc::new(it);
                *made = Some(Made { of, looked: Instant::now(), it: it.clone() });
                Ok(it)
            }
            (Err(_), Some(made)) if of.is_some() => {
                made.looked = Instant::now();
                Ok(made.it.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let found = std::fs::metadata(&self.file).ok()?;
        let age = found.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            stable: age.is_some_and(|age| age > STEP),
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
        let make = move || match std::fs::read_to_string(&read)?.as_str() {
            "bad" => Err(crate::Error::invalid("bad")),
            text => Ok(text.to_owned()),
        };
        let live = Live::following(file.clone(), Duration::ZERO, make);
        assert!(live.now().is_err());
        for (written, made) in [("one", "one"), ("two", "two"), ("bad", "two"), ("three", "three")] {
            std::fs::write(&file, written).unwrap();
            assert_eq!(*live.now().unwrap(), made);
        }
        let before = live.now().unwrap();
        std::thread::sleep(STEP * 2);
        let stable = live.now().unwrap();
        assert!(Arc::ptr_eq(&stable, &live.now().unwrap()));
        assert_eq!(before, stable);
    }
}
