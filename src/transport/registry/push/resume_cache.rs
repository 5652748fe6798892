//! Unfinished uploads in the user's cache, so that a later run resumes at the registry's offset. A session's URL
//! grants write access: the file is private to its owner, valid for one host, and expires.

use super::target::Target;
use crate::disk::cache_file;
use crate::disk::hash_checkpoints;
use crate::disk::hash_checkpoints::HashCheckpoint;
use crate::error::Error;
use crate::image::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use url::Url;

/// Entries older than this are ignored. docker-registry purges uploads after a week; most other registries earlier.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const UPLOADS_DIRECTORY: &str = "uploads";

/// An upload that an earlier run did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// `HOST[:PORT]`.
    pub host: String,
    pub repository: String,
    pub digest: Digest,
    pub age: Duration,
}

/// Lists the unfinished uploads in `cache`, the user's cache directory of imgmv.
pub fn list(cache: &Path) -> Vec<UnfinishedUpload> {
    files(cache).iter().filter_map(|file| read(file)).map(|(upload, _)| upload).collect()
}

/// Removes uploads of at least age `older`; returns their number.
pub fn prune(cache: &Path, older: Duration) -> usize {
    let old = |file: &&PathBuf| read(file).is_none_or(|(upload, _)| upload.age >= older);
    files(cache).iter().filter(old).filter(|file| fs::remove_file(file).is_ok()).count()
}

fn files(cache: &Path) -> Vec<PathBuf> {
    cache_file::files(&cache.join(UPLOADS_DIRECTORY))
}

/// The part of a file that resuming needs.
struct ResumePoint {
    /// As the registry sent it.
    location: String,
    /// The chunk size in bytes; 0: one request.
    chunk: u64,
    checkpoints: Vec<HashCheckpoint>,
}

/// Parses `file`; `None` unless it is complete and private to this user.
fn read(file: &Path) -> Option<(UnfinishedUpload, ResumePoint)> {
    let (text, age) = cache_file::read(file)?;
    let lines = text.lines().collect::<Vec<_>>();
    let [host, repository, digest, location, chunk, checkpoints @ ..] = &lines[..] else { return None };
    let (host, repository) = ((*host).to_owned(), (*repository).to_owned());
    let upload = UnfinishedUpload { host, repository, digest: digest.parse().ok()?, age };
    let checkpoints = checkpoints.iter().map_while(|line| hash_checkpoints::from_line(line)).collect();
    Some((upload, ResumePoint { location: (*location).to_owned(), chunk: chunk.parse().ok()?, checkpoints }))
}

/// An upload that can resume.
pub struct ResumableUpload {
    pub session: Url,
    /// The chunk size in bytes; `None`: one request.
    pub chunk: Option<u64>,
    pub checkpoints: Vec<HashCheckpoint>,
}

impl Target {
    fn file(&self, digest: &Digest) -> Option<PathBuf> {
        let key = format!("{}\n{}\n{digest}", self.client.host, self.repository);
        Some(self.client.access.cache_dir.as_ref()?.join(UPLOADS_DIRECTORY).join(Digest::of(key.as_bytes()).hex()))
    }

    /// Saves where the upload of `digest` resumes. A failure is reported once: a later run then sends the blob again.
    pub fn save_upload(&self, digest: &Digest, session: &Url, chunk: Option<u64>, checkpoints: &[HashCheckpoint]) {
        let Some(file) = self.file(digest) else { return };
        let (host, repository, chunk) = (&self.client.host, &self.repository, chunk.unwrap_or(0));
        let checkpoints: String = checkpoints.iter().map(hash_checkpoints::to_line).collect();
        let text = format!("{host}\n{repository}\n{digest}\n{session}\n{chunk}\n{checkpoints}");
        if let Err(error) = cache_file::write(&file, &text)
            && !self.client.cache_warned.swap(true, Ordering::Relaxed)
        {
            let error = Error::writing(file.parent().unwrap_or(&file).display(), error);
            self.client.watch.say(&format!("{error}; an interrupted upload cannot resume in the next run"));
        }
    }

    /// The upload of `digest` that an earlier run saved, unless it is too old.
    pub fn saved_upload(&self, digest: &Digest) -> Option<ResumableUpload> {
        let (upload, ResumePoint { location, chunk, checkpoints }) = read(&self.file(digest)?)?;
        let same =
            (&*upload.host, &*upload.repository, &upload.digest) == (&*self.client.host, &*self.repository, digest);
        if !same || upload.age >= MAX_AGE {
            return None;
        }
        let session = self.client.location(self.client.api().ok()?, &location).ok()?;
        Some(ResumableUpload { session, chunk: Some(chunk).filter(|chunk| *chunk > 0), checkpoints })
    }

    /// Removes the saved upload of `digest`.
    pub fn forget_upload(&self, digest: &Digest) {
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
        let file = cache.path().join(UPLOADS_DIRECTORY).join("one");
        let digest = Digest::of(b"x");
        write(&file, &format!("h.lan\nteam/app\n{digest}\nhttps://h.lan/v2/up?state=secret\n0\n")).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(list(cache.path())[0].digest, digest);
        assert_eq!(prune(cache.path(), MAX_AGE), 0);
        // A rewritten file stays private; a truncated one is ignored.
        write(&file, &format!("h.lan\nteam/app\n{digest}\nhttps://h.lan/v2/up?state=secret\n1234")).unwrap();
        assert!(list(cache.path()).is_empty());
        write(&file, &format!("h.lan\nteam/app\n{digest}\nhttps://h.lan/v2/up?state=secret\n1234\n")).unwrap();
        assert_eq!(list(cache.path()).len(), 1);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(list(cache.path()).is_empty());
        assert_eq!(prune(cache.path(), MAX_AGE), 1);
        assert!(!file.exists());
    }
}
