//! An upload after a failure: whether another try may help, and where it goes on.

use super::super::http::Answer;
use super::super::retry::{self, PROGRESS};
use super::super::session::{Standing, shorter};
use super::Streamed;
use crate::error::{Error, Result};
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
    refused: bool,
    /// How often an upload was forgotten.
    begun_anew: u32,
    /// A token was renewed since something was kept.
    pub(super) renewed: bool,
    /// How long the registry asks us to wait.
    pub(super) wish: Option<Duration>,
}

impl Trouble {
    /// The registry has `offset` bytes. Only what it kept is progress: otherwise a bad line would be sent to for ever.
    pub(super) fn kept(&mut self, offset: u64) {
        if offset >= self.kept + PROGRESS {
            (self.failures, self.kept, self.moving, self.renewed) = (0, offset, true, false);
        }
    }
}

impl Streamed {
    /// `answer` when its status is among `wanted`; an error of the network where another try may do better.
    pub(super) fn expect(&mut self, answer: Answer, wanted: &[u16]) -> Result<Answer> {
        let status = answer.status;
        self.trouble.refused = retry::is_passing(status);
        self.trouble.wish = answer.retry_after().filter(|_| retry::is_passing(status));
        let why = match status {
            // The wire has noted that.
            401 if !self.trouble.renewed => {
                self.trouble.renewed = true;
                "the token had expired"
            }
            416 => "the registry stands elsewhere in this upload",
            404 => "the upload is not known any more",
            _ => return self.target.wire.expect(answer, wanted, &self.target.scope, &self.what()),
        };
        answer.drain();
        Err(Error::network(format!("{}: {why}", self.target.wire.host)))
    }

    /// Where to go on, after a failure and a pause.
    pub(super) fn go_on(&mut self, error: Error) -> Result<u64> {
        let standing = match self.session.take() {
            Some(session) => self.target.standing(session)?,
            None => Standing::Empty,
        };
        match standing {
            // A session that gets nowhere is trusted a few times more: the registry may not have seen yet that the line
            // broke.
            Standing::Kept(offset, session)
                if offset <= self.sent && (offset > self.began || self.trouble.stuck < PATIENCE) =>
            {
                let stuck = offset <= self.began && !std::mem::take(&mut self.trouble.refused);
                self.trouble.stuck = if stuck { self.trouble.stuck + 1 } else { 0 };
                self.trouble.kept(offset);
                self.session = Some(session);
                return Ok(offset);
            }
            Standing::Kept(..) | Standing::Empty => {}
            Standing::Gone if self.is_stored()? => return Ok(self.sent),
            Standing::Gone => self.divide(error)?,
        }
        (self.trouble.stuck, self.trouble.kept) = (0, 0);
        Ok(0)
    }

    /// The registry has forgotten the upload with all that it had kept: the blob begins anew, in chunks that are shorter
    /// than what got through, and the blobs after it too.
    fn divide(&mut self, error: Error) -> Result<()> {
        self.trouble.begun_anew += 1;
        if self.trouble.begun_anew > self.target.wire.access.retries {
            return Err(error);
        }
        self.chunk = shorter(self.chunk, self.sent - self.began, self.least);
        if let Some(chunk) = self.chunk {
            self.target.wire.pace.cut_into(chunk);
        }
        Ok(())
    }

    /// Whether the registry has the whole blob, so that only its answer was lost.
    pub(super) fn is_stored(&mut self) -> Result<bool> {
        if let Some((digest, size)) = self.whole {
            self.stored = self.target.held(&digest)?.is_some_and(|there| there.is_none_or(|there| there == size));
        }
        Ok(self.stored)
    }
}
