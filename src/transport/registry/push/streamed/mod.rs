//! The writer for large blobs. The copy pushes bytes and an HTTP request pulls them: a thread sends one request whose
//! body is the bytes written here. If digest and size are known in advance, that request is the closing `PUT` itself
//! (monolithic: one request for the whole blob). Otherwise it is a `PATCH`, closed by a `PUT` once the digest is known.
//! `lengths` decides when a blob is sent in several chunks instead, `recovery` how an upload resumes after a failure.
//!
//! The last written bytes are sent only by `commit`, so an unverified blob is never complete at the registry.

mod lengths;
mod recovery;

use super::body_pipe::{BodyPipe, Ended};
use super::resume_cache::ResumableUpload;
use super::session::{Session, SessionStatus};
use super::target::{MAX_MONOLITHIC_BYTES, Target};
use crate::disk::hash_checkpoints::HashCheckpoints;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use crate::transport::registry::http::{Payload, Response};
use lengths::Lengths;
use recovery::Failures;
use std::time::Instant;
use ureq::http::header;
use url::Url;

pub struct StreamedUpload {
    target: Target,
    /// Digest and size, if known before the bytes.
    expected: Option<(Digest, u64)>,
    session: Option<Url>,
    lengths: Lengths,
    request: Option<BodyPipe>,
    /// The number of bytes that the current request can still carry.
    room: u64,
    /// The current request closes the upload.
    closing: bool,
    /// The announced size of the current body, in bytes; `None`: not announced.
    body_size: Option<u64>,
    /// The number of body bytes that the connection has read, once the request has ended.
    consumed: u64,
    requested_at: Instant,
    /// The bytes that `commit` sends.
    unsent: Vec<u8>,
    /// The offset of the next byte for a request.
    sent: u64,
    /// The offset at which the current request starts.
    request_start: u64,
    /// The number of bytes that the registry has stored in an earlier run: hashed, not sent again.
    stored_before: u64,
    /// Digest and size, once all bytes are verified.
    verified: Option<(Digest, u64)>,
    /// The registry has stored the blob.
    stored: bool,
    /// Only if the source is remote too.
    checkpoints: Option<HashCheckpoints>,
    failures: Failures,
}

impl StreamedUpload {
    pub fn new(target: Target, session: Option<Session>, expected: Option<(Digest, u64)>) -> StreamedUpload {
        let (session, min_chunk) = session.map_or((None, 0), |session| (Some(session.url), session.min_chunk));
        StreamedUpload {
            lengths: Lengths::new(&target.client, expected.map(|(_, size)| size), min_chunk),
            target,
            expected,
            session,
            request: None,
            room: 0,
            closing: false,
            body_size: None,
            consumed: 0,
            requested_at: Instant::now(),
            unsent: Vec::new(),
            sent: 0,
            request_start: 0,
            stored_before: 0,
            verified: None,
            stored: false,
            checkpoints: None,
            failures: Failures::default(),
        }
    }

    /// Saves the hash's state, for a remote source: a later run then does not read the sent bytes again.
    pub fn with_checkpoints(mut self) -> StreamedUpload {
        self.checkpoints = self.expected.map(|(digest, size)| HashCheckpoints::new(digest.algorithm(), size));
        self
    }

    fn what(&self) -> String {
        match &self.expected {
            Some((digest, _)) => format!("blob {digest} in {}", self.target.repository),
            None => format!("a blob for {}", self.target.repository),
        }
    }

    /// Saves the session for a later run. Small blobs are not saved: sending one again is faster than asking for its
    /// status.
    fn save(&self, session: &Url) {
        if let Some((digest, size)) = &self.expected
            && *size > MAX_MONOLITHIC_BYTES
        {
            let checkpoints = self.checkpoints.as_ref().map_or(&[][..], HashCheckpoints::recorded);
            self.target.save_upload(digest, session, self.lengths.connection_chunk, checkpoints);
        }
    }

    fn open_session(&mut self) -> Result<Url> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let Session { url, min_chunk } = self.target.open_session().map_err(Error::permanent)?;
        (self.lengths.min_chunk, self.lengths.in_chunks) = (min_chunk, false);
        Ok(url)
    }

    /// The current request, or a new one that carries the bytes from `sent`.
    fn request(&mut self) -> Result<&mut BodyPipe> {
        if self.request.is_none() {
            let session = self.open_session()?;
            let client = self.target.client.clone();
            let left = self.expected.map(|(_, size)| size - self.sent);
            let chunk = self.lengths.next(&client, left);
            let size = left.map(|left| left.min(chunk.unwrap_or(u64::MAX)));
            let mut call = match (&self.expected, chunk) {
                (Some((digest, size)), None) if self.sent > 0 => {
                    let range = format!("{}-{}", self.sent, size - 1);
                    self.target.closing_put(&session, digest).with(header::CONTENT_RANGE, &range)
                }
                (Some((digest, _)), None) => self.target.closing_put(&session, digest),
                _ => self.target.patch(&session, self.sent, size),
            };
            self.closing = self.expected.is_some() && chunk.is_none();
            self.lengths.in_chunks |= self.expected.is_some() && chunk.is_some();
            if chunk.is_some() && self.lengths.connection_chunk.is_some() {
                call = call.with(header::CONNECTION, "close");
            }
            if self.failures.count > 0 || self.lengths.trial.is_some() || client.throttle.refuses_bodies() {
                // A registry that refused a body (too large, too many requests, no permission) can refuse this one
                // before it is sent.
                call = call.with(header::EXPECT, "100-continue");
            }
            if self.failures.token_renewed {
                call = call.with_own_token();
            }
            self.save(&session);
            self.session = Some(session);
            (self.request_start, self.room, self.body_size) = (self.sent, chunk.unwrap_or(u64::MAX), size);
            (self.consumed, self.requested_at, self.failures.last_status) = (0, Instant::now(), None);
            self.request = Some(BodyPipe::start(self.target.clone(), call, size, self.what())?);
        }
        Ok(self.request.as_mut().expect("made above"))
    }

    /// Sends the bytes of the last write.
    fn send_unsent(&mut self) -> Result<()> {
        let mut bytes = std::mem::take(&mut self.unsent);
        let stored = self.stored_before.saturating_sub(self.sent).min(bytes.len() as u64);
        self.sent += stored;
        bytes.drain(..stored as usize);
        while !bytes.is_empty() {
            self.request()?;
            let rest = bytes.split_off((self.room.min(bytes.len() as u64)) as usize);
            let size = bytes.len() as u64;
            if let Some(Err(Ended)) = self.request.as_mut().map(|request| request.send(bytes)) {
                return Err(self.early_end());
            }
            (self.sent, self.room, bytes) = (self.sent + size, self.room - size, rest);
            if self.room == 0 {
                self.finish_patch()?;
            }
        }
        Ok(())
    }

    /// Ends the current request, a `PATCH`, whose bytes the registry stores.
    fn finish_patch(&mut self) -> Result<()> {
        let Some(response) = self.finish_request()? else { return Ok(()) };
        let response = self.expect(response, &[202, 201, 204])?;
        let session = self.target.next_location(response)?;
        self.save(&session);
        self.session = Some(session);
        self.request_succeeded();
        Ok(())
    }

    fn request_succeeded(&mut self) {
        self.failures.request_succeeded(self.sent);
        self.lengths.trial = None;
        let client = &self.target.client;
        client.bodies.body_accepted(self.sent - self.request_start);
        if let Some(latency) = client.throttle.min_latency() {
            self.lengths.chunk_took(self.requested_at.elapsed(), latency);
        }
    }

    fn finish_request(&mut self) -> Result<Option<Response>> {
        let Some(mut request) = self.request.take() else { return Ok(None) };
        // If the thread has ended already, `finish` returns the reason.
        let _ = request.end_body();
        let (response, consumed) = request.finish();
        self.consumed = consumed;
        response.map(Some)
    }

    /// The reason why the current request ended before its body.
    fn early_end(&mut self) -> Error {
        let what = self.what();
        let Some(request) = self.request.take() else {
            return Error::failed(format!("{what}: no request is in progress"));
        };
        let (response, consumed) = request.finish();
        self.consumed = consumed;
        match response {
            Ok(response) => match self.expect(response, &[]) {
                Err(error) => error,
                Ok(_) => Error::failed(format!(
                    "{}: the response to {what} arrived before all bytes were sent",
                    self.target.client.host
                )),
            },
            Err(error) => error,
        }
    }
}

impl BlobWriter for StreamedUpload {
    /// If an earlier run was interrupted, the registry has the first bytes. They are read again, since the digest
    /// covers all bytes, except those before a checkpoint.
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        if let (Some((digest, size)), None) = (self.expected, &self.session)
            && let Some(ResumableUpload { session, chunk, checkpoints }) = self.target.saved_upload(&digest)
            && let Ok(SessionStatus::Stored(offset, session)) = self.target.session_status(session)
            && offset <= size
        {
            self.target.client.watch.say(&format!(
                "{}: blob {}: resuming the upload at {offset} of {size} bytes",
                self.target.client.host,
                digest.short()
            ));
            (self.stored_before, self.failures.stored, self.session) = (offset, offset, Some(session));
            (self.lengths.connection_chunk, self.lengths.in_chunks) = (chunk, chunk.is_some());
            if let Some(own) = &mut self.checkpoints {
                let (at, hasher) = own.resume(digest.algorithm(), checkpoints, offset);
                self.sent = at;
                return Ok((at, hasher));
            }
        }
        Ok((0, fresh))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // An empty write at the end of the blob must not release the last bytes.
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some((_, size)) = self.expected
            && self.sent + (self.unsent.len() + bytes.len()) as u64 > size
        {
            return Err(Error::invalid(format!("{} has more than the {size} bytes announced", self.what())));
        }
        let at = self.sent + self.unsent.len() as u64;
        self.send_unsent()?;
        if self.checkpoints.as_mut().is_some_and(|checkpoints| checkpoints.update(at, bytes))
            && let Some(session) = &self.session
        {
            self.save(session);
        }
        let mut buffer = self.request.as_mut().and_then(BodyPipe::spare).unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.unsent = buffer;
        Ok(())
    }

    fn recover(&mut self, error: Error) -> Result<u64> {
        self.recover_from(error)
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        if let Some(expected) = self.expected
            && expected != (digest, size)
        {
            return Err(Error::failed(format!("{} changed to {digest} ({size} bytes) during the copy", self.what())));
        }
        let ended = match self.close((digest, size)) {
            Err(error) if error.kind() == Kind::Network && !self.target.client.cancel.raised() => {
                if self.check_stored().unwrap_or(false) { Ok(()) } else { Err(error) }
            }
            ended => ended,
        };
        // The blob is stored or refused; only after a network failure can a later run resume the upload.
        if ended.as_ref().err().is_none_or(|error| !matches!(error.kind(), Kind::Network | Kind::Interrupted)) {
            self.target.forget_upload(&digest);
        }
        ended
    }
}

impl Drop for StreamedUpload {
    /// Forgets an upload whose bytes were all written but not verified: they have a wrong digest, so no later run may
    /// resume it.
    fn drop(&mut self) {
        if let Some((digest, size)) = self.expected
            && self.verified.is_none()
            && self.sent + self.unsent.len() as u64 == size
            && !self.target.client.cancel.raised()
        {
            self.target.forget_upload(&digest);
        }
    }
}

impl StreamedUpload {
    /// Sends the bytes of the last write and closes the upload.
    fn close(&mut self, blob: (Digest, u64)) -> Result<()> {
        if self.stored {
            return Ok(());
        }
        self.verified = Some(blob);
        self.send_unsent()?;
        if !self.closing {
            self.finish_patch()?;
        } else if let Some(response) = self.finish_request()? {
            let response = self.expect(response, &[201, 204])?;
            self.request_succeeded();
            return self.target.check_stored(response, &blob.0);
        }
        self.put_empty(&blob.0)
    }

    /// Closes an upload whose bytes are all stored.
    fn put_empty(&mut self, digest: &Digest) -> Result<()> {
        let session = self.open_session()?;
        self.session = Some(session.clone());
        let what = format!("blob {digest} in {}", self.target.repository);
        let call = self.target.closing_put(&session, digest);
        (self.request_start, self.body_size, self.consumed, self.failures.last_status) = (self.sent, Some(0), 0, None);
        let response = self.target.client.send(&call, Payload::Nothing, &self.target.scope, &what)?;
        let response = self.expect(response, &[201, 204])?;
        self.target.check_stored(response, digest)
    }
}
