//! The writer for large blobs. The engine pushes bytes, an HTTP request pulls them: a thread sends one request whose
//! body is what is written here. Where digest and size are known beforehand that is the closing `PUT` itself
//! (monolithic: one request for the whole blob); otherwise a `PATCH`, closed by a `PUT` when the digest is known.
//! `lengths` says when a blob goes in several chunks instead, `recovery` what follows a failure.
//!
//! The last piece written stays here until `finish`, so a body that did not verify never becomes complete.

mod lengths;
mod recovery;

use super::body_pipe::{BodyPipe, Ended};
use super::hash_checkpoints::HashCheckpoints;
use super::resume_cache::Remembered;
use super::session::{Session, Standing};
use super::upload::{SMALL, Target};
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use crate::transport::registry::http::{Payload, Response};
use lengths::Lengths;
use recovery::Trouble;
use std::time::Instant;
use ureq::http::header;
use url::Url;

pub struct StreamedUpload {
    target: Target,
    /// Digest and size, where known before the bytes.
    known: Option<(Digest, u64)>,
    session: Option<Url>,
    lengths: Lengths,
    feed: Option<BodyPipe>,
    /// Bytes that the request in hand still takes.
    room: u64,
    /// The request in hand ends the upload.
    closing: bool,
    /// In bytes, of the body that was announced by the request in hand; none where it goes on until it ends.
    asked: Option<u64>,
    /// Bytes of its body that the connection has taken, when it has ended.
    taken: u64,
    asked_at: Instant,
    /// The piece that `finish` lets go.
    held: Vec<u8>,
    /// Bytes handed to the feed, from the blob's start.
    sent: u64,
    /// Where the request in hand began.
    began: u64,
    /// Bytes that the registry has already: they pass here, to be hashed, and go no further.
    left: u64,
    /// What it is, once all of it came and was right.
    whole: Option<(Digest, u64)>,
    /// The registry has the blob.
    stored: bool,
    /// Where the source is far away too.
    marks: Option<HashCheckpoints>,
    trouble: Trouble,
}

impl StreamedUpload {
    pub fn new(target: Target, session: Option<Session>, known: Option<(Digest, u64)>) -> StreamedUpload {
        let (session, least) = session.map_or((None, 0), |session| (Some(session.url), session.least));
        StreamedUpload {
            lengths: Lengths::new(&target.wire, known.map(|(_, size)| size), least),
            target,
            known,
            session,
            feed: None,
            room: 0,
            closing: false,
            asked: None,
            taken: 0,
            asked_at: Instant::now(),
            held: Vec::new(),
            sent: 0,
            began: 0,
            left: 0,
            whole: None,
            stored: false,
            marks: None,
            trouble: Trouble::default(),
        }
    }

    /// What is sent is not to be read again by a later run: its source is far away.
    pub fn marked(mut self) -> StreamedUpload {
        self.marks = self.known.map(|(digest, size)| HashCheckpoints::new(digest.algorithm(), size));
        self
    }

    fn what(&self) -> String {
        match &self.known {
            Some((digest, _)) => format!("blob {digest} in {}", self.target.repository),
            None => format!("a blob for {}", self.target.repository),
        }
    }

    /// For a later run. A small blob is sent again sooner than it is asked for.
    fn remember(&self, session: &Url) {
        if let Some((digest, size)) = &self.known
            && *size > SMALL
        {
            let marks = self.marks.as_ref().map_or(&[][..], HashCheckpoints::all);
            self.target.remember(digest, session, self.lengths.line, marks);
        }
    }

    fn open(&mut self) -> Result<Url> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let Session { url, least } = self.target.session().map_err(Error::permanent)?;
        (self.lengths.least, self.lengths.begun) = (least, false);
        Ok(url)
    }

    /// The request that takes the bytes from `sent` on.
    fn start_feed(&mut self) -> Result<&mut BodyPipe> {
        if self.feed.is_none() {
            let session = self.open()?;
            let wire = self.target.wire.clone();
            let left = self.known.map(|(_, size)| size - self.sent);
            let chunk = self.lengths.next(&wire, left);
            let length = left.map(|left| left.min(chunk.unwrap_or(u64::MAX)));
            let mut call = match (&self.known, chunk) {
                (Some((digest, size)), None) if self.sent > 0 => {
                    let range = format!("{}-{}", self.sent, size - 1);
                    self.target.put(&session, digest).with(header::CONTENT_RANGE, &range)
                }
                (Some((digest, _)), None) => self.target.put(&session, digest),
                _ => self.target.patch(&session, self.sent, length),
            };
            self.closing = self.known.is_some() && chunk.is_none();
            self.lengths.begun |= self.known.is_some() && chunk.is_some();
            if chunk.is_some() && self.lengths.line.is_some() {
                call = call.with(header::CONNECTION, "close");
            }
            if self.trouble.failures > 0 || self.lengths.trial.is_some() || wire.throttle.refuses_bodies() {
                // A registry that refused a body (too large, too many, not allowed) may refuse this one before it is sent.
                call = call.with(header::EXPECT, "100-continue");
            }
            if self.trouble.renewed {
                call = call.with_own_token();
            }
            self.remember(&session);
            self.session = Some(session);
            (self.began, self.room, self.asked) = (self.sent, chunk.unwrap_or(u64::MAX), length);
            (self.taken, self.asked_at, self.trouble.answered) = (0, Instant::now(), None);
            self.feed = Some(BodyPipe::start(self.target.clone(), call, length, self.what())?);
        }
        Ok(self.feed.as_mut().expect("made above"))
    }

    /// Hands on what is held.
    fn let_go(&mut self) -> Result<()> {
        let mut piece = std::mem::take(&mut self.held);
        let there = self.left.saturating_sub(self.sent).min(piece.len() as u64);
        self.sent += there;
        piece.drain(..there as usize);
        while !piece.is_empty() {
            self.start_feed()?;
            let rest = piece.split_off((self.room.min(piece.len() as u64)) as usize);
            let size = piece.len() as u64;
            if let Some(Err(Ended)) = self.feed.as_mut().map(|feed| feed.give(piece)) {
                return Err(self.why_ended());
            }
            (self.sent, self.room, piece) = (self.sent + size, self.room - size, rest);
            if self.room == 0 {
                self.end_patch()?;
            }
        }
        Ok(())
    }

    /// Ends the request in hand, a `PATCH`; what it carried is kept.
    fn end_patch(&mut self) -> Result<()> {
        let Some(answer) = self.end_feed()? else { return Ok(()) };
        let answer = self.expect(answer, &[202, 201, 204])?;
        let session = self.target.next(answer)?;
        self.remember(&session);
        self.session = Some(session);
        self.finished();
        Ok(())
    }

    /// The request in hand did what it was to do.
    fn finished(&mut self) {
        self.trouble.finished(self.sent);
        self.lengths.trial = None;
        let wire = &self.target.wire;
        wire.bodies.passed(self.sent - self.began);
        if let Some(answer) = wire.throttle.min_latency() {
            self.lengths.chunk_took(self.asked_at.elapsed(), answer);
        }
    }

    fn end_feed(&mut self) -> Result<Option<Response>> {
        let Some(mut feed) = self.feed.take() else { return Ok(None) };
        // A thread that has ended says why when it is joined.
        let _ = feed.end();
        let (answer, taken) = feed.finish();
        self.taken = taken;
        answer.map(Some)
    }

    /// Why the request has ended before its body.
    fn why_ended(&mut self) -> Error {
        let what = self.what();
        let Some(feed) = self.feed.take() else {
            return Error::failed(format!("{what}: nothing is being sent"));
        };
        let (answer, taken) = feed.finish();
        self.taken = taken;
        match answer {
            Ok(answer) => match self.expect(answer, &[]) {
                Err(error) => error,
                Ok(_) => Error::failed(format!("{}: {what} was answered too early", self.target.wire.host)),
            },
            Err(error) => error,
        }
    }
}

impl BlobWriter for StreamedUpload {
    /// Where an earlier run left off, the registry has the beginning. It is read again all the same, since a digest is of
    /// the whole; but not what lies before a mark.
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        if let (Some((digest, size)), None) = (self.known, &self.session)
            && let Some(Remembered { session, chunk, marks }) = self.target.left(&digest)
            && let Ok(Standing::Kept(offset, session)) = self.target.standing(session)
            && offset <= size
        {
            self.target.wire.watch.say(&format!(
                "{} has {offset} of {size} bytes of {}; going on there",
                self.target.wire.host,
                digest.short()
            ));
            (self.left, self.trouble.kept, self.session) = (offset, offset, Some(session));
            (self.lengths.line, self.lengths.begun) = (chunk, chunk.is_some());
            if let Some(own) = &mut self.marks {
                let (at, hasher) = own.go_on(digest.algorithm(), marks, offset);
                self.sent = at;
                return Ok((at, hasher));
            }
        }
        Ok((0, fresh))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // The end of a blob that fills its buffers is no reason to let the last piece go.
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some((_, size)) = self.known
            && self.sent + (self.held.len() + bytes.len()) as u64 > size
        {
            return Err(Error::invalid(format!("{} has more than the {size} bytes announced", self.what())));
        }
        let at = self.sent + self.held.len() as u64;
        self.let_go()?;
        if self.marks.as_mut().is_some_and(|marks| marks.pass(at, bytes))
            && let Some(session) = &self.session
        {
            self.remember(session);
        }
        let mut piece = self.feed.as_mut().and_then(BodyPipe::spare).unwrap_or_default();
        piece.clear();
        piece.extend_from_slice(bytes);
        self.held = piece;
        Ok(())
    }

    fn recover(&mut self, error: Error) -> Result<u64> {
        self.go_on_after(error)
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        if let Some(known) = self.known
            && known != (digest, size)
        {
            return Err(Error::failed(format!("{} became {digest} of {size} bytes on the way", self.what())));
        }
        let ended = match self.close((digest, size)) {
            Err(error) if error.kind() == Kind::Network && !self.target.wire.cancel.raised() => {
                if self.is_stored().unwrap_or(false) { Ok(()) } else { Err(error) }
            }
            ended => ended,
        };
        // Stored or refused: only a line that broke is gone on with.
        if ended.as_ref().err().is_none_or(|error| !matches!(error.kind(), Kind::Network | Kind::Interrupted)) {
            self.target.forget(&digest);
        }
        ended
    }
}

impl Drop for StreamedUpload {
    /// All of it came and was not wanted: it was not what it should have been, and nobody is to go on with it.
    fn drop(&mut self) {
        if let Some((digest, size)) = self.known
            && self.whole.is_none()
            && self.sent + self.held.len() as u64 == size
            && !self.target.wire.cancel.raised()
        {
            self.target.forget(&digest);
        }
    }
}

impl StreamedUpload {
    /// Sends what is held and ends the upload.
    fn close(&mut self, blob: (Digest, u64)) -> Result<()> {
        if self.stored {
            return Ok(());
        }
        self.whole = Some(blob);
        self.let_go()?;
        if !self.closing {
            self.end_patch()?;
        } else if let Some(answer) = self.end_feed()? {
            let answer = self.expect(answer, &[201, 204])?;
            self.finished();
            return self.target.stored(answer, &blob.0);
        }
        self.put_nothing(&blob.0)
    }

    /// Ends an upload whose bytes are all there.
    fn put_nothing(&mut self, digest: &Digest) -> Result<()> {
        let session = self.open()?;
        self.session = Some(session.clone());
        let what = format!("blob {digest} in {}", self.target.repository);
        let call = self.target.put(&session, digest);
        (self.began, self.asked, self.taken, self.trouble.answered) = (self.sent, Some(0), 0, None);
        let answer = self.target.wire.send(&call, Payload::Nothing, &self.target.scope, &what)?;
        let answer = self.expect(answer, &[201, 204])?;
        self.target.stored(answer, digest)
    }
}
