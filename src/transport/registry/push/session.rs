//! An upload session (distribution-spec, "Pushing blobs"): its requests, from the mount or `POST` to the closing `PUT`.

use super::target::Target;
use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::{Call, Payload, Response};
use ureq::http::{Method, header};
use url::Url;

/// A registry that requires longer chunks gets blobs in one request.
pub const MAX_CHUNK_BYTES: u64 = 64 << 20;

/// An open upload session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The URL of the next request.
    pub url: Url,
    /// The minimum size of a chunk except the last, in bytes (`OCI-Chunk-Min-Length`); 0 if the registry names none.
    pub min_chunk: u64,
}

/// The state of an upload session at the registry.
#[derive(Debug)]
pub enum SessionStatus {
    /// The number of bytes stored, and the URL of the next request. Registries disagree whether `0-0` means one
    /// byte or none; it is read as none, which at worst sends one byte again.
    Stored(u64, Url),
    /// The response has no URL for the next request.
    NoLocation,
    /// The registry does not know the session (any more).
    Unknown,
}

/// The result of a mount request.
pub enum Mount {
    Done,
    /// Not mounted; the registry opened an upload session instead.
    Session(Session),
    Refused,
}

impl Target {
    /// Asks the registry for a blob of another of its repositories (distribution-spec, "Mounting a blob").
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<Mount> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let scope = Scope::Mount { into: self.repository.clone(), from: from.to_owned() };
        let what = format!("blob {digest} in {from}");
        match self.client.send(&Call::new(Method::POST, url), Payload::Nothing, &scope, &what) {
            Ok(response) if response.status == 201 => {
                response.drain();
                Ok(Mount::Done)
            }
            Ok(response) if response.status == 202 => Ok(Mount::Session(self.session_from(response)?)),
            // Blob missing, permission denied, or mounting not supported: the blob is sent.
            Ok(response) if response.status < 500 => {
                response.drain();
                Ok(Mount::Refused)
            }
            Ok(response) => Err(self.client.expect(response, &[201, 202], &scope, &what).unwrap_err()),
            // A user who may push to this repository may have no read access to the other one.
            Err(error) if error.kind() == Kind::Denied => Ok(Mount::Refused),
            Err(error) => Err(error),
        }
    }

    /// Opens an upload session.
    pub fn open_session(&self) -> Result<Session> {
        let call = Call::new(Method::POST, self.url("blobs/uploads/")?);
        let what = format!("upload to {}", self.repository);
        let response = self.client.send(&call, Payload::Nothing, &self.scope, &what)?;
        let response = self.client.expect(response, &[202], &self.scope, &what)?;
        self.session_from(response)
    }

    /// The session that `response` (status 202) opened.
    fn session_from(&self, response: Response) -> Result<Session> {
        let min_chunk = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(Session { url: self.next_location(response)?, min_chunk })
    }

    /// The URL of the session's next request, from the `Location` of `response`.
    pub fn next_location(&self, response: Response) -> Result<Url> {
        let location = response.header("location").ok_or_else(|| {
            Error::failed(format!(
                "{}: the response to an upload to {} has no Location",
                self.client.host, self.repository
            ))
        })?;
        let session = self.client.location(&response.url, location)?;
        response.drain();
        Ok(session)
    }

    /// Asks the registry how many bytes of the upload at `session` it has stored.
    pub fn session_status(&self, session: Url) -> Result<SessionStatus> {
        let (call, what) = (Call::new(Method::GET, session), "the status of an upload");
        let response = self.client.send(&call, Payload::Nothing, &self.scope, what)?;
        if matches!(response.status, 400 | 404 | 405 | 409 | 410 | 416 | 501) {
            response.drain();
            return Ok(SessionStatus::Unknown);
        }
        let response = self.client.expect(response, &[200, 202, 204], &self.scope, what)?;
        let last = response.header("range").and_then(|range| {
            let range = range.trim();
            range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse::<u64>().ok()
        });
        let stored = last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1));
        Ok(match self.next_location(response) {
            Ok(next) => SessionStatus::Stored(stored, next),
            Err(_) => SessionStatus::NoLocation,
        })
    }

    /// The `PATCH` that appends bytes from offset `at`; `size` is their number, where known.
    pub fn patch(&self, session: &Url, at: u64, size: Option<u64>) -> Call {
        let call = Call::new(Method::PATCH, session.clone());
        let call = call.with(header::CONTENT_TYPE, "application/octet-stream").storing();
        match size {
            Some(size) if size > 0 => call.with(header::CONTENT_RANGE, &format!("{at}-{}", at + size - 1)),
            _ => call,
        }
    }

    /// The `PUT` that closes an upload as `digest`.
    pub fn closing_put(&self, session: &Url, digest: &Digest) -> Call {
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        Call::new(Method::PUT, url).with(header::CONTENT_TYPE, "application/octet-stream").storing()
    }

    /// Checks the response to the closing `PUT` of `digest`.
    pub fn check_stored(&self, response: Response, digest: &Digest) -> Result<()> {
        let what = format!("blob {digest} in {}", self.repository);
        let response = self.client.expect(response, &[201, 204], &self.scope, &what)?;
        self.check_reported_digest(&response, digest, &what)?;
        response.drain();
        Ok(())
    }

    /// Cancels an unused session. Errors are ignored: the registry expires the session later.
    pub fn cancel_session(&self, session: Session) {
        let call = Call::new(Method::DELETE, session.url);
        if let Ok(response) = self.client.send(&call, Payload::Nothing, &self.scope, "an upload") {
            response.drain();
        }
    }
}

/// The chunk size (bytes) after a chunk of `tried` bytes (`None`: a whole blob) broke off with `sent` bytes sent: a
/// quarter, so that the connection carries several. `None` if `min_chunk` is too large for chunks.
pub fn shorter_chunk(tried: Option<u64>, sent: u64, min_chunk: u64) -> Option<u64> {
    const MIN_SHORTER_CHUNK_BYTES: u64 = 64 << 10;
    const MAX_SHORTER_CHUNK_BYTES: u64 = 8 << 20;
    let chunk = (tried.unwrap_or(sent) / 4).clamp(MIN_SHORTER_CHUNK_BYTES, MAX_SHORTER_CHUNK_BYTES).max(min_chunk);
    (chunk <= MAX_CHUNK_BYTES).then_some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_shorter_but_never_shorter_than_the_registry_takes() {
        const MIB: u64 = 1 << 20;
        for (tried, sent, min_chunk, chunk) in [
            (None, 100 * MIB, 0, Some(8 * MIB)),
            (None, 4 * MIB, 0, Some(MIB)),
            (Some(MIB), 10, 0, Some(MIB / 4)),
            (Some(64 << 10), 10, 0, Some(64 << 10)),
            (None, 0, 5 * MIB, Some(5 * MIB)),
            (None, 100 * MIB, 65 * MIB, None),
        ] {
            assert_eq!(shorter_chunk(tried, sent, min_chunk), chunk, "{tried:?} {sent} {min_chunk}");
        }
    }
}
