//! The writer for large blobs. The engine pushes bytes, an HTTP request pulls them: a thread sends one request whose
//! body is what is written here. Where digest and size are known beforehand that is the closing `PUT` itself
//! (monolithic: one request for the whole blob); otherwise a `PATCH`, closed by a `PUT` when the digest is known.
//!
//! The last piece written stays here until `commit`, so a body that did not verify never becomes complete.

use super::feed::{Ended, Feed};
use super::http::{Call, Payload};
use super::retry::PROGRESS;
use super::upload::Target;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::sink::{BlobWriter, Verified};
use ureq::http::{Method, header};
use url::Url;

pub struct Streamed {
    target: Target,
    /// Digest and size, where known before the bytes.
    known: Option<(Digest, u64)>,
    session: Option<Url>,
    feed: Option<Feed>,
    /// The piece that `commit` lets go.
    held: Vec<u8>,
    /// Bytes handed to the feed, from the blob's start.
    sent: u64,
    /// Where the request in hand began.
    began: u64,
    failures: u32,
    /// The furthest that the registry has been seen to keep, in bytes.
    kept: u64,
    /// Bytes that an earlier run has sent: they pass here, to be hashed, and go no further.
    left: u64,
    /// The session in hand got nowhere the last time.
    stuck: bool,
}

impl Streamed {
    pub fn new(target: Target, session: Option<Url>, known: Option<(Digest, u64)>) -> Streamed {
        Streamed {
            target,
            known,
            session,
            feed: None,
            held: Vec::new(),
            sent: 0,
            began: 0,
            failures: 0,
            kept: 0,
            left: 0,
            stuck: false,
        }
    }

    fn what(&self) -> String {
        match &self.known {
            Some((digest, _)) => format!("blob {digest} in {}", self.target.repository),
            None => format!("a blob for {}", self.target.repository),
        }
    }

    /// The request that takes the bytes from `sent` on.
    fn start_feed(&mut self) -> Result<&mut Feed> {
        if self.feed.is_none() {
            let session = match self.session.take() {
                Some(session) => session,
                None => self.target.session()?,
            };
            let (mut call, left) = match &self.known {
                Some((digest, size)) => (self.target.put(&session, digest), Some(size - self.sent)),
                None => {
                    let call = Call::new(Method::PATCH, session.clone());
                    (call.with(header::CONTENT_TYPE, "application/octet-stream").storing(), None)
                }
            };
            if self.sent > 0
                && let Some((_, size)) = &self.known
            {
                call = call.with(header::CONTENT_RANGE, &format!("{}-{}", self.sent, size - 1));
            }
            if self.failures > 0 {
                // Whoever refused the last body (too large, not allowed) may say so before this one.
                call = call.with(header::EXPECT, "100-continue");
            }
            if let Some((digest, _)) = &self.known {
                self.target.remember(digest, &session);
            }
            self.session = Some(session);
            self.began = self.sent;
            self.feed = Some(Feed::start(self.target.clone(), call, left, self.what())?);
        }
        Ok(self.feed.as_mut().expect("made above"))
    }

    /// Hands on what is held.
    fn let_go(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut piece = std::mem::take(&mut self.held);
        let there = self.left.saturating_sub(self.sent).min(piece.len() as u64);
        if there > 0 {
            self.sent += there;
            piece.drain(..there as usize);
            if piece.is_empty() {
                return Ok(());
            }
        }
        let size = piece.len() as u64;
        match self.start_feed()?.give(piece) {
            Ok(()) => {
                self.sent += size;
                Ok(())
            }
            Err(Ended) => Err(self.why_ended()),
        }
    }

    /// Why the request has ended before its body.
    fn why_ended(&mut self) -> Error {
        let what = self.what();
        let Some(feed) = self.feed.take() else {
            return Error::failed(format!("{what}: nothing is being sent"));
        };
        match feed.finish() {
            Ok(answer) => match self.target.wire.expect(answer, &[], &self.target.scope, &what) {
                Err(error) => error,
                Ok(_) => Error::failed(format!("{}: {what} was answered too early", self.target.wire.host)),
            },
            Err(error) => error,
        }
    }

    /// How many bytes of the session the registry has, and where it goes on; `None`: begin anew.
    fn standing(&mut self) -> Result<Option<(u64, Url)>> {
        let Some(session) = self.session.take() else {
            return Ok(None);
        };
        let call = Call::new(Method::GET, session);
        let answer = self.target.wire.send(&call, Payload::Nothing, &self.target.scope, "an upload's state")?;
        if !matches!(answer.status, 200 | 202 | 204) {
            answer.drain();
            return Ok(None);
        }
        let last = answer.header("range").and_then(|range| {
            let range = range.trim();
            range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse::<u64>().ok()
        });
        let Ok(next) = self.target.next(answer) else {
            return Ok(None);
        };
        // `0-0` means one byte to some registries and none to others.
        Ok(last.filter(|last| *last > 0 && *last < self.sent + self.held.len() as u64).map(|last| (last + 1, next)))
    }
}

impl BlobWriter for Streamed {
    /// Where an earlier run left off, the registry has the beginning. It is read again all the same: a digest is of the
    /// whole.
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        if let (Some((digest, size)), None) = (self.known, &self.session) {
            self.session = self.target.left(&digest);
            // To be asked for all that the registry has.
            self.sent = size;
            let found = self.standing();
            self.sent = 0;
            match found {
                Ok(Some((offset, session))) if offset < size => {
                    self.target.wire.watch.say(&format!(
                        "{} has {offset} of {size} bytes of {}; going on there",
                        self.target.wire.host,
                        digest.short()
                    ));
                    (self.left, self.kept, self.session) = (offset, offset, Some(session));
                }
                _ => self.session = None,
            }
        }
        Ok((0, fresh))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((_, size)) = self.known
            && self.sent + (self.held.len() + bytes.len()) as u64 > size
        {
            return Err(Error::invalid(format!("{} has more than the {size} bytes announced", self.what())));
        }
        self.let_go()?;
        let mut piece = self.feed.as_mut().and_then(Feed::spare).unwrap_or_default();
        piece.clear();
        piece.extend_from_slice(bytes);
        self.held = piece;
        Ok(())
    }

    fn recover(&mut self, error: Error) -> Result<u64> {
        if error.kind() != Kind::Network || self.target.wire.cancel.raised() {
            return Err(error);
        }
        self.feed = None;
        self.held.clear();
        // From here on the registry says where it stands.
        self.left = 0;
        let wire = self.target.wire.clone();
        let mut tries = wire.tries(self.failures);
        if !tries.left() {
            return Err(error);
        }
        tries.wait(&self.what(), &error.to_string(), None)?;
        self.failures = tries.made();
        self.sent = match self.standing()? {
            // A session that got nowhere since it was taken up is trusted once more: the registry may not have seen yet
            // that the line broke.
            Some((offset, session)) if offset > self.began || !self.stuck => {
                self.stuck = offset <= self.began;
                // Only what the registry kept is progress: otherwise a bad line would be sent to for ever.
                if offset >= self.kept + PROGRESS {
                    (self.failures, self.kept) = (0, offset);
                }
                self.session = Some(session);
                offset
            }
            _ => {
                self.stuck = false;
                0
            }
        };
        Ok(self.sent)
    }

    fn finish(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        if let Some(known) = self.known
            && known != (digest, size)
        {
            return Err(Error::failed(format!("{} became {digest} of {size} bytes on the way", self.what())));
        }
        let ended = match self.close(&digest) {
            Err(error) if error.kind() == Kind::Network && !self.target.wire.cancel.raised() => {
                self.mend(&digest, size, error)
            }
            ended => ended,
        };
        // Stored or refused: only a line that broke is gone on with.
        if ended.as_ref().err().is_none_or(|error| !matches!(error.kind(), Kind::Network | Kind::Interrupted)) {
            self.target.forget(&digest);
        }
        ended
    }

    fn commit(self: Box<Self>, _: &Verified) -> Result<()> {
        Ok(())
    }
}

impl Streamed {
    /// Sends what is held and ends the upload.
    fn close(&mut self, digest: &Digest) -> Result<()> {
        self.let_go()?;
        let answer = match self.feed.take() {
            Some(mut feed) => {
                // A thread that has ended says why when it is joined.
                let _ = feed.end();
                Some(feed.finish()?)
            }
            None => None,
        };
        match (answer, self.known) {
            (Some(answer), Some(_)) => self.target.stored(answer, digest),
            (Some(patched), None) => {
                let (wire, scope) = (&self.target.wire, &self.target.scope);
                let patched = wire.expect(patched, &[202, 201, 204], scope, &self.what())?;
                let session = self.target.next(patched)?;
                self.session = Some(session);
                self.put_nothing(digest)
            }
            (None, _) => self.put_nothing(digest),
        }
    }

    /// Ends an upload whose bytes are all there.
    fn put_nothing(&mut self, digest: &Digest) -> Result<()> {
        let session = match &self.session {
            Some(session) => session.clone(),
            None => self.target.session()?,
        };
        let what = format!("blob {digest} in {}", self.target.repository);
        let call = self.target.put(&session, digest);
        let answer = self.target.wire.send(&call, Payload::Nothing, &self.target.scope, &what)?;
        self.target.stored(answer, digest)
    }

    /// After a failure at the very end: perhaps only the answer was lost, or the registry can try once more with what
    /// it has. Otherwise `error` stands.
    fn mend(&mut self, digest: &Digest, size: u64, error: Error) -> Result<()> {
        match self.target.held(digest) {
            Ok(Some(there)) if there.is_none_or(|there| there == size) => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err(error),
        }
        self.sent = size;
        match self.standing() {
            Ok(Some((offset, session))) => {
                self.session = Some(session);
                if offset < size { Err(error) } else { self.put_nothing(digest).map_err(|_| error) }
            }
            _ => Err(error),
        }
    }
}
