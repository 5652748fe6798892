//! The maximum size of a request body at one registry, or at the proxy before it (nginx: 1 MB by default, Cloudflare:
//! 100 MB), and whether the registry accepts chunks. Learned from refusals, shared by all uploads of a run, and stored
//! in the user's cache.

use crate::disk::cache_file;
use crate::image::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shorter chunks are never sent.
pub const MIN_CHUNK_BYTES: u64 = 256 << 10;
/// A limit that no refusal confirms expires after this time.
pub const MAX_AGE: Duration = Duration::from_secs(7 * DAY_SECONDS);
/// A limit of this age is tested once with a larger chunk.
const MIN_TRIAL_AGE: Duration = Duration::from_secs(DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 60 * 60;
const LIMITS_DIRECTORY: &str = "limits";

/// A limit that an earlier run learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedLimit {
    /// `HOST[:PORT]`.
    pub host: String,
    /// The maximum size of a request body, in bytes; `None` if the registry only refuses chunks.
    pub max_body: Option<u64>,
    /// The registry refuses a blob in several chunks.
    pub refuses_chunks: bool,
    /// The time since the last refusal.
    pub age: Duration,
}

/// Lists the limits in `cache`, the user's cache directory of imgmv.
pub fn list(cache: &Path) -> Vec<LearnedLimit> {
    cache_file::files(&cache.join(LIMITS_DIRECTORY)).iter().filter_map(|file| read(file)).collect()
}

/// Removes limits of at least age `older`; returns their number.
pub fn prune(cache: &Path, older: Duration) -> usize {
    let old = |file: &&PathBuf| read(file).is_none_or(|learned| learned.age >= older);
    cache_file::files(&cache.join(LIMITS_DIRECTORY))
        .iter()
        .filter(old)
        .filter(|file| fs::remove_file(file).is_ok())
        .count()
}

fn read(file: &Path) -> Option<LearnedLimit> {
    let (text, age) = cache_file::read(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let [host, max_body, form] = lines[..] else { return None };
    let max_body = Some(max_body.parse().ok()?).filter(|bytes| *bytes > 0);
    if max_body.is_some_and(|bytes| bytes < MIN_CHUNK_BYTES) {
        return None;
    }
    Some(LearnedLimit { host: host.to_owned(), max_body, refuses_chunks: form == "whole", age })
}

/// The body limit of one registry.
pub struct BodyLimit {
    host: String,
    /// `None`: the limit is not saved.
    file: Option<PathBuf>,
    state: Mutex<LimitState>,
}

#[derive(Default)]
struct LimitState {
    /// In bytes.
    max_body: Option<u64>,
    refuses_chunks: bool,
    /// The size (bytes) of a larger body that one upload is to try.
    trial: Option<u64>,
    /// No body near the limit was accepted yet.
    unconfirmed: bool,
    /// The largest body that was accepted in this run, in bytes.
    largest_accepted: u64,
}

impl BodyLimit {
    /// For `host` (`HOST[:PORT]`), with the limit that an earlier run saved in `cache`.
    pub fn new(host: &str, cache: Option<&Path>) -> BodyLimit {
        let file = cache.map(|cache| cache.join(LIMITS_DIRECTORY).join(Digest::of(host.as_bytes()).hex()));
        let learned = file.as_deref().and_then(read).filter(|learned| learned.host == host && learned.age < MAX_AGE);
        let state =
            learned.map_or_else(LimitState::default, |LearnedLimit { max_body, refuses_chunks, age, .. }| LimitState {
                max_body,
                refuses_chunks,
                trial: max_body.filter(|_| age >= MIN_TRIAL_AGE).map(|bytes| bytes.saturating_mul(2)),
                ..LimitState::default()
            });
        BodyLimit { host: host.to_owned(), file, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, LimitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The maximum size of a request body, in bytes; `None` if no limit is known.
    pub fn max_body(&self) -> Option<u64> {
        self.state().max_body
    }

    /// Whether the registry refuses a blob in several chunks.
    pub fn refuses_chunks(&self) -> bool {
        self.state().refuses_chunks
    }

    /// The size (bytes) of a larger body to try; only the first caller gets it.
    pub fn take_trial(&self) -> Option<u64> {
        self.state().trial.take()
    }

    /// Records that a body of `size` bytes was refused; returns the next size to try. `None` if that would be below
    /// `min_chunk` (the registry's minimum) or [`MIN_CHUNK_BYTES`].
    pub fn body_refused(&self, size: u64, min_chunk: u64) -> Option<u64> {
        if size <= MIN_CHUNK_BYTES.max(min_chunk) {
            return None;
        }
        let half = 1 << (size / 2).ilog2();
        let mut state = self.state();
        let limit = state.max_body.map_or(half, |known| known.min(half)).max(MIN_CHUNK_BYTES);
        (state.max_body, state.unconfirmed) = (Some(limit), true);
        Some(limit.max(min_chunk))
    }

    /// Whether a body of `size` bytes may be too large: no body of that size was accepted in this run.
    pub fn may_refuse(&self, size: u64) -> bool {
        size > self.state().largest_accepted
    }

    /// Records that a body of `size` bytes was accepted.
    pub fn body_accepted(&self, size: u64) {
        let mut state = self.state();
        state.largest_accepted = state.largest_accepted.max(size);
        let Some(limit) = state.max_body else { return };
        if size > limit {
            (state.max_body, state.unconfirmed) = (Some(size), true);
        }
        // Only a body near the limit confirms it.
        if state.unconfirmed && size > limit / 2 {
            self.save(&mut state);
        }
    }

    /// Records that a blob in several chunks was refused.
    pub fn chunks_refused(&self) {
        let mut state = self.state();
        state.refuses_chunks = true;
        self.save(&mut state);
    }

    /// Errors are ignored: a later run learns the limit again with a few requests.
    fn save(&self, state: &mut LimitState) {
        state.unconfirmed = false;
        if let Some(file) = &self.file {
            let form = if state.refuses_chunks { "whole" } else { "chunks" };
            let _ = cache_file::write(file, &format!("{}\n{}\n{form}\n", self.host, state.max_body.unwrap_or(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_refused_body_is_halved_down_to_the_shortest_that_may_be_sent() {
        for (size, min_chunk, next) in [
            (9 * MIB, 0, Some(4 * MIB)),
            (4 * MIB + 1, 0, Some(2 * MIB)),
            (MIB, 0, Some(512 << 10)),
            (300 << 10, 0, Some(MIN_CHUNK_BYTES)),
            (MIN_CHUNK_BYTES, 0, None),
            (100, 0, None),
            (9 * MIB, 5 * MIB, Some(5 * MIB)),
            (5 * MIB, 5 * MIB, None),
        ] {
            assert_eq!(BodyLimit::new("r.lan", None).body_refused(size, min_chunk), next, "{size} {min_chunk}");
        }
        let limit = BodyLimit::new("r.lan", None);
        limit.body_refused(4 * MIB, 0);
        // Another upload that started before the refusal.
        assert_eq!((limit.body_refused(64 * MIB, 0), limit.max_body()), (Some(2 * MIB), Some(2 * MIB)));
    }

    #[test]
    fn a_limit_is_kept_for_its_host_and_port_once_it_has_held() {
        let cache = tempfile::tempdir().unwrap();
        let of = |host: &str| BodyLimit::new(host, Some(cache.path()));
        let first = of("r.lan:5000");
        first.body_refused(9 * MIB, 0);
        first.body_accepted(100);
        assert_eq!(of("r.lan:5000").max_body(), None);
        first.body_accepted(4 * MIB);
        assert_eq!(of("r.lan:5000").max_body(), Some(4 * MIB));
        assert_eq!((of("r.lan").max_body(), of("r.lan:5001").max_body()), (None, None));
        assert_eq!(list(cache.path())[0].max_body, Some(4 * MIB));
    }

    #[test]
    fn a_larger_body_is_tried_after_a_day_and_the_limit_forgotten_after_a_week() {
        let cache = tempfile::tempdir().unwrap();
        let of = || BodyLimit::new("r.lan", Some(cache.path()));
        let older = |days: u64| {
            let file = cache_file::files(&cache.path().join(LIMITS_DIRECTORY)).remove(0);
            let then = SystemTime::now() - Duration::from_secs(days * DAY_SECONDS);
            fs::File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
        };
        let limit = of();
        limit.body_refused(4 * MIB, 0);
        limit.body_accepted(2 * MIB);
        assert_eq!(of().take_trial(), None);
        older(2);
        let second = of();
        assert_eq!((second.take_trial(), second.take_trial()), (Some(4 * MIB), None));
        // Refused: the limit is confirmed and its age starts again.
        assert_eq!(second.body_refused(4 * MIB, 0), Some(2 * MIB));
        second.body_accepted(2 * MIB);
        assert_eq!((of().max_body(), of().take_trial()), (Some(2 * MIB), None));
        older(2);
        let third = of();
        third.take_trial();
        third.body_accepted(4 * MIB);
        assert_eq!(of().max_body(), Some(4 * MIB));
        older(8);
        assert_eq!(of().max_body(), None);
        assert_eq!((prune(cache.path(), MAX_AGE), list(cache.path()).len()), (1, 0));
    }
}
