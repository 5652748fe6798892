//! Uploads (distribution-spec, "Pushing blobs"): what a blob's begin asks, how its upload ends, and the writer for small
//! blobs, which are sent in one piece once they are known to be right.

use super::session::Session;
use super::streamed::StreamedUpload;
use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::error_body::refuses_head;
use crate::transport::registry::http::{Call, Payload, Response};
use std::sync::Arc;
use ureq::http::{Method, header};
use url::Url;

/// In bytes: a blob up to here is collected and sent at once, so that a broken connection costs nothing.
pub const SMALL: u64 = 1 << 20;

/// One repository that is pushed to.
#[derive(Clone)]
pub struct Target {
    pub wire: Arc<RegistryClient>,
    pub repository: String,
    pub scope: Scope,
}

impl Target {
    pub fn url(&self, path: &str) -> Result<Url> {
        self.wire.url(&format!("{}/{path}", self.repository))
    }

    /// Size, as far as it is said, of a blob that is there. One whose registry does not answer the question is sent.
    pub fn held(&self, digest: &Digest) -> Result<Option<Option<u64>>> {
        let call = Call::new(Method::HEAD, self.url(&format!("blobs/{digest}"))?);
        let what = format!("blob {digest} in {}", self.repository);
        let answer = self.wire.send(&call, Payload::Nothing, &self.scope, &what)?;
        match answer.status {
            404 => Ok(None),
            status if refuses_head(status) => Ok(None),
            _ => Ok(Some(self.wire.expect(answer, &[200], &self.scope, &what)?.length())),
        }
    }

    /// Asks for a blob that lies in another repository of the same registry (distribution-spec, "Mounting a blob").
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<Mount> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let scope = Scope::Mount { into: self.repository.clone(), from: from.to_owned() };
        let what = format!("blob {digest} in {from}");
        match self.wire.send(&Call::new(Method::POST, url), Payload::Nothing, &scope, &what) {
            Ok(answer) if answer.status == 201 => {
                answer.drain();
                Ok(Mount::Done)
            }
            Ok(answer) if answer.status == 202 => Ok(Mount::Session(self.opened(answer)?)),
            // Not there, not allowed, not known: the blob is sent.
            Ok(answer) if answer.status < 500 => {
                answer.drain();
                Ok(Mount::Refused)
            }
            Ok(answer) => Err(self.wire.expect(answer, &[201, 202], &scope, &what).unwrap_err()),
            // A user who may push here need not be allowed to read there.
            Err(error) if error.kind() == Kind::Denied => Ok(Mount::Refused),
            Err(error) => Err(error),
        }
    }

    /// The call that ends an upload as `digest`.
    pub fn put(&self, session: &Url, digest: &Digest) -> Call {
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        Call::new(Method::PUT, url).with(header::CONTENT_TYPE, "application/octet-stream").storing()
    }

    /// Checks what the registry says to the end of an upload of `digest`.
    pub fn stored(&self, answer: Response, digest: &Digest) -> Result<()> {
        let what = format!("blob {digest} in {}", self.repository);
        let answer = self.wire.expect(answer, &[201, 204], &self.scope, &what)?;
        self.same(&answer, digest, &what)?;
        answer.drain();
        Ok(())
    }

    /// The digest that the registry says it stored has to be ours.
    pub fn same(&self, answer: &Response, digest: &Digest, what: &str) -> Result<()> {
        let Some(said) = answer.header("docker-content-digest") else {
            return Ok(());
        };
        match said.parse::<Digest>() {
            Ok(said) if said == *digest || said.algorithm() != digest.algorithm() => Ok(()),
            _ => Err(Error::invalid(format!(
                "{} says that it stored {what} as {said:?}; something on the way alters it",
                self.wire.host
            ))),
        }
    }
}

/// What became of a mount.
pub enum Mount {
    Done,
    /// Not mounted, but an upload was opened for it.
    Session(Session),
    Refused,
}

/// Collects a small blob and sends it when it is verified.
pub struct MonolithicUpload {
    target: Target,
    session: Option<Session>,
    bytes: Vec<u8>,
}

impl MonolithicUpload {
    pub fn new(target: Target, session: Option<Session>, size: u64) -> MonolithicUpload {
        MonolithicUpload { target, session, bytes: Vec::with_capacity(size.min(SMALL) as usize) }
    }
}

impl BlobWriter for MonolithicUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if (self.bytes.len() + bytes.len()) as u64 > SMALL {
            return Err(Error::invalid("a blob has more bytes than were announced"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let mut writer = StreamedUpload::new(self.target.clone(), self.session.take(), Some(blob.stored()));
        let mut from = 0;
        loop {
            let sent = writer.write(&self.bytes[from..]).and_then(|()| writer.commit(blob));
            match sent {
                Ok(()) => return Ok(()),
                Err(error) => from = writer.recover(error)? as usize,
            }
        }
    }
}
