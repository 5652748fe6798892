//! Files that several processes share: directories without links, directories whose links stay inside, file locks,
//! checkpoints of partial files and of hashes, small files of the user's cache.

pub(crate) mod cache_file;
pub(crate) mod checkpoints;
pub(crate) mod directory;
pub(crate) mod hash_checkpoints;
pub(crate) mod lock;
pub(crate) mod rooted;

use std::time::Duration;

/// The default of `--keep-partials`: an interrupted copy can be resumed after a weekend or a week's leave, and the files
/// of abandoned copies do not fill the disk for longer.
pub(crate) const PARTIAL_LIFETIME_DAYS: u64 = 7;
/// [`PARTIAL_LIFETIME_DAYS`] as a duration.
pub(crate) const PARTIAL_LIFETIME: Duration = Duration::from_secs(PARTIAL_LIFETIME_DAYS * DAY_SECONDS);
/// Seconds in a day.
pub(crate) const DAY_SECONDS: u64 = 24 * 60 * 60;
