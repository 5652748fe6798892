//! An upload after a failure: whether a retry can help, and the offset at which it resumes.

use super::StreamedUpload;
use crate::error::{Error, Kind, Result};
use crate::transport::registry::http::Response;
use crate::transport::registry::http::retry;
use crate::transport::registry::http::retry::PROGRESS_BYTES;
use crate::transport::registry::push::body_limit::MIN_CHUNK_BYTES;
use crate::transport::registry::push::session::{SessionStatus, shorter_chunk};
use std::time::Duration;

/// The number of retries without progress in one session; then the upload starts again in a new one.
const MAX_STALLS: u32 = 3;

/// The failures of an upload so far.
#[derive(Default)]
pub(super) struct Failures {
    /// Failed requests in a row.
    pub(super) count: u32,
    /// The highest offset that the registry has stored in this session, in bytes.
    pub(super) stored: u64,
    /// The registry stored bytes since the last failure.
    pub(super) progressed: bool,
    /// The number of consecutive failures in this session that were neither refusals nor progress.
    stalls: u32,
    /// The status of the last response; `None` if the last request got no response.
    pub(super) last_status: Option<u16>,
    /// The next retry needs no pause and does not count.
    retry_at_once: bool,
    /// The size (bytes) of a body that broke off without a response and of which nothing was stored.
    broken_body: Option<u64>,
    /// The current chunk was refused after a broken connection.
    chunk_refused: bool,
    /// Two bodies of similar size broke off. Bodies get shorter until the registry responds to one.
    suspects_limit: bool,
    /// The number of new sessions after the first.
    new_sessions: u32,
    /// The token was renewed and nothing was stored since.
    pub(super) token_renewed: bool,
    /// The pause that the registry asks for.
    pub(super) retry_after: Option<Duration>,
}

impl Failures {
    /// Records that the registry has stored `offset` bytes. Only stored bytes are progress; otherwise an upload over a
    /// bad connection would never end.
    pub(super) fn stored(&mut self, offset: u64) {
        if offset >= self.stored + PROGRESS_BYTES {
            (self.count, self.stored, self.progressed, self.token_renewed) = (0, offset, true, false);
        }
    }

    /// Records that a request succeeded and the registry has stored `offset` bytes.
    pub(super) fn request_succeeded(&mut self, offset: u64) {
        self.stored(offset);
        (self.count, self.token_renewed, self.broken_body, self.chunk_refused) = (0, false, None, false);
    }
}

impl StreamedUpload {
    /// Returns `response` if its status is among `wanted`. Fails with `Network` if a retry may help.
    pub(super) fn expect(&mut self, response: Response, wanted: &[u16]) -> Result<Response> {
        let status = response.status;
        self.failures.last_status = Some(status);
        let temporary = retry::is_transient(status);
        self.failures.retry_after = response.retry_after().filter(|_| temporary);
        if temporary || matches!(status, 401 | 413) {
            self.target.client.throttle.record_refused_body();
        }
        let why = match status {
            // `RegistryClient` has discarded the expired token.
            401 if !self.failures.token_renewed => {
                (self.failures.token_renewed, self.failures.retry_at_once) = (true, true);
                "the token has expired".to_owned()
            }
            413 => self.shorten()?,
            400..=499 | 501 if self.refuses_chunks(status) => {
                self.target.client.bodies.chunks_refused();
                self.lengths.stop_chunks();
                (self.session, self.failures.retry_at_once) = (None, true);
                format!("the registry refuses a blob in chunks (status {status}); sending it in one request")
            }
            416 => "the registry expects another offset of this upload".to_owned(),
            404 => "the registry does not know this upload any more".to_owned(),
            _ => {
                let checked = self.target.client.expect(response, wanted, &self.target.scope, &self.what());
                return checked.map_err(|error| if temporary { Error::network(error.to_string()) } else { error });
            }
        };
        response.drain();
        Err(Error::network(format!("{}: {why}", self.target.client.host)))
    }

    /// Whether `status` may mean that the registry refuses chunks, and the blob can be sent in one request instead.
    fn refuses_chunks(&mut self, status: u16) -> bool {
        if matches!(status, 401 | 403 | 408 | 425 | 429) || !self.lengths.chunks_are_optional(&self.target.client) {
            return false;
        }
        // After a broken connection the registry may only expect another offset, so its status is requested first.
        let refused_before = std::mem::replace(&mut self.failures.chunk_refused, true);
        refused_before || self.failures.count == 0
    }

    /// Reduces the body size after a body that was too large. Returns the reason, or an error if no shorter body is
    /// possible.
    fn shorten(&mut self) -> Result<String> {
        let size = self.body_size.unwrap_or(self.consumed);
        let (host, min_chunk) = (&self.target.client.host, self.lengths.min_chunk);
        let advice = "raise the limit of the registry, or of the proxy before it";
        match self.target.client.bodies.body_refused(size, min_chunk) {
            Some(next) => {
                self.lengths.trial = None;
                (self.failures.retry_at_once, self.failures.count, self.failures.broken_body) = (true, 0, None);
                Ok(format!("a body of {size} bytes is refused; sending chunks of {next} bytes"))
            }
            None if min_chunk > MIN_CHUNK_BYTES => Err(Error::failed(format!(
                "{host} refuses a body of {size} bytes for {}, and requires chunks of at least {min_chunk} bytes \
                 (OCI-Chunk-Min-Length); {advice}",
                self.what()
            ))),
            None => Err(Error::failed(format!(
                "{host} refuses a body of {size} bytes for {}, and imgmv sends no shorter chunks; {advice}",
                self.what()
            ))),
        }
    }

    /// After `error` and a pause: the offset from which the bytes must be written again. Returns `error` if a retry
    /// cannot help.
    pub(super) fn recover_from(&mut self, error: Error) -> Result<u64> {
        let client = self.target.client.clone();
        if error.kind() != Kind::Network || error.is_permanent() || client.cancel.raised() {
            return Err(error);
        }
        self.request = None;
        self.unsent.clear();
        // From now on the registry reports the offset.
        self.stored_before = 0;
        if !std::mem::take(&mut self.failures.retry_at_once) {
            let mut retries = client.retry_policy(self.failures.count);
            if !retries.may_retry() {
                return Err(self.with_limit(error));
            }
            if std::mem::take(&mut self.failures.progressed) {
                retries.reset();
            }
            retries.wait(&self.what(), &error.to_string(), self.failures.retry_after.take())?;
            self.failures.count = retries.failures();
        }
        self.sent = self.resume_offset(error)?;
        self.verified = None;
        Ok(self.sent)
    }

    /// Adds the body limit that this upload found to `error`.
    fn with_limit(&self, error: Error) -> Error {
        match self.target.client.bodies.max_body() {
            Some(limit) => {
                let host = &self.target.client.host;
                Error::network(format!("{error}; {host} refused bodies larger than {limit} bytes"))
            }
            None => error,
        }
    }

    /// The offset at which the upload resumes, in its session or in a new one.
    fn resume_offset(&mut self, error: Error) -> Result<u64> {
        let refused = self.failures.last_status.is_some_and(|status| !matches!(status, 404 | 416));
        let status = match self.session.take() {
            // No byte of the body was sent, so the session's offset is unchanged.
            Some(session) if refused && self.consumed == 0 => SessionStatus::Stored(self.request_start, session),
            Some(session) => self.target.session_status(session)?,
            None => SessionStatus::NoLocation,
        };
        match status {
            // A session without progress is used a few times more: the registry may not have noticed yet that the
            // connection broke.
            SessionStatus::Stored(offset, session)
                if offset <= self.sent && (offset > self.request_start || self.failures.stalls < MAX_STALLS) =>
            {
                let stalled = offset <= self.request_start && !refused;
                self.failures.stalls = if stalled { self.failures.stalls + 1 } else { 0 };
                self.failures.stored(offset);
                if stalled {
                    self.body_broke_off()?;
                }
                self.session = Some(session);
                return Ok(offset);
            }
            SessionStatus::Unknown if self.check_stored()? => return Ok(self.sent),
            status => {
                // A request that succeeds in a new session resets the retries, so the number of sessions is limited
                // too. At least one is allowed, for a registry that turns out to refuse chunks.
                self.failures.new_sessions += 1;
                if self.failures.new_sessions > self.target.client.access.retries.max(1) {
                    return Err(error);
                }
                if matches!(status, SessionStatus::Unknown) {
                    self.use_connection_chunks();
                }
            }
        }
        (self.failures.stalls, self.failures.stored) = (0, 0);
        Ok(0)
    }

    /// Handles a body that broke off without a response and of which nothing was stored. The first time, the connection
    /// is the likely cause. A second body of similar size suggests a size limit whose refusal does not arrive.
    fn body_broke_off(&mut self) -> Result<()> {
        let size = self.body_size.unwrap_or(self.consumed);
        let is_similar = |before: u64| before.abs_diff(size) <= size / 4;
        let again = self.failures.suspects_limit || self.failures.broken_body.is_some_and(is_similar);
        self.failures.broken_body = Some(size);
        if again && size > MIN_CHUNK_BYTES.max(self.lengths.min_chunk) && self.target.client.bodies.may_refuse(size) {
            let why = self.shorten()?;
            self.target.client.watch.say(&format!("{}: {why}", self.target.client.host));
            (self.failures.suspects_limit, self.failures.retry_at_once, self.failures.stalls) = (true, false, 0);
        }
        Ok(())
    }

    /// Switches to chunks shorter than the bytes that the connection carried, for this blob and the next ones: the
    /// registry has forgotten the session with all stored bytes.
    fn use_connection_chunks(&mut self) {
        let sent = self.sent - self.request_start;
        self.lengths.connection_chunk = shorter_chunk(self.lengths.connection_chunk, sent, self.lengths.min_chunk);
        if let Some(chunk) = self.lengths.connection_chunk {
            self.target.client.throttle.set_chunk_bytes(chunk);
        }
    }

    /// Whether the registry has stored the complete blob, so that only its response was lost.
    pub(super) fn check_stored(&mut self) -> Result<bool> {
        if let Some((digest, size)) = self.verified {
            let found = self.target.head_blob(&digest)?;
            self.stored = found.is_some_and(|found| found.is_none_or(|found| found == size));
        }
        Ok(self.stored)
    }
}
