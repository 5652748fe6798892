//! An upload session (distribution-spec, "Pushing a blob in chunks"): opening one, where it stands, and its chunks.

use super::upload::Target;
use crate::error::{Error, Result};
use crate::transport::registry::http::{Call, Payload, Response};
use ureq::http::{Method, header};
use url::Url;

/// In bytes. A server that wants longer chunks is not given chunks at all.
pub const LONGEST_CHUNK: u64 = 64 << 20;

/// An upload that was opened.
#[derive(Debug, Clone)]
pub struct Session {
    /// Where it goes on.
    pub url: Url,
    /// In bytes: what a chunk has at least, except the last (`OCI-Chunk-Min-Length`); 0 where it was not said.
    pub least: u64,
}

/// What a registry has of an upload.
#[derive(Debug)]
pub enum Standing {
    /// So many bytes, and where it goes on. `0-0` means one byte to some registries and none to others: none, since a body
    /// that broke off after one byte is not seen.
    Kept(u64, Url),
    /// It does not say where the upload goes on.
    Unclear,
    /// The upload is not known, or not any more.
    Gone,
}

impl Target {
    /// Opens an upload session.
    pub fn session(&self) -> Result<Session> {
        let call = Call::new(Method::POST, self.url("blobs/uploads/")?);
        let what = format!("upload to {}", self.repository);
        let answer = self.wire.send(&call, Payload::Nothing, &self.scope, &what)?;
        let answer = self.wire.expect(answer, &[202], &self.scope, &what)?;
        self.opened(answer)
    }

    /// The session that `answer` has opened.
    pub fn opened(&self, answer: Response) -> Result<Session> {
        let least = answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(Session { url: self.next(answer)?, least })
    }

    /// Where the upload that `answer` is about goes on.
    pub fn next(&self, answer: Response) -> Result<Url> {
        let location = answer.header("location").ok_or_else(|| {
            Error::failed(format!("{} does not say where an upload to {} goes", self.wire.host, self.repository))
        })?;
        let session = self.wire.location(&answer.url, location)?;
        answer.drain();
        Ok(session)
    }

    /// Asks how far the upload at `session` has come.
    pub fn standing(&self, session: Url) -> Result<Standing> {
        let (call, what) = (Call::new(Method::GET, session), "an upload's state");
        let answer = self.wire.send(&call, Payload::Nothing, &self.scope, what)?;
        if matches!(answer.status, 400 | 404 | 405 | 409 | 410 | 416 | 501) {
            answer.drain();
            return Ok(Standing::Gone);
        }
        let answer = self.wire.expect(answer, &[200, 202, 204], &self.scope, what)?;
        let last = answer.header("range").and_then(|range| {
            let range = range.trim();
            range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse::<u64>().ok()
        });
        let kept = last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1));
        Ok(match self.next(answer) {
            Ok(next) => Standing::Kept(kept, next),
            Err(_) => Standing::Unclear,
        })
    }

    /// The call that adds the bytes from `at` on to an upload, `size` of them where that is known beforehand.
    pub fn patch(&self, session: &Url, at: u64, size: Option<u64>) -> Call {
        let call = Call::new(Method::PATCH, session.clone());
        let call = call.with(header::CONTENT_TYPE, "application/octet-stream").storing();
        match size {
            Some(size) if size > 0 => call.with(header::CONTENT_RANGE, &format!("{at}-{}", at + size - 1)),
            _ => call,
        }
    }

    /// Gives up a session that turned out not to be needed. That it fails changes nothing.
    pub fn abandon(&self, session: Session) {
        let call = Call::new(Method::DELETE, session.url);
        if let Ok(answer) = self.wire.send(&call, Payload::Nothing, &self.scope, "an upload") {
            answer.drain();
        }
    }
}

/// How long chunks are, in bytes, after one of `tried` bytes (or a whole blob) of which `passed` were sent was cut: so
/// much shorter that the line lets several through.
pub fn shorter(tried: Option<u64>, passed: u64, least: u64) -> Option<u64> {
    const SHORTEST: u64 = 64 << 10;
    const LONG: u64 = 8 << 20;
    let chunk = (tried.unwrap_or(passed) / 4).clamp(SHORTEST, LONG).max(least);
    (chunk <= LONGEST_CHUNK).then_some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_shorter_but_never_shorter_than_the_registry_takes() {
        const MIB: u64 = 1 << 20;
        for (tried, passed, least, chunk) in [
            (None, 100 * MIB, 0, Some(8 * MIB)),
            (None, 4 * MIB, 0, Some(MIB)),
            (Some(MIB), 10, 0, Some(MIB / 4)),
            (Some(64 << 10), 10, 0, Some(64 << 10)),
            (None, 0, 5 * MIB, Some(5 * MIB)),
            (None, 100 * MIB, 65 * MIB, None),
        ] {
            assert_eq!(shorter(tried, passed, least), chunk, "{tried:?} {passed} {least}");
        }
    }
}
