//! Saved states of the hash of a blob from a registry, in the user's cache: a later run then does not download the bytes
//! again that containerd has. They depend on the blob only, so that they fit any containerd.

use crate::disk::cache_file;
use crate::disk::hash_checkpoints::{HashCheckpoints, from_line, to_line};
use crate::image::{Digest, Hasher};
use crate::source::Claim;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// containerd keeps an unfinished blob as long.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const DIRECTORY: &str = "ingests";

/// The hash of one blob while it is written.
pub(super) struct HashStates {
    file: PathBuf,
    digest: Digest,
    checkpoints: HashCheckpoints,
}

impl HashStates {
    /// For a blob whose digest and size are known, in the cache directory `cache`; else `None`.
    pub fn for_blob(cache: Option<&Path>, blob: &Claim) -> Option<HashStates> {
        let (cache, digest, size) = (cache?, blob.digest?, blob.size?);
        let file = cache.join(DIRECTORY).join(digest.hex());
        Some(HashStates { file, digest, checkpoints: HashCheckpoints::new(digest.algorithm(), size) })
    }

    /// The offset of the last state that is not behind `offset`, and the hasher there; else 0 and a fresh hasher.
    pub fn resume(&mut self, offset: u64) -> (u64, Hasher) {
        let saved = read(&self.file).filter(|(digest, _, _)| *digest == self.digest).map(|(_, _, lines)| lines);
        let checkpoints = saved.iter().flat_map(|text| text.lines()).map_while(from_line).collect();
        self.checkpoints.resume(self.digest.algorithm(), checkpoints, offset)
    }

    /// Adds `bytes` at offset `from`. Without a writable cache, a later run hashes them again.
    pub fn update(&mut self, from: u64, bytes: &[u8]) {
        if self.checkpoints.update(from, bytes) {
            let lines: String = self.checkpoints.recorded().iter().map(to_line).collect();
            let _ = cache_file::write(&self.file, &format!("{}\n{lines}", self.digest));
        }
    }

    /// Removes the states: the blob is stored, or its bytes were wrong.
    pub fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// The digest, the age and the lines of `file`; `None` unless it is complete and private to this user.
fn read(file: &Path) -> Option<(Digest, Duration, String)> {
    let (text, age) = cache_file::read(file)?;
    let (digest, lines) = text.split_once('\n')?;
    Some((digest.parse().ok()?, age, lines.to_owned()))
}

/// Lists the blobs with saved states in `cache`, the user's cache directory of imgmv, and their ages.
pub(crate) fn list(cache: &Path) -> Vec<(Digest, Duration)> {
    let files = cache_file::files(&cache.join(DIRECTORY));
    files.iter().filter_map(|file| read(file)).map(|(digest, age, _)| (digest, age)).collect()
}

/// Removes states of at least age `older`; returns the number of blobs.
pub(crate) fn prune(cache: &Path, older: Duration) -> usize {
    let is_old = |file: &&PathBuf| read(file).is_none_or(|(_, age, _)| age >= older);
    let files = cache_file::files(&cache.join(DIRECTORY));
    files.iter().filter(is_old).filter(|file| fs::remove_file(file).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_run_hashes_on_from_a_saved_state() {
        let cache = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..10_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
        let digest = Digest::of(&bytes);
        let of = |digest| {
            let claim = Claim { digest: Some(digest), size: Some(bytes.len() as u64) };
            HashStates::for_blob(Some(cache.path()), &claim).unwrap()
        };
        let states = || of(digest);
        let mut first = states();
        assert_eq!(first.resume(bytes.len() as u64).0, 0);
        for (number, part) in bytes.chunks(1 << 20).enumerate() {
            first.update((number << 20) as u64, part);
        }
        assert_eq!(list(cache.path()).len(), 1);
        let (from, hasher) = states().resume(7 << 20);
        assert_eq!((from, hasher.with(&bytes[from as usize..]).finish()), (4 << 20, digest));
        assert_eq!(states().resume(1 << 20).0, 0);
        let other = Digest::of(b"other");
        let file = |digest: Digest| cache.path().join(DIRECTORY).join(digest.hex());
        fs::rename(file(digest), file(other)).unwrap();
        assert_eq!(of(other).resume(7 << 20).0, 0);
        assert_eq!((prune(cache.path(), MAX_AGE), prune(cache.path(), Duration::ZERO)), (0, 1));
        assert!(list(cache.path()).is_empty());
    }
}
