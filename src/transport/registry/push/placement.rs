//! The decision on a blob of a repository: it is stored, it is mounted from another repository, or it is uploaded.

use super::book::{BlobPlace, BlobQuery, Reservation};
use super::booked_upload::BookedUpload;
use super::session::{Mount, Session};
use super::target::Target;
use crate::error::Result;
use crate::image::Digest;
use crate::sink::Begin;
use crate::source::{Claim, Origin};
use crate::transfer::BlobWriter;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The blobs of one repository, and of the others at its registry.
pub struct Placement {
    target: Target,
    /// The repository's name in the book.
    repository: Arc<str>,
    /// Repositories from which the registry refused to mount; they are not tried again.
    unmountable: Mutex<HashSet<String>>,
    /// A blob that another copy is sending to the registry is waited for.
    waits_for_uploads: bool,
}

/// The decision on one blob.
pub enum Decision {
    /// The repository has the blob.
    Skip,
    /// The blob is uploaded, in this session if one is open.
    Upload(Option<Session>, Reservation),
}

impl Placement {
    /// For the repository of `target`.
    pub fn new(target: Target) -> Placement {
        let repository = Arc::from(&*target.repository);
        Placement { target, repository, unmountable: Mutex::default(), waits_for_uploads: false }
    }

    /// Waits for a blob that another copy is sending to the registry.
    pub fn waiting_for_uploads(self) -> Placement {
        Placement { waits_for_uploads: true, ..self }
    }

    /// Decides on the blob `digest`, after an attempt to mount it: from a repository that has it by this run's book, or
    /// from `from`.
    pub fn decide(&self, digest: &Digest, claim: &Claim, from: Option<&Origin>) -> Result<Decision> {
        let client = &self.target.client;
        let query = BlobQuery {
            digest,
            size: claim.size,
            repository: &self.repository,
            may_mount: &|other| self.may_mount(other),
            wait: self.waits_for_uploads.then_some(client.access.timeout),
        };
        let (reservation, other) = match client.blobs.find(&query, &client.cancel)? {
            BlobPlace::Stored => return Ok(Decision::Skip),
            BlobPlace::Elsewhere(other) => (client.blobs.reserve(digest, &self.repository), Some(other)),
            BlobPlace::Unknown(reservation) => (reservation, self.mountable(from)),
        };
        let session = match other {
            Some(other) => match self.mount(digest, &other)? {
                Mount::Done => return Ok(self.stored(digest, claim.size)),
                Mount::Session(opened) => Some(opened),
                Mount::Refused => None,
            },
            None => None,
        };
        match self.target.head_blob(digest)? {
            Some(Some(size)) if claim.size.is_some_and(|claimed| claimed != size) => {
                let claimed = claim.size.unwrap_or_default();
                client.watch.say(&format!(
                    "{}/{}: blob {digest} has {size} bytes, expected {claimed}; sending it again",
                    client.host, self.repository
                ));
            }
            Some(size) => {
                if let Some(session) = session {
                    self.target.cancel_session(session);
                }
                // An earlier run may have been killed after it sent all bytes.
                self.target.forget_upload(digest);
                return Ok(self.stored(digest, size.or(claim.size)));
            }
            None => {}
        }
        Ok(Decision::Upload(session, reservation))
    }

    /// Whether a copy would send the blob `digest`, of `size` bytes. A dry run asks this; a blob that another image of the
    /// run sends counts as stored from then on.
    pub fn would_send(&self, digest: &Digest, size: u64) -> bool {
        let is_first = self.target.client.blobs.claim(digest, size, &self.repository);
        is_first && !matches!(self.target.head_blob(digest), Ok(Some(_)))
    }

    /// Opens `writer`, whose blob gets into the book once it is stored.
    pub fn booked<'a>(&self, writer: impl BlobWriter + 'a, reservation: Option<Reservation>) -> Begin<'a> {
        let book = self.target.client.blobs.clone();
        Begin::Write(Box::new(BookedUpload::new(Box::new(writer), book, self.repository.clone(), reservation)))
    }

    fn mount(&self, digest: &Digest, other: &str) -> Result<Mount> {
        let mount = self.target.mount(digest, other)?;
        let mounted = matches!(mount, Mount::Done);
        self.target.client.blobs.record_mount(mounted);
        if !mounted {
            self.unmountable.lock().unwrap_or_else(PoisonError::into_inner).insert(other.to_owned());
        }
        Ok(mount)
    }

    fn stored(&self, digest: &Digest, size: Option<u64>) -> Decision {
        self.target.client.blobs.record(digest, size, &self.repository);
        Decision::Skip
    }

    /// The source's repository, if it is another one of this registry from which blobs may be mounted.
    fn mountable(&self, from: Option<&Origin>) -> Option<Arc<str>> {
        let from = from.filter(|from| from.host == self.target.client.host)?;
        let is_other = *from.repository != *self.repository;
        (is_other && self.may_mount(&from.repository)).then(|| Arc::from(&*from.repository))
    }

    /// Whether the registry has not refused to mount from `other`.
    fn may_mount(&self, other: &str) -> bool {
        !self.unmountable.lock().unwrap_or_else(PoisonError::into_inner).contains(other)
    }
}
