//! The blobs that the copies of a run have stored at one registry, so that a blob of several images is sent once: the
//! next repository mounts it.
//!
//! A blob counts as stored after its verified bytes were committed, or the registry answered that it has it. An upload is
//! entered while it lasts; a copy of another image may wait for it. Waiting threads hold no permit of the host's window
//! and no reservation, so that copies cannot wait for each other. If an upload stalls after its first bytes, the waiting
//! copy sends the blob itself.

use crate::cancel::Cancel;
use crate::error::Result;
use crate::image::Digest;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The limit on stored blobs in the book; it takes less than 4 MiB.
const MAX_BLOBS: usize = 1 << 14;
/// The limit on repositories of one blob in the book.
const MAX_REPOSITORIES: usize = 4;
/// The interval at which a waiting thread checks the cancel flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

type Blobs = HashMap<Digest, BlobEntry>;

/// The stored blobs and the uploads of a run at one registry.
#[derive(Default)]
pub struct BlobBook {
    blobs: Mutex<Blobs>,
    changed: Condvar,
    /// The registry has mounted a blob.
    mounts: AtomicBool,
    /// The registry has refused to mount a blob.
    refuses_mounts: AtomicBool,
}

#[derive(Default)]
struct BlobEntry {
    /// In bytes, where known.
    size: Option<u64>,
    /// The repositories that have the blob.
    stored: Vec<Arc<str>>,
    uploads: Vec<BlobUpload>,
    /// The number of writes of its uploads.
    progress: u64,
}

/// An upload of a blob.
struct BlobUpload {
    repository: Arc<str>,
    /// Its first bytes were read. Before, it waits for other transfers, and does not stall.
    has_begun: bool,
}

/// A question about a blob.
pub struct BlobQuery<'a> {
    pub digest: &'a Digest,
    /// In bytes, where known.
    pub size: Option<u64>,
    /// The repository that needs the blob.
    pub repository: &'a Arc<str>,
    /// Whether a blob may be mounted from a repository.
    pub may_mount: &'a dyn Fn(&str) -> bool,
    /// The limit on the wait for an upload without progress; `None`: the answer does not wait for uploads.
    pub wait: Option<Duration>,
}

/// The answer of the book.
pub enum BlobPlace {
    /// In the repository.
    Stored,
    /// In this other repository.
    Elsewhere(Arc<str>),
    /// Not known.
    Unknown(Reservation),
}

impl BlobBook {
    /// Returns the place of a blob. `Unknown` enters an upload. Fails with `Interrupted` once `cancel` is raised.
    pub fn find(self: &Arc<Self>, query: &BlobQuery<'_>, cancel: &Cancel) -> Result<BlobPlace> {
        let mut blobs = self.blobs();
        let mut waited: Option<(u64, Instant)> = None;
        loop {
            cancel.check()?;
            let Some(entry) = blobs.get(query.digest).filter(|entry| entry.has_size(query.size)) else { break };
            if entry.stored.contains(query.repository) {
                return Ok(BlobPlace::Stored);
            }
            let can_mount = |other: &&Arc<str>| other != &query.repository && (query.may_mount)(other);
            if let Some(other) = entry.stored.iter().find(can_mount).filter(|_| self.may_mount()) {
                return Ok(BlobPlace::Elsewhere(other.clone()));
            }
            let helps = |upload: &&BlobUpload| {
                upload.repository == *query.repository || self.may_mount() && can_mount(&&upload.repository)
            };
            let helpful = entry.uploads.iter().filter(helps);
            let Some(stall) = query.wait.filter(|_| helpful.clone().next().is_some()) else { break };
            match waited {
                _ if helpful.clone().any(|upload| !upload.has_begun) => waited = None,
                Some((progress, since)) if progress == entry.progress && since.elapsed() >= stall => break,
                Some((progress, _)) if progress == entry.progress => {}
                _ => waited = Some((entry.progress, Instant::now())),
            }
            blobs = self.changed.wait_timeout(blobs, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(BlobPlace::Unknown(self.reserve_in(&mut blobs, query.digest, query.repository)))
    }

    /// Enters an upload.
    pub fn reserve(self: &Arc<Self>, digest: &Digest, repository: &Arc<str>) -> Reservation {
        self.reserve_in(&mut self.blobs(), digest, repository)
    }

    fn reserve_in(self: &Arc<Self>, blobs: &mut Blobs, digest: &Digest, repository: &Arc<str>) -> Reservation {
        blobs.entry(*digest).or_default().uploads.push(BlobUpload { repository: repository.clone(), has_begun: false });
        Reservation { book: self.clone(), digest: *digest, repository: repository.clone() }
    }

    /// Records that `repository` has the blob.
    pub fn record(&self, digest: &Digest, size: Option<u64>, repository: &Arc<str>) {
        let mut blobs = self.blobs();
        if blobs.len() < MAX_BLOBS || blobs.contains_key(digest) {
            let entry = blobs.entry(*digest).or_default();
            entry.size = size.or(entry.size);
            if !entry.stored.contains(repository) {
                entry.stored.truncate(MAX_REPOSITORIES - 1);
                entry.stored.push(repository.clone());
            }
        }
        drop(blobs);
        self.changed.notify_all();
    }

    /// Records that `repository` has the blob, unless one has it already. Returns whether none had it.
    pub fn claim(&self, digest: &Digest, size: u64, repository: &Arc<str>) -> bool {
        let mut blobs = self.blobs();
        let is_new = blobs.get(digest).is_none_or(|entry| entry.stored.is_empty());
        if is_new && blobs.len() < MAX_BLOBS {
            let entry = blobs.entry(*digest).or_default();
            entry.size = Some(size);
            entry.stored.push(repository.clone());
        }
        is_new
    }

    /// Records the answer to a request to mount.
    pub fn record_mount(&self, mounted: bool) {
        if mounted { &self.mounts } else { &self.refuses_mounts }.store(true, Ordering::Relaxed);
    }

    /// Whether a request to mount may succeed: one has, or none was refused.
    fn may_mount(&self) -> bool {
        self.mounts.load(Ordering::Relaxed) || !self.refuses_mounts.load(Ordering::Relaxed)
    }

    fn blobs(&self) -> MutexGuard<'_, Blobs> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobEntry {
    fn has_size(&self, size: Option<u64>) -> bool {
        self.size.is_none() || size.is_none() || self.size == size
    }
}

/// An upload in the book, until it is dropped.
pub struct Reservation {
    book: Arc<BlobBook>,
    digest: Digest,
    repository: Arc<str>,
}

impl Reservation {
    /// Records that the upload has taken bytes.
    pub fn progressed(&self) {
        if let Some(entry) = self.book.blobs().get_mut(&self.digest) {
            entry.progress = entry.progress.wrapping_add(1);
            let own = entry.uploads.iter_mut().filter(|upload| upload.repository == self.repository);
            own.for_each(|upload| upload.has_begun = true);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut blobs = self.book.blobs();
        let is_full = blobs.len() > MAX_BLOBS;
        if let Some(entry) = blobs.get_mut(&self.digest) {
            if let Some(at) = entry.uploads.iter().position(|upload| upload.repository == self.repository) {
                entry.uploads.swap_remove(at);
            }
            if entry.uploads.is_empty() && (entry.stored.is_empty() || is_full) {
                blobs.remove(&self.digest);
            }
        }
        drop(blobs);
        self.book.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    fn names() -> [Arc<str>; 2] {
        ["team/a".into(), "team/b".into()]
    }

    /// The place of the blob `text` for `repository`, with `wait`.
    fn place(book: &Arc<BlobBook>, text: &str, repository: &Arc<str>, wait: Option<Duration>) -> BlobPlace {
        let digest = Digest::of(text.as_bytes());
        let query = BlobQuery { digest: &digest, size: Some(1), repository, may_mount: &|_| true, wait };
        book.find(&query, &Cancel::default()).unwrap()
    }

    #[test]
    fn a_blob_is_known_where_it_is_stored_and_elsewhere() {
        let (book, [a, b]) = (Arc::new(BlobBook::default()), names());
        book.record(&Digest::of(b"x"), Some(1), &a);
        assert!(matches!(place(&book, "x", &a, None), BlobPlace::Stored));
        assert!(matches!(place(&book, "x", &b, None), BlobPlace::Elsewhere(from) if from == a));
        book.record_mount(false);
        assert!(matches!(place(&book, "x", &b, None), BlobPlace::Unknown(_)));
        book.record_mount(true);
        assert!(matches!(place(&book, "x", &b, None), BlobPlace::Elsewhere(_)));
        // Another size is another answer of the registry, which the upload corrects.
        book.record(&Digest::of(b"x"), Some(2), &b);
        assert!(matches!(place(&book, "x", &b, None), BlobPlace::Unknown(_)));
    }

    #[test]
    fn an_upload_is_waited_for_until_it_ends() {
        const LONG: Option<Duration> = Some(Duration::from_secs(3600));
        for is_stored in [true, false] {
            let (book, [a, b]) = (Arc::new(BlobBook::default()), names());
            let BlobPlace::Unknown(upload) = place(&book, "x", &a, LONG) else { panic!("nothing is known yet") };
            // Without a wait, both copies send it.
            assert!(matches!(place(&book, "x", &b, None), BlobPlace::Unknown(_)));
            let (answers, answer) = channel();
            let waiting = book.clone();
            let other = b.clone();
            let thread = thread::spawn(move || answers.send(place(&waiting, "x", &other, LONG)).unwrap());
            if is_stored {
                book.record(&Digest::of(b"x"), Some(1), &a);
            }
            drop(upload);
            let found = answer.recv().unwrap();
            assert_eq!(matches!(found, BlobPlace::Elsewhere(_)), is_stored);
            drop(found);
            thread.join().unwrap();
            assert_eq!(book.blobs().len(), usize::from(is_stored));
        }
    }

    #[test]
    fn an_upload_that_stalls_is_not_waited_for() {
        let (book, [a, b]) = (Arc::new(BlobBook::default()), names());
        let BlobPlace::Unknown(stalled) = place(&book, "x", &a, None) else { panic!("nothing is known yet") };
        stalled.progressed();
        assert!(matches!(place(&book, "x", &b, Some(Duration::ZERO)), BlobPlace::Unknown(_)));
    }

    #[test]
    fn an_upload_that_waits_for_its_first_bytes_does_not_stall() {
        let (book, [a, b]) = (Arc::new(BlobBook::default()), names());
        let BlobPlace::Unknown(upload) = place(&book, "x", &a, None) else { panic!("nothing is known yet") };
        let (answers, answer) = channel();
        let waiting = book.clone();
        let thread = thread::spawn(move || answers.send(place(&waiting, "x", &b, Some(Duration::ZERO))).unwrap());
        assert!(answer.recv_timeout(3 * POLL_INTERVAL).is_err());
        upload.progressed();
        assert!(matches!(answer.recv().unwrap(), BlobPlace::Unknown(_)));
        thread.join().unwrap();
    }

    #[test]
    fn a_full_book_takes_no_more_blobs() {
        let (book, [a, b]) = (Arc::new(BlobBook::default()), names());
        for n in 0..MAX_BLOBS + 9 {
            book.record(&Digest::of(n.to_string().as_bytes()), None, &a);
        }
        assert_eq!(book.blobs().len(), MAX_BLOBS);
        drop(place(&book, "x", &b, None));
        assert_eq!(book.blobs().len(), MAX_BLOBS);
    }
}
