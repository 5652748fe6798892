//! The writer for large blobs. The engine pushes bytes, an HTTP request pulls them: a thread sends one request whose
//! body is what is written here. Where digest and size are known beforehand that is the closing `PUT` itself
//! (monolithic: one request for the whole blob); otherwise a `PATCH`, closed by a `PUT` when the digest is known. To a
//! registry that forgets an upload when it is cut, each `PATCH` is a chunk on a connection of its own: what ended is
//! kept.
//!
//! The last piece written stays here until `finish`, so a body that did not verify never becomes complete.

mod recovery;

use super::feed::{Ended, Feed};
use super::http::{Answer, Payload};
use super::marks::Marks;
use super::session::{Session, Standing};
use super::upload::Target;
use super::uploads::Remembered;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::sink::{BlobWriter, Verified};
use recovery::Trouble;
use ureq::http::header;
use url::Url;

pub struct Streamed {
    target: Target,
    /// Digest and size, where known before the bytes.
    known: Option<(Digest, u64)>,
    session: Option<Url>,
    /// In bytes: what the registry takes as a chunk at least.
    least: u64,
    /// In bytes: the upload goes in chunks of this size.
    chunk: Option<u64>,
    feed: Option<Feed>,
    /// Bytes that the request in hand still takes.
    room: u64,
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
    marks: Option<Marks>,
    trouble: Trouble,
}

impl Streamed {
    pub fn new(target: Target, session: Option<Session>, known: Option<(Digest, u64)>) -> Streamed {
        let (session, least) = session.map_or((None, 0), |session| (Some(session.url), session.least));
        Streamed {
            chunk: target.wire.pace.chunk().map(|chunk| chunk.max(least)),
            target,
            known,
            session,
            least,
            feed: None,
            room: 0,
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
    pub fn marked(mut self) -> Streamed {
        self.marks = self.known.map(|(digest, size)| Marks::new(digest.algorithm(), size));
        self
    }

    fn what(&self) -> String {
        match &self.known {
            Some((digest, _)) => format!("blob {digest} in {}", self.target.repository),
            None => format!("a blob for {}", self.target.repository),
        }
    }

    fn remember(&self, session: &Url) {
        if let Some((digest, _)) = &self.known {
            let marks = self.marks.as_ref().map_or(&[][..], Marks::all);
            self.target.remember(digest, session, self.chunk, marks);
        }
    }

    fn open(&mut self) -> Result<Url> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let Session { url, least } = self.target.session()?;
        self.least = least;
        self.chunk = self.chunk.map(|chunk| chunk.max(least));
        Ok(url)
    }

    /// The request that takes the bytes from `sent` on.
    fn start_feed(&mut self) -> Result<&mut Feed> {
        if self.feed.is_none() {
            let session = self.open()?;
            let left = self.known.map(|(_, size)| size - self.sent);
            let (mut call, length) = match (&self.known, self.chunk) {
                (Some((digest, _)), None) => (self.target.put(&session, digest), left),
                (known, chunk) => {
                    let length = known.and(left).map(|left| left.min(chunk.unwrap_or(u64::MAX)));
                    (self.target.patch(&session, self.sent, length), length)
                }
            };
            if let (None, Some((_, size)), 1..) = (self.chunk, self.known, self.sent) {
                call = call.with(header::CONTENT_RANGE, &format!("{}-{}", self.sent, size - 1));
            }
            if self.chunk.is_some() {
                call = call.with(header::CONNECTION, "close");
            }
            if self.trouble.failures > 0 {
                // Whoever refused the last body (too large, not allowed) may say so before this one.
                call = call.with(header::EXPECT, "100-continue");
            }
            if self.trouble.renewed {
                call = call.with_own_token();
            }
            self.remember(&session);
            self.session = Some(session);
            (self.began, self.room) = (self.sent, self.chunk.unwrap_or(u64::MAX));
            self.feed = Some(Feed::start(self.target.clone(), call, length, self.what())?);
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
        self.trouble.kept(self.sent);
        Ok(())
    }

    fn end_feed(&mut self) -> Result<Option<Answer>> {
        let Some(mut feed) = self.feed.take() else { return Ok(None) };
        // A thread that has ended says why when it is joined.
        let _ = feed.end();
        feed.finish().map(Some)
    }

    /// Why the request has ended before its body.
    fn why_ended(&mut self) -> Error {
        let what = self.what();
        let Some(feed) = self.feed.take() else {
            return Error::failed(format!("{what}: nothing is being sent"));
        };
        match feed.finish() {
            Ok(answer) => match self.expect(answer, &[]) {
                Err(error) => error,
                Ok(_) => Error::failed(format!("{}: {what} was answered too early", self.target.wire.host)),
            },
            Err(error) => error,
        }
    }
}

impl BlobWriter for Streamed {
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
            (self.left, self.trouble.kept, self.session, self.chunk) = (offset, offset, Some(session), chunk);
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
        let mut piece = self.feed.as_mut().and_then(Feed::spare).unwrap_or_default();
        piece.clear();
        piece.extend_from_slice(bytes);
        self.held = piece;
        Ok(())
    }

    fn recovers(&self) -> bool {
        true
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
        let mut tries = wire.tries(self.trouble.failures);
        if !tries.left() {
            return Err(error);
        }
        if std::mem::take(&mut self.trouble.moving) {
            tries.refill();
        }
        tries.wait(&self.what(), &error.to_string(), self.trouble.wish.take())?;
        self.trouble.failures = tries.made();
        self.sent = self.go_on(error)?;
        self.whole = None;
        Ok(self.sent)
    }

    fn finish(&mut self, blob: &Verified) -> Result<()> {
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

    fn commit(self: Box<Self>, _: &Verified) -> Result<()> {
        Ok(())
    }
}

impl Drop for Streamed {
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

impl Streamed {
    /// Sends what is held and ends the upload.
    fn close(&mut self, blob: (Digest, u64)) -> Result<()> {
        if self.stored {
            return Ok(());
        }
        self.whole = Some(blob);
        self.let_go()?;
        if self.known.is_some() && self.chunk.is_none() {
            if let Some(answer) = self.end_feed()? {
                let answer = self.expect(answer, &[201, 204])?;
                return self.target.stored(answer, &blob.0);
            }
        } else {
            self.end_patch()?;
        }
        self.put_nothing(&blob.0)
    }

    /// Ends an upload whose bytes are all there.
    fn put_nothing(&mut self, digest: &Digest) -> Result<()> {
        let session = self.open()?;
        self.session = Some(session.clone());
        let what = format!("blob {digest} in {}", self.target.repository);
        let call = self.target.put(&session, digest);
        let answer = self.target.wire.send(&call, Payload::Nothing, &self.target.scope, &what)?;
        let answer = self.expect(answer, &[201, 204])?;
        self.target.stored(answer, digest)
    }
}
