//! The referrers tags that a copy writes, for a registry without the referrers API (distribution-spec, "Referrers Tag
//! Schema").
//!
//! The protocol has no conditional write of a tag. A writer that has read a list can replace it later, without the
//! entries that others added in between, so imgmv reads a list three times:
//!
//! 1. before its write, to merge its entries ([`TagWriter::add`]);
//! 2. after its write, before a name of the image is written. A lost entry is written again after a random pause, since
//!    several writers would otherwise disturb each other again;
//! 3. at the end of the copy ([`TagWriter::settle`]), after a pause that is several times the slowest addition of this
//!    copy. The writers that had read the list before have then written it. Each change by others costs another pause,
//!    so the copy ends only if a list stays the same for a whole pause.
//!
//! One case remains. A writer that needs longer than the pause between its read and its write can remove an entry after
//! the last read, and no writer notices. Its connection stalled, its failed request was repeated, or it is another
//! program that reads the list long before it writes.

use super::http::client::RegistryClient;
use super::http::retry::{pause, random_fraction};
use super::referrers::{MAX_REFERRERS, error_at, fetch_tagged};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, referrers_tag, with_referrers};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of times that a referrers tag is written, where other writers replace it.
const MAX_TAG_UPDATES: usize = 5;
/// The number of pauses at the end of a copy. Only writers that add entries all the time need more.
const MAX_PAUSES: usize = 20;
/// A pause at the end is at least this long, so that a busy host does not make a fast writer slower than it.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A pause at the end is at least this many times the slowest addition, and at most twice as long.
const PAUSE_FACTOR: u32 = 4;
/// The largest number of times that the pause before another write is doubled.
const MAX_DOUBLINGS: u32 = 6;

/// The referrers tags that one copy wrote.
#[derive(Default)]
pub struct WrittenTags(Mutex<Written>);

#[derive(Default)]
struct Written {
    /// By the subject.
    tags: BTreeMap<Digest, WrittenTag>,
    /// The longest time between the start of a read and the end of the write that followed.
    slowest: Duration,
}

struct WrittenTag {
    /// The entries that this copy added.
    entries: Vec<Descriptor>,
    /// The number of writes of the latest addition.
    writes: usize,
    /// The digest of the list that was written or read last.
    list: Digest,
}

/// Writes the referrers tags of one repository.
pub struct TagWriter<'a> {
    pub client: &'a RegistryClient,
    pub repository: &'a str,
    pub written: &'a WrittenTags,
    /// Stores an index under a tag.
    pub put: &'a dyn Fn(&Manifest, &str) -> Result<()>,
}

/// The state of a referrers tag after it was read and, where entries were missing, written.
enum Update {
    /// It has all entries; the digest of the list.
    Complete(Option<Digest>),
    /// It was written; the digest of the new list.
    Written(Digest),
}

impl TagWriter<'_> {
    /// Adds `referrers` to the index under the referrers tag of `subject` ("Pushing Manifests with Subject").
    ///
    /// # Errors
    /// - `Failed`: other writers removed an entry each time, or the list would be too long.
    pub fn add(&self, subject: &Digest, referrers: &[Descriptor]) -> Result<()> {
        let mut writes = 0;
        loop {
            match self.update(subject, referrers, writes)? {
                Update::Complete(_) => return Ok(()),
                Update::Written(list) => {
                    writes += 1;
                    self.written().note(subject, referrers, writes, list);
                }
            }
            if writes > 1 {
                let doubled = self.written().slowest * (1 << (writes as u32).min(MAX_DOUBLINGS));
                pause((2 * doubled).min(MAX_PAUSE).mul_f64(random_fraction()), &self.client.cancel)?;
            }
        }
    }

    /// Waits until every list that this copy wrote stays the same, and adds lost entries again.
    ///
    /// # Errors
    /// - `Failed`: other writers removed an entry each time, or change a list all the time.
    pub fn settle(&self) -> Result<()> {
        for _ in 0..MAX_PAUSES {
            let tags = std::mem::take(&mut self.written().tags);
            if tags.is_empty() {
                return Ok(());
            }
            let least = (self.written().slowest * PAUSE_FACTOR).clamp(MIN_PAUSE, MAX_PAUSE);
            pause(least.mul_f64(1.0 + random_fraction()), &self.client.cancel)?;
            for (subject, mut tag) in tags {
                match self.update(&subject, &tag.entries, tag.writes)? {
                    Update::Complete(Some(list)) if list == tag.list => continue,
                    Update::Complete(list) => tag.list = list.unwrap_or(tag.list),
                    Update::Written(list) => (tag.list, tag.writes) = (list, tag.writes + 1),
                }
                self.written().tags.insert(subject, tag);
            }
        }
        match self.written().tags.first_key_value() {
            Some((subject, _)) => Err(Error::failed(format!(
                "{}: other writers change the list of the {} all the time; run the copy again",
                self.client.host,
                self.what(subject)
            ))),
            None => Ok(()),
        }
    }

    /// Reads the list of `subject`, and writes it where it does not have all of `referrers`, after `writes` earlier writes.
    fn update(&self, subject: &Digest, referrers: &[Descriptor], writes: usize) -> Result<Update> {
        let (what, began) = (self.what(subject), Instant::now());
        let list = fetch_tagged(self.client, self.repository, subject)?;
        let merged = with_referrers(list.as_deref(), referrers).map_err(|why| error_at(self.client, &what, &why))?;
        let Some(merged) = merged else { return Ok(Update::Complete(list.as_deref().map(Digest::of))) };
        let entries = merged.children().len() + merged.layers().len();
        if entries > MAX_REFERRERS {
            return Err(Error::failed(format!(
                "{}: the list of the {what} would have {entries} entries, more than {MAX_REFERRERS}; none is added",
                self.client.host
            )));
        }
        if writes >= MAX_TAG_UPDATES {
            return Err(Error::failed(format!(
                "{}: the {what} are stored, but other writers replaced the referrers tag {MAX_TAG_UPDATES} times; run the \
                 copy again",
                self.client.host
            )));
        }
        match (self.put)(&merged, &referrers_tag(subject)) {
            // The registry may not have a manifest of the list while another writer stores it: counted as a lost write.
            Err(refused) if refused.is_missing_content() && writes + 1 < MAX_TAG_UPDATES => {}
            done => done?,
        }
        let mut written = self.written();
        written.slowest = written.slowest.max(began.elapsed());
        Ok(Update::Written(merged.digest()))
    }

    fn what(&self, subject: &Digest) -> String {
        format!("referrers of {}@{subject}", self.repository)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// Records that the list of `subject` has `referrers` after `writes` writes.
    fn note(&mut self, subject: &Digest, referrers: &[Descriptor], writes: usize, list: Digest) {
        let tag = self.tags.entry(*subject).or_insert_with(|| WrittenTag { entries: Vec::new(), writes, list });
        let known: std::collections::HashSet<Digest> = tag.entries.iter().map(|entry| entry.digest).collect();
        tag.entries.extend(referrers.iter().filter(|entry| !known.contains(&entry.digest)).cloned());
        (tag.writes, tag.list) = (writes, list);
    }
}
