//! Blobs written to containerd's content store. An unfinished blob (an ingest) stays there under a reference, and a later
//! run resumes it at the byte where it ended, also after a kill of imgmv or of containerd.

use super::call::{Call, Scope, unary};
use super::connection::Connection;
use super::frames::MAX_MESSAGE_BYTES;
use super::messages::{AbortRequest, WriteAction, WriteRequest, WriteResponse};
use super::status::{Failure, code};
use crate::image::Digest;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The bytes in one message, which is as fast as any larger size.
pub(super) const PART_BYTES: usize = 1 << 20;
/// Messages that are sent before the first is acknowledged: a far line is full with them. After a lost connection, they
/// and the one that is collected are fewer bytes than a copy of a stream can send again.
const MAX_UNACKNOWLEDGED: usize = 6;
/// The bytes that containerd hashes in a second on the slowest host that is waited for.
const MIN_HASH_RATE: u64 = 20 << 20;
const WRITE: &str = "containerd.services.content.v1.Content/Write";

/// A blob to write.
#[derive(Debug, Clone)]
pub(super) struct IngestTarget {
    /// The name of the ingest in its namespace.
    pub reference: String,
    /// The digest, where it is known before the bytes.
    pub digest: Option<Digest>,
    /// In bytes, where it is known before the bytes.
    pub size: Option<u64>,
}

/// The answer to the opening of an ingest.
pub(super) enum Opened {
    /// The namespace has the blob.
    Held,
    /// It is written from its offset on.
    Ingest(Box<Ingest>),
}

/// An ingest that this call writes; containerd locks it for other writers.
pub(super) struct Ingest {
    call: Call,
    reference: String,
    size: i64,
    /// The offset behind the bytes that were sent, in bytes.
    offset: u64,
    /// The offsets that containerd has to acknowledge, in this order.
    unacknowledged: VecDeque<u64>,
}

impl Ingest {
    /// Opens or resumes the ingest of `target`.
    pub fn open(connection: &Arc<Connection>, scope: &Scope, target: &IngestTarget) -> Result<Opened, Failure> {
        let mut call = Call::start(connection, WRITE, scope, MAX_MESSAGE_BYTES)?;
        let size = signed(target.size.unwrap_or(0))?;
        // containerd hashes the bytes that it has before it answers.
        call.wait_for_work(target.size.unwrap_or(0), MIN_HASH_RATE);
        // Only here and at the end: containerd looks for an expected digest at each message that has one.
        let expected = target.digest.map(|digest| digest.to_string()).unwrap_or_default();
        let reference = target.reference.clone();
        let request = WriteRequest {
            action: WriteAction::Stat.into(),
            reference: reference.clone(),
            total: size,
            expected,
            ..WriteRequest::default()
        };
        let answer = call.send(&request, false).and_then(|()| call.receive::<WriteResponse>());
        let answer = match answer {
            Err(failure) if failure.is(code::ALREADY_EXISTS) => return Ok(Opened::Held),
            answer => answer?.ok_or_else(|| Failure::protocol("ended an ingest without an answer"))?,
        };
        let is_possible = |offset: &u64| target.size.is_none_or(|size| *offset <= size);
        let Some(offset) = u64::try_from(answer.offset).ok().filter(is_possible) else {
            let offset = answer.offset;
            return Err(Failure::protocol(format!("reports {offset} bytes of an ingest of {size} bytes")));
        };
        Ok(Opened::Ingest(Box::new(Ingest { call, reference, size, offset, unacknowledged: VecDeque::new() })))
    }

    /// The offset where the next bytes are written.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes from the start: containerd truncates an ingest that is written at offset 0.
    pub fn restart(&mut self) {
        self.offset = 0;
    }

    /// Sends `data`, at most [`PART_BYTES`], without waiting for its own acknowledgement.
    pub fn write(&mut self, data: Bytes) -> Result<(), Failure> {
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
            self.acknowledge()?;
        }
        let end = self.offset + data.len() as u64;
        let offset = signed(self.offset)?;
        let request = WriteRequest { action: WriteAction::Write.into(), offset, data, ..WriteRequest::default() };
        self.call.send(&request, false)?;
        self.offset = end;
        self.unacknowledged.push_back(end);
        Ok(())
    }

    /// Waits for the oldest acknowledgement.
    fn acknowledge(&mut self) -> Result<(), Failure> {
        let Some(expected) = self.unacknowledged.pop_front() else { return Ok(()) };
        let answer = self.call.receive::<WriteResponse>()?;
        let answer = answer.ok_or_else(|| Failure::protocol("ended an ingest before its commit"))?;
        match u64::try_from(answer.offset) == Ok(expected) {
            true => Ok(()),
            false => {
                let offset = answer.offset;
                Err(Failure::protocol(format!("acknowledged {offset} bytes of an ingest instead of {expected}")))
            }
        }
    }

    /// Stores the blob as `digest` with `labels`. containerd compares digest and size first.
    pub fn commit(mut self, digest: &Digest, labels: HashMap<String, String>) -> Result<(), Failure> {
        while !self.unacknowledged.is_empty() {
            self.acknowledge()?;
        }
        let request = WriteRequest {
            action: WriteAction::Commit.into(),
            reference: self.reference.clone(),
            total: self.size.max(signed(self.offset)?),
            expected: digest.to_string(),
            offset: signed(self.offset)?,
            labels,
            ..WriteRequest::default()
        };
        let answer = self.call.send(&request, true).and_then(|()| self.call.receive::<WriteResponse>());
        let answer = match answer {
            Err(failure) if failure.is(code::ALREADY_EXISTS) => return Ok(()),
            answer => answer?.ok_or_else(|| Failure::protocol("ended an ingest without an answer to its commit"))?,
        };
        if answer.digest != digest.to_string() {
            let got = super::status::shortened(&answer.digest);
            return Err(Failure::protocol(format!("stored {got:?} instead of {digest}")));
        }
        self.call.receive::<WriteResponse>().map(|_| ())
    }
}

/// Removes the ingest `reference` and its bytes; one that does not exist is not an error.
pub(super) fn abort(connection: &Arc<Connection>, scope: &Scope, reference: &str) -> Result<(), Failure> {
    let request = AbortRequest { reference: reference.to_owned() };
    match unary(connection, "containerd.services.content.v1.Content/Abort", scope, &request, 4096) {
        Err(failure) if !failure.is(code::NOT_FOUND) => Err(failure),
        _ => Ok(()),
    }
}

fn signed(bytes: u64) -> Result<i64, Failure> {
    i64::try_from(bytes).map_err(|_| Failure::protocol("cannot store more than 8 EiB"))
}
