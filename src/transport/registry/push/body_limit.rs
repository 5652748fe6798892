//! How large a request's body may be at one registry, or at the proxy before it (nginx: 1 MB by default, Cloudflare:
//! 100 MB), and whether it takes a blob in chunks. Learned from refusals, shared by all uploads of a run, and kept in the
//! user's cache for the next runs.

use super::cache_file;
use crate::image::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// In bytes: shorter chunks are not sent, whatever is refused.
pub const SHORTEST: u64 = 256 << 10;
/// How long a limit is believed that no refusal confirms.
pub const LIFE: Duration = Duration::from_secs(7 * DAY);
/// A limit that is older is tried once with a larger chunk.
const TRIED_AFTER: Duration = Duration::from_secs(DAY);
const DAY: u64 = 24 * 60 * 60;
const FOLDER: &str = "limits";

/// A limit that an earlier run has learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// `HOST[:PORT]`.
    pub host: String,
    /// In bytes, of a request's body; none where only chunks are refused.
    pub most: Option<u64>,
    /// A blob in several chunks is refused.
    pub whole: bool,
    /// Since a refusal was last seen.
    pub age: Duration,
}

/// Every limit remembered below `cache`, this user's folder of things that can be made again.
pub fn list(cache: &Path) -> Vec<Learned> {
    cache_file::files(&cache.join(FOLDER)).iter().filter_map(|file| read(file)).collect()
}

/// Forgets those that are at least so old; how many there were.
pub fn prune(cache: &Path, older: Duration) -> usize {
    let old = |file: &&PathBuf| read(file).is_none_or(|learned| learned.age >= older);
    cache_file::files(&cache.join(FOLDER)).iter().filter(old).filter(|file| fs::remove_file(file).is_ok()).count()
}

fn read(file: &Path) -> Option<Learned> {
    let (text, age) = cache_file::read(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let [host, most, whole] = lines[..] else { return None };
    let most = Some(most.parse().ok()?).filter(|most| *most > 0);
    if most.is_some_and(|most| most < SHORTEST) {
        return None;
    }
    Some(Learned { host: host.to_owned(), most, whole: whole == "whole", age })
}

/// What is known of one registry.
pub struct BodyLimit {
    host: String,
    /// Where it is kept; nowhere when none.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In bytes: larger bodies are not sent.
    most: Option<u64>,
    whole: bool,
    /// In bytes: a larger body that one upload is to try.
    trial: Option<u64>,
    /// Learned, and not seen to hold yet.
    new: bool,
    /// In bytes: the largest body that was taken in this run.
    taken: u64,
}

impl BodyLimit {
    /// Of `host` (`HOST[:PORT]`), with what an earlier run has learned.
    pub fn new(host: &str, cache: Option<&Path>) -> BodyLimit {
        let file = cache.map(|cache| cache.join(FOLDER).join(Digest::of(host.as_bytes()).hex()));
        let learned = file.as_deref().and_then(read).filter(|learned| learned.host == host && learned.age < LIFE);
        let state = learned.map_or_else(State::default, |Learned { most, whole, age, .. }| State {
            most,
            whole,
            trial: most.filter(|_| age >= TRIED_AFTER).map(|most| most.saturating_mul(2)),
            ..State::default()
        });
        BodyLimit { host: host.to_owned(), file, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In bytes, of a request's body; none where no limit was met.
    pub fn most(&self) -> Option<u64> {
        self.state().most
    }

    /// Whether a blob in several chunks is refused.
    pub fn wants_whole_blobs(&self) -> bool {
        self.state().whole
    }

    /// The size of a larger body that is to be tried, in bytes. Given once.
    pub fn trial(&self) -> Option<u64> {
        self.state().trial.take()
    }

    /// A body of `size` bytes was refused. The size to send next; none where all that is left to try is shorter than
    /// `least`, the chunks that the registry wants, or than [`SHORTEST`].
    pub fn refused(&self, size: u64, least: u64) -> Option<u64> {
        if size <= SHORTEST.max(least) {
            return None;
        }
        let half = 1 << (size / 2).ilog2();
        let mut state = self.state();
        let most = state.most.map_or(half, |most| most.min(half)).max(SHORTEST);
        (state.most, state.new) = (Some(most), true);
        Some(most.max(least))
    }

    /// Whether a body of `size` bytes may be too large: none of that size was taken so far.
    pub fn may_refuse(&self, size: u64) -> bool {
        size > self.state().taken
    }

    /// A body of `size` bytes was taken.
    pub fn passed(&self, size: u64) {
        let mut state = self.state();
        state.taken = state.taken.max(size);
        let Some(most) = state.most else { return };
        if size > most {
            (state.most, state.new) = (Some(size), true);
        }
        // A body that is much shorter than the limit says nothing about it.
        if state.new && size > most / 2 {
            self.keep(&mut state);
        }
    }

    /// A blob in several chunks was refused.
    pub fn refused_chunks(&self) {
        let mut state = self.state();
        state.whole = true;
        self.keep(&mut state);
    }

    /// That it fails costs a later run a few requests.
    fn keep(&self, state: &mut State) {
        state.new = false;
        if let Some(file) = &self.file {
            let form = if state.whole { "whole" } else { "chunks" };
            let _ = cache_file::write(file, &format!("{}\n{}\n{form}\n", self.host, state.most.unwrap_or(0)));
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
        for (size, least, next) in [
            (9 * MIB, 0, Some(4 * MIB)),
            (4 * MIB + 1, 0, Some(2 * MIB)),
            (MIB, 0, Some(512 << 10)),
            (300 << 10, 0, Some(SHORTEST)),
            (SHORTEST, 0, None),
            (100, 0, None),
            (9 * MIB, 5 * MIB, Some(5 * MIB)),
            (5 * MIB, 5 * MIB, None),
        ] {
            assert_eq!(BodyLimit::new("r.lan", None).refused(size, least), next, "{size} {least}");
        }
        let limit = BodyLimit::new("r.lan", None);
        limit.refused(4 * MIB, 0);
        // Another upload, which had begun before that was known.
        assert_eq!((limit.refused(64 * MIB, 0), limit.most()), (Some(2 * MIB), Some(2 * MIB)));
    }

    #[test]
    fn a_limit_is_kept_for_its_host_and_port_once_it_has_held() {
        let cache = tempfile::tempdir().unwrap();
        let of = |host: &str| BodyLimit::new(host, Some(cache.path()));
        let first = of("r.lan:5000");
        first.refused(9 * MIB, 0);
        first.passed(100);
        assert_eq!(of("r.lan:5000").most(), None);
        first.passed(4 * MIB);
        assert_eq!(of("r.lan:5000").most(), Some(4 * MIB));
        assert_eq!((of("r.lan").most(), of("r.lan:5001").most()), (None, None));
        assert_eq!(list(cache.path())[0].most, Some(4 * MIB));
    }

    #[test]
    fn a_larger_body_is_tried_after_a_day_and_the_limit_forgotten_after_a_week() {
        let cache = tempfile::tempdir().unwrap();
        let of = || BodyLimit::new("r.lan", Some(cache.path()));
        let older = |days: u64| {
            let file = cache_file::files(&cache.path().join(FOLDER)).remove(0);
            let then = SystemTime::now() - Duration::from_secs(days * DAY);
            fs::File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
        };
        let limit = of();
        limit.refused(4 * MIB, 0);
        limit.passed(2 * MIB);
        assert_eq!(of().trial(), None);
        older(2);
        let second = of();
        assert_eq!((second.trial(), second.trial()), (Some(4 * MIB), None));
        // Refused: the limit holds, and is fresh again.
        assert_eq!(second.refused(4 * MIB, 0), Some(2 * MIB));
        second.passed(2 * MIB);
        assert_eq!((of().most(), of().trial()), (Some(2 * MIB), None));
        older(2);
        let third = of();
        third.trial();
        third.passed(4 * MIB);
        assert_eq!(of().most(), Some(4 * MIB));
        older(8);
        assert_eq!(of().most(), None);
        assert_eq!((prune(cache.path(), LIFE), list(cache.path()).len()), (1, 0));
    }
}
