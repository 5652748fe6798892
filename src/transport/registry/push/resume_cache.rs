//! Uploads that did not end, remembered in the user's cache so that a later run goes on where the registry stands. A
//! session's address is a capability: the file is its owner's alone, is for one host, and is not believed for long.

use super::cache_file;
use super::hash_checkpoints;
use super::hash_checkpoints::HashCheckpoint;
use super::upload::Target;
use crate::error::Error;
use crate::image::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use url::Url;

/// docker-registry purges uploads after a week; most others sooner.
pub const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const FOLDER: &str = "uploads";

/// An upload that a run has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// `HOST[:PORT]`.
    pub host: String,
    pub repository: String,
    pub digest: Digest,
    pub age: Duration,
}

/// Every upload remembered below `cache`, this user's folder of things that can be made again.
pub fn list(cache: &Path) -> Vec<Left> {
    files(cache).iter().filter_map(|file| read(file)).map(|(left, _)| left).collect()
}

/// Forgets those that are at least so old; how many there were.
pub fn prune(cache: &Path, older: Duration) -> usize {
    let old = |file: &&PathBuf| read(file).is_none_or(|(left, _)| left.age >= older);
    files(cache).iter().filter(old).filter(|file| fs::remove_file(file).is_ok()).count()
}

fn files(cache: &Path) -> Vec<PathBuf> {
    cache_file::files(&cache.join(FOLDER))
}

/// How an upload goes on.
struct Onward {
    /// As it was said.
    location: String,
    /// In bytes; 0: in one piece.
    chunk: u64,
    marks: Vec<HashCheckpoint>,
}

/// What `file` says, if it is this user's alone and whole.
fn read(file: &Path) -> Option<(Left, Onward)> {
    let (text, age) = cache_file::read(file)?;
    let lines = text.lines().collect::<Vec<_>>();
    let [host, repository, digest, location, chunk, marks @ ..] = &lines[..] else { return None };
    let (host, repository) = ((*host).to_owned(), (*repository).to_owned());
    let left = Left { host, repository, digest: digest.parse().ok()?, age };
    let marks = marks.iter().map_while(|line| hash_checkpoints::parse(line)).collect();
    Some((left, Onward { location: (*location).to_owned(), chunk: chunk.parse().ok()?, marks }))
}

/// An upload that can be gone on with.
pub struct Remembered {
    pub session: Url,
    /// In bytes, of each chunk, if it goes in chunks.
    pub chunk: Option<u64>,
    pub marks: Vec<HashCheckpoint>,
}

impl Target {
    fn file(&self, digest: &Digest) -> Option<PathBuf> {
        let key = format!("{}\n{}\n{digest}", self.wire.host, self.repository);
        Some(self.wire.access.cache.as_ref()?.join(FOLDER).join(Digest::of(key.as_bytes()).hex()))
    }

    /// Remembers where the upload of `digest` goes on. That it fails costs a later run some bytes, which is said once.
    pub fn remember(&self, digest: &Digest, session: &Url, chunk: Option<u64>, marks: &[HashCheckpoint]) {
        let Some(file) = self.file(digest) else { return };
        let (host, repository, chunk) = (&self.wire.host, &self.repository, chunk.unwrap_or(0));
        let marks: String = marks.iter().map(hash_checkpoints::line).collect();
        let text = format!("{host}\n{repository}\n{digest}\n{session}\n{chunk}\n{marks}");
        if let Err(error) = cache_file::write(&file, &text)
            && !self.wire.cache_warned.swap(true, Ordering::Relaxed)
        {
            let error = Error::writing(file.parent().unwrap_or(&file).display(), error);
            self.wire.watch.say(&format!("{error}; an upload that is interrupted will begin anew in the next run"));
        }
    }

    /// What an earlier run left of the upload of `digest`, if it may be gone on with.
    pub fn left(&self, digest: &Digest) -> Option<Remembered> {
        let (left, Onward { location, chunk, marks }) = read(&self.file(digest)?)?;
        let same = (&*left.host, &*left.repository, &left.digest) == (&*self.wire.host, &*self.repository, digest);
        if !same || left.age >= LIFE {
            return None;
        }
        let session = self.wire.location(self.wire.api().ok()?, &location).ok()?;
        Some(Remembered { session, chunk: Some(chunk).filter(|chunk| *chunk > 0), marks })
    }

    /// The upload of `digest` has ended.
    pub fn forget(&self, digest: &Digest) {
        if let Some(file) = self.file(digest) {
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache_file::write;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn what_others_could_read_or_write_is_not_believed() {
        let cache = tempfile::tempdir().unwrap();
        let file = cache.path().join(FOLDER).join("one");
        let digest = Digest::of(b"x");
        write(&file, &format!("h.lan\nteam/app\n{digest}\nhttps://h.lan/v2/up?state=secret\n0\n")).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(list(cache.path())[0].digest, digest);
        assert_eq!(prune(cache.path(), LIFE), 0);
        // Written again it stays its owner's, and cut short it is nothing.
        write(&file, &format!("h.lan\nteam/app\n{digest}\nhttps://h.lan/v2/up?state=secret\n1234")).unwrap();
        assert!(list(cache.path()).is_empty());
        write(&file, &format!("h.lan\nteam/app\n{digest}\nhttps://h.lan/v2/up?state=secret\n1234\n")).unwrap();
        assert_eq!(list(cache.path()).len(), 1);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(list(cache.path()).is_empty());
        assert_eq!(prune(cache.path(), LIFE), 1);
        assert!(!file.exists());
    }
}
