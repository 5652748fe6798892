//! Referrers in a tree that is written: each gets into every repository that gets its subject, and into the list of that
//! repository, which other programs may change at the same time.

use super::RegistryDirSink;
use super::read_back::{self, NamedImage};
use super::repository::{MANIFESTS, REVISIONS};
use super::sink_tree::SinkTree;
use crate::cancel::Cancel;
use crate::disk::directory::Directory;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, Name, referrers_tag, with_referrers};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::thread::sleep;
use std::time::Duration;

/// The number of times that a list is written, where a registry replaces it.
const MAX_UPDATES: usize = 5;
/// The pause between two attempts at a lock that another process has.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// About 30 s; an update takes milliseconds.
const MAX_ATTEMPTS: u32 = 6000;

/// The referrers that a copy stored.
#[derive(Default)]
pub(super) struct StoredReferrers {
    by_subject: HashMap<Digest, Vec<Descriptor>>,
    known: HashSet<Digest>,
    /// Those that no repository has yet.
    unlinked: HashSet<Digest>,
}

impl StoredReferrers {
    /// Adds the referrer `manifest` of `subject`.
    pub fn add(&mut self, subject: &Digest, manifest: &Manifest) {
        if self.known.insert(manifest.digest()) {
            self.by_subject.entry(*subject).or_default().push(manifest.descriptor.clone());
            self.unlinked.insert(manifest.digest());
        }
    }

    fn of(&self, subject: &Digest) -> Vec<Descriptor> {
        self.by_subject.get(subject).cloned().unwrap_or_default()
    }

    /// Fails with `Failed` if a referrer got into no repository.
    pub fn all_linked(&self) -> Result<()> {
        match self.unlinked.iter().min() {
            None => Ok(()),
            Some(digest) => {
                Err(Error::failed(format!("referrer {digest} was stored, but the copy has not its subject")))
            }
        }
    }
}

impl RegistryDirSink {
    /// Links the referrers of `subjects`, and theirs, in `repository`, and lists them. `name` is the image's.
    pub(super) fn link_referrers(&self, name: &Name, repository: &str, subjects: Vec<Digest>) -> Result<()> {
        let mut seen: HashSet<Digest> = subjects.iter().copied().collect();
        let mut ahead = subjects;
        while let Some(subject) = ahead.pop() {
            let referrers = self.referrers().of(&subject);
            let mut entries = Vec::with_capacity(referrers.len());
            for at in &referrers {
                let below = self.link_image(repository, at)?;
                ahead.extend(below.into_iter().filter(|digest| seen.insert(*digest)));
                entries.push(read_back::manifest(&self.tree()?.tree, at)?.referrer_entry());
                self.referrers().unlinked.remove(&at.digest);
                self.note_named(NamedImage::new(name, repository, None, at));
            }
            if !entries.is_empty() {
                self.list_referrers(name, repository, &subject, &entries)?;
            }
        }
        Ok(())
    }

    /// Adds `entries` to the list of the referrers of `subject`. The list is read again after each write, since a registry
    /// takes no lock.
    ///
    /// Fails with `Failed` if other writers replace the list each time.
    fn list_referrers(&self, name: &Name, repository: &str, subject: &Digest, entries: &[Descriptor]) -> Result<()> {
        let (tree, tag) = (self.tree()?, referrers_tag(subject));
        let folder = tree.repository(repository)?;
        let manifests = tree.folder(&folder, &folder, &[MANIFESTS])?;
        let revisions = tree.folder(&manifests, &manifests, &[REVISIONS])?;
        lock(&manifests, &self.cancel)?;
        let at = |why: String| Error::invalid(format!("tag {tag} of {repository}, a list of referrers: {why}"));
        for attempt in 0..=MAX_UPDATES {
            let listed = listed(tree, repository, &tag, subject)?;
            let Some(list) = with_referrers(listed.as_deref(), entries).map_err(at)? else {
                return Ok(());
            };
            if attempt == MAX_UPDATES {
                break;
            }
            self.put_manifest_bytes(&list)?;
            tree.sync()?;
            tree.link(&manifests, &revisions, &list.digest())?;
            tree.point(&manifests, &tag, &list.digest())?;
            self.note_named(NamedImage {
                is_list: true,
                ..NamedImage::new(name, repository, Some(&tag), &list.descriptor)
            });
        }
        Err(Error::failed(format!(
            "{name}: the referrers of {subject} are stored, but other writers replaced their list, tag {tag}, \
             {MAX_UPDATES} times; run the copy again"
        )))
    }
}

/// The list of referrers under `tag`; `None` if there is none.
///
/// Fails with `Invalid` if it is damaged, and with `Usage` if the tag is the subject's own name.
fn listed(tree: &SinkTree, repository: &str, tag: &str, subject: &Digest) -> Result<Option<Vec<u8>>> {
    let Some(repository) = tree.tree.repository(repository)? else { return Ok(None) };
    let (digest, data) = match repository.tagged(tag) {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if digest == *subject {
        return Err(Error::usage(format!(
            "tag {tag} of {} is the image itself, so it cannot list the image's referrers; delete the tag, or copy with \
             --no-referrers",
            repository.name()
        )));
    }
    // A garbage collection may have removed the list.
    let Some(bytes) = tree.tree.read(&data, MAX_MANIFEST_BYTES)? else { return Ok(None) };
    match Hasher::new(digest.algorithm()).with(&bytes).finish() == digest {
        true => Ok(Some(bytes)),
        false => Err(Error::invalid(format!(
            "{} is damaged: it is the list of referrers of {subject}; delete the tag {tag} of {} to start a new list",
            tree.tree.blob_path(&data),
            repository.name()
        ))),
    }
}

/// Waits until no other imgmv changes the lists of the repository; the lock ends when `manifests` is closed.
fn lock(manifests: &Directory, cancel: &Cancel) -> Result<()> {
    for _ in 0..MAX_ATTEMPTS {
        match flock(manifests.fd(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            // A file system without locks: the list is read again after the write.
            Ok(()) | Err(_) => return Ok(()),
        }
        cancel.check()?;
        sleep(POLL_INTERVAL);
    }
    Err(Error::unwritable(format!(
        "{} is locked by another process; end that process or retry",
        manifests.path().display()
    )))
}
