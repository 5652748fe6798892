//! The writer of one blob, which resumes after a lost connection.

use super::call::Scope;
use super::connection::Connection;
use super::hash_states::HashStates;
use super::ingest::{Ingest, IngestTarget, Opened, PART_BYTES, abort};
use super::read::Attempts;
use super::status::{Failure, code};
use crate::error::{Error, Result};
use crate::image::Hasher;
use crate::progress::Watch;
use crate::source::Claim;
use crate::transfer::{BlobWriter, Verified, longer_than_announced, not_announced};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::Arc;

/// Writes one blob. Bytes that containerd has from an earlier run are not sent. They are hashed again, unless their
/// hash's state was saved.
pub(super) struct SocketWriter {
    connection: Arc<Connection>,
    scope: Scope,
    target: IngestTarget,
    /// `None` after a failure; [`BlobWriter::recover`] opens it again.
    ingest: Option<Box<Ingest>>,
    /// containerd has the blob: another writer or an unnoticed commit stored it.
    is_held: bool,
    /// The offset behind the bytes that the copy wrote.
    position: u64,
    /// The last of these bytes, which were not sent yet.
    part: BytesMut,
    /// For a blob from a registry.
    states: Option<HashStates>,
    /// The failure of the last `write` or `commit`.
    failure: Option<Failure>,
    attempts: Attempts,
    /// The highest offset that containerd had.
    reached: u64,
    watch: Arc<dyn Watch>,
}

impl SocketWriter {
    /// Writes to `ingest`, which was opened for `target`.
    pub fn new(
        connection: Arc<Connection>,
        scope: Scope,
        target: IngestTarget,
        ingest: Box<Ingest>,
        watch: Arc<dyn Watch>,
    ) -> SocketWriter {
        let (ingest, reached) = (Some(ingest), 0);
        let (is_held, position, part, attempts) = (false, 0, BytesMut::new(), Attempts::default());
        let (states, failure) = (None, None);
        SocketWriter {
            connection,
            scope,
            target,
            ingest,
            is_held,
            position,
            part,
            states,
            failure,
            attempts,
            reached,
            watch,
        }
    }

    /// Saves the states of the blob's hash, so that a later run does not read the sent bytes again.
    pub fn with_states(mut self, states: Option<HashStates>) -> SocketWriter {
        self.states = states;
        self
    }

    fn label(&self) -> String {
        match &self.target.digest {
            Some(digest) => format!("blob {digest}"),
            None => "a blob".to_owned(),
        }
    }

    /// Stores `failure` for [`BlobWriter::recover`], and returns it as an error.
    fn fail<T>(&mut self, failure: Failure) -> Result<T> {
        self.ingest = None;
        self.part.clear();
        let error = match &failure {
            Failure::Other(error) => error.clone(),
            Failure::Lost(why) => Error::remote_host(format!("{}: {why}", self.connection.name())),
            _ => Error::remote_host(format!("{}: writing {} failed", self.connection.name(), self.label())),
        };
        self.failure = Some(failure);
        Err(error)
    }

    /// Sends the collected bytes.
    fn send_part(&mut self) -> Result<(), Failure> {
        if self.part.is_empty() {
            return Ok(());
        }
        let data: Bytes = self.part.split().freeze();
        if let Some(limit) = &self.connection.limits().rate {
            limit.wait_for(data.len())?;
        }
        match &mut self.ingest {
            Some(ingest) => ingest.write(data),
            None => Err(Failure::Lost("the connection was lost".to_owned())),
        }
    }

    /// Collects `bytes`, which follow those in `part`, and sends full parts.
    fn collect(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if self.part.capacity() == 0 {
                let size = self.target.size.and_then(|size| usize::try_from(size).ok());
                self.part.reserve(size.map_or(PART_BYTES, |size| size.clamp(1, PART_BYTES)));
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() >= PART_BYTES {
                self.send_part()?;
            }
        }
        Ok(())
    }

    /// Opens the ingest again after `failure`; the offset from which the copy writes again.
    fn reopen(&mut self, failure: Failure) -> Result<u64, Failure> {
        let label = self.label();
        let mut failure = failure;
        loop {
            self.attempts.again(&self.connection, &*self.watch, &label, failure)?;
            match Ingest::open(&self.connection, &self.scope, &self.target) {
                Ok(Opened::Held) => {
                    self.is_held = true;
                    return Ok(self.position);
                }
                Ok(Opened::Ingest(ingest)) => {
                    let offset = ingest.offset();
                    if offset > self.reached {
                        self.reached = offset;
                        self.attempts.reset();
                    }
                    self.ingest = Some(ingest);
                    return Ok(offset.min(self.position));
                }
                Err(next) => failure = next,
            }
        }
    }
}

impl BlobWriter for SocketWriter {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let offset = self.ingest.as_ref().map_or(0, |ingest| ingest.offset());
        if offset > 0 {
            let (name, label) = (self.connection.name(), self.label());
            self.watch.say(&format!("{name}: {label}: resuming at byte {offset}"));
        }
        let Some(states) = &mut self.states else { return Ok((0, fresh)) };
        let (from, hasher) = states.resume(offset);
        self.position = from;
        Ok((from, hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.position + bytes.len() as u64;
        if self.target.size.is_some_and(|size| end > size) {
            return Err(longer_than_announced(&Claim { digest: self.target.digest, size: self.target.size }));
        }
        // The bytes before this offset were sent, or are in `part`.
        let collected = match &self.ingest {
            Some(ingest) => ingest.offset() + self.part.len() as u64,
            None => self.position,
        };
        let known = usize::try_from(collected.saturating_sub(self.position)).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(states) = &mut self.states {
            states.update(self.position, bytes);
        }
        self.position = end;
        if self.is_held {
            return Ok(());
        }
        match self.collect(&bytes[known..]) {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(failure),
        }
    }

    fn recover(&mut self, error: Error) -> Result<u64> {
        let Some(failure) = self.failure.take() else { return Err(error) };
        let action = format!("writing {}", self.label());
        let name = self.connection.name().to_owned();
        let from = self.reopen(failure).map_err(|failure| failure.into_error(&name, &action))?;
        self.position = from;
        Ok(from)
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        let is_other = self.target.digest.is_some_and(|expected| expected != digest);
        if is_other || self.target.size.is_some_and(|expected| expected != size) {
            return Err(not_announced(&digest));
        }
        if self.is_held {
            return Ok(());
        }
        if let Err(failure) = self.send_part() {
            return self.fail(failure);
        }
        let Some(ingest) = self.ingest.take() else {
            return self.fail(Failure::Lost("the connection was lost".to_owned()));
        };
        match ingest.commit(&digest, HashMap::new()) {
            Ok(()) => Ok(()),
            // The bytes of an earlier run are wrong: these were hashed.
            Err(failure) if failure.is(code::FAILED_PRECONDITION) && self.reached < u64::MAX => {
                self.reached = u64::MAX;
                abort(&self.connection, &self.scope, &self.target.reference)
                    .map_err(|failure| failure.into_error(self.connection.name(), "removing an unfinished blob"))?;
                self.watch.say(&format!(
                    "{}: the unfinished {} of an earlier run is damaged; all of it is sent again",
                    self.connection.name(),
                    self.label()
                ));
                self.fail(Failure::Lost("the unfinished blob was damaged".to_owned()))
            }
            Err(failure) => self.fail(failure),
        }
    }
}

impl Drop for SocketWriter {
    fn drop(&mut self) {
        // The blob is stored, or its bytes were wrong.
        if let Some(states) = self.states.take_if(|_| self.target.size == Some(self.position)) {
            states.forget();
        }
        // Nothing can resume a blob whose digest is not known.
        if self.target.digest.is_none()
            && let Some(ingest) = self.ingest.take()
        {
            drop(ingest);
            let _ = abort(&self.connection, &self.scope, &self.target.reference);
        }
    }
}
