//! An upload after a failure: whether another try may help, and where it goes on.

use super::StreamedUpload;
use crate::error::{Error, Kind, Result};
use crate::transport::registry::http::Response;
use crate::transport::registry::http::retry;
use crate::transport::registry::http::retry::PROGRESS_BYTES;
use crate::transport::registry::push::body_limit::SHORTEST;
use crate::transport::registry::push::session::{Standing, shorter};
use std::time::Duration;

/// How often in a row a session may get nowhere before another one is opened.
const PATIENCE: u32 = 3;

/// What has gone wrong so far.
#[derive(Default)]
pub(super) struct Trouble {
    pub(super) failures: u32,
    /// The furthest that the registry has been seen to keep of this session, in bytes.
    pub(super) kept: u64,
    /// The registry kept something since the last failure.
    pub(super) moving: bool,
    /// How often in a row the session in hand got nowhere, although the registry did not refuse.
    stuck: u32,
    /// What the last request was answered with; none where there was no answer.
    pub(super) answered: Option<u16>,
    /// The next try needs no pause, and is none of those that are counted.
    at_once: bool,
    /// In bytes, of a body that broke off without an answer, and of which the registry kept nothing.
    broken: Option<u64>,
    /// The chunk in hand was refused after a break.
    unwanted: bool,
    /// A body of one size has broken off twice: bodies are shortened until one is answered.
    suspects: bool,
    /// How often the blob began anew, in another session.
    begun_anew: u32,
    /// A token was renewed since something was kept.
    pub(super) renewed: bool,
    /// How long the registry asks us to wait.
    pub(super) wish: Option<Duration>,
}

impl Trouble {
    /// The registry has `offset` bytes. Only what it kept is progress: otherwise a bad line would be sent to for ever.
    pub(super) fn kept(&mut self, offset: u64) {
        if offset >= self.kept + PROGRESS_BYTES {
            (self.failures, self.kept, self.moving, self.renewed) = (0, offset, true, false);
        }
    }

    /// A request was finished, and with it the registry has `offset` bytes.
    pub(super) fn finished(&mut self, offset: u64) {
        self.kept(offset);
        (self.failures, self.renewed, self.broken, self.unwanted) = (0, false, None, false);
    }
}

impl StreamedUpload {
    /// `answer` when its status is among `wanted`; an error of the network where another try may do better.
    pub(super) fn expect(&mut self, answer: Response, wanted: &[u16]) -> Result<Response> {
        let status = answer.status;
        self.trouble.answered = Some(status);
        let passing = retry::is_transient(status);
        self.trouble.wish = answer.retry_after().filter(|_| passing);
        if passing || matches!(status, 401 | 413) {
            self.target.wire.throttle.record_refused_body();
        }
        let why = match status {
            // The wire has noted that.
            401 if !self.trouble.renewed => {
                (self.trouble.renewed, self.trouble.at_once) = (true, true);
                "the token had expired".to_owned()
            }
            413 => self.shorten()?,
            400..=499 | 501 if self.refuses_chunks(status) => {
                self.target.wire.bodies.refused_chunks();
                self.lengths.uncut();
                (self.session, self.trouble.at_once) = (None, true);
                format!("a blob in chunks is refused with status {status}; it is sent whole")
            }
            416 => "the registry stands elsewhere in this upload".to_owned(),
            404 => "the upload is not known any more".to_owned(),
            _ => {
                let told = self.target.wire.expect(answer, wanted, &self.target.scope, &self.what());
                return told.map_err(|error| if passing { Error::network(error.to_string()) } else { error });
            }
        };
        answer.drain();
        Err(Error::network(format!("{}: {why}", self.target.wire.host)))
    }

    /// Whether `status` may mean that the registry does not take a blob in chunks, and it can be sent whole instead.
    fn refuses_chunks(&mut self, status: u16) -> bool {
        if matches!(status, 401 | 403 | 408 | 425 | 429) || !self.lengths.are_free(&self.target.wire) {
            return false;
        }
        // After a break the registry may only stand elsewhere, which it is asked first.
        let asked = std::mem::replace(&mut self.trouble.unwanted, true);
        asked || self.trouble.failures == 0
    }

    /// The body in hand was too large: the rest goes in shorter ones. Why, or the error where none is short enough.
    fn shorten(&mut self) -> Result<String> {
        let size = self.asked.unwrap_or(self.taken);
        let (host, least) = (&self.target.wire.host, self.lengths.least);
        let advice = "raise the limit of the registry, or of the proxy before it";
        match self.target.wire.bodies.refused(size, least) {
            Some(next) => {
                self.lengths.trial = None;
                (self.trouble.at_once, self.trouble.failures, self.trouble.broken) = (true, 0, None);
                Ok(format!("a body of {size} bytes is refused; sending chunks of {next} bytes"))
            }
            None if least > SHORTEST => Err(Error::failed(format!(
                "{host} refuses a body of {size} bytes for {}, and wants chunks of at least {least} bytes \
                 (OCI-Chunk-Min-Length); {advice}",
                self.what()
            ))),
            None => Err(Error::failed(format!(
                "{host} takes no body of {size} bytes for {}, and shorter chunks are not sent; {advice}",
                self.what()
            ))),
        }
    }

    /// Where the bytes are to be written again from after `error`, and after a pause.
    pub(super) fn go_on_after(&mut self, error: Error) -> Result<u64> {
        let wire = self.target.wire.clone();
        if error.kind() != Kind::Network || error.is_permanent() || wire.cancel.raised() {
            return Err(error);
        }
        self.feed = None;
        self.held.clear();
        // From here on the registry says where it stands.
        self.left = 0;
        if !std::mem::take(&mut self.trouble.at_once) {
            let mut tries = wire.retry_policy(self.trouble.failures);
            if !tries.may_retry() {
                return Err(self.with_limit(error));
            }
            if std::mem::take(&mut self.trouble.moving) {
                tries.reset();
            }
            tries.wait(&self.what(), &error.to_string(), self.trouble.wish.take())?;
            self.trouble.failures = tries.failures();
        }
        self.sent = self.go_on(error)?;
        self.whole = None;
        Ok(self.sent)
    }

    /// `error`, and the limit that was found on the way to it.
    fn with_limit(&self, error: Error) -> Error {
        match self.target.wire.bodies.most() {
            Some(most) => {
                let host = &self.target.wire.host;
                Error::network(format!("{error}; larger bodies than {most} bytes were refused by {host}"))
            }
            None => error,
        }
    }

    /// Where to go on, after a failure and a pause.
    fn go_on(&mut self, error: Error) -> Result<u64> {
        let refused = self.trouble.answered.is_some_and(|status| !matches!(status, 404 | 416));
        let standing = match self.session.take() {
            // Nothing of the body was sent: the session stands where it stood.
            Some(session) if refused && self.taken == 0 => Standing::Kept(self.began, session),
            Some(session) => self.target.standing(session)?,
            None => Standing::Unclear,
        };
        match standing {
            // A session that gets nowhere is trusted a few times more: the registry may not have seen yet that the line
            // broke.
            Standing::Kept(offset, session)
                if offset <= self.sent && (offset > self.began || self.trouble.stuck < PATIENCE) =>
            {
                let stuck = offset <= self.began && !refused;
                self.trouble.stuck = if stuck { self.trouble.stuck + 1 } else { 0 };
                self.trouble.kept(offset);
                if stuck {
                    self.broke_off()?;
                }
                self.session = Some(session);
                return Ok(offset);
            }
            Standing::Gone if self.is_stored()? => return Ok(self.sent),
            standing => {
                // What is finished in a new session fills the tries up again: there are not many sessions. One is free, for
                // a registry that turns out not to take chunks.
                self.trouble.begun_anew += 1;
                if self.trouble.begun_anew > self.target.wire.access.retries.max(1) {
                    return Err(error);
                }
                if matches!(standing, Standing::Gone) {
                    self.divide();
                }
            }
        }
        (self.trouble.stuck, self.trouble.kept) = (0, 0);
        Ok(0)
    }

    /// The body in hand broke off without an answer, and nothing of it was kept. Once, that is the line; a second body of
    /// the same size suggests a limit whose refusal does not get through.
    fn broke_off(&mut self) -> Result<()> {
        let size = self.asked.unwrap_or(self.taken);
        let alike = |before: u64| before.abs_diff(size) <= size / 4;
        let again = self.trouble.suspects || self.trouble.broken.is_some_and(alike);
        self.trouble.broken = Some(size);
        if again && size > SHORTEST.max(self.lengths.least) && self.target.wire.bodies.may_refuse(size) {
            let why = self.shorten()?;
            self.target.wire.watch.say(&format!("{}: {why}", self.target.wire.host));
            (self.trouble.suspects, self.trouble.at_once, self.trouble.stuck) = (true, false, 0);
        }
        Ok(())
    }

    /// The registry has forgotten the upload with all that it had kept: the blob begins anew, in chunks that are shorter
    /// than what got through, and the blobs after it too.
    fn divide(&mut self) {
        self.lengths.line = shorter(self.lengths.line, self.sent - self.began, self.lengths.least);
        if let Some(chunk) = self.lengths.line {
            self.target.wire.throttle.set_chunk_bytes(chunk);
        }
    }

    /// Whether the registry has the whole blob, so that only its answer was lost.
    pub(super) fn is_stored(&mut self) -> Result<bool> {
        if let Some((digest, size)) = self.whole {
            self.stored = self.target.held(&digest)?.is_some_and(|there| there.is_none_or(|there| there == size));
        }
        Ok(self.stored)
    }
}
