//! The repository that an upload writes to.

use crate::error::{Error, Result};
use crate::image::Digest;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::error_body::refuses_head;
use crate::transport::registry::http::{Call, Payload, Response};
use std::sync::Arc;
use ureq::http::Method;
use url::Url;

/// Blobs up to this size are collected in memory and sent in one request, so that a retry needs no new read.
pub const MAX_MONOLITHIC_BYTES: u64 = 1 << 20;

/// One repository that is pushed to.
#[derive(Clone)]
pub struct Target {
    pub client: Arc<RegistryClient>,
    pub repository: String,
    pub scope: Scope,
}

impl Target {
    pub fn url(&self, path: &str) -> Result<Url> {
        self.client.url(&format!("{}/{path}", self.repository))
    }

    /// Sends `HEAD` for a blob. `None`: the blob is missing, or the registry does not support `HEAD`; the inner value is
    /// the size in bytes, if the registry reports it.
    pub fn head_blob(&self, digest: &Digest) -> Result<Option<Option<u64>>> {
        let call = Call::new(Method::HEAD, self.url(&format!("blobs/{digest}"))?);
        let what = format!("blob {digest} in {}", self.repository);
        let response = self.client.send(&call, Payload::Nothing, &self.scope, &what)?;
        match response.status {
            404 => Ok(None),
            status if refuses_head(status) => Ok(None),
            _ => Ok(Some(self.client.expect(response, &[200], &self.scope, &what)?.length())),
        }
    }

    /// Fails with `Invalid` if the registry reports another digest for `what` than `digest`.
    pub fn check_reported_digest(&self, response: &Response, digest: &Digest, what: &str) -> Result<()> {
        let Some(reported) = response.header("docker-content-digest") else {
            return Ok(());
        };
        match reported.parse::<Digest>() {
            Ok(reported) if reported == *digest || reported.algorithm() != digest.algorithm() => Ok(()),
            _ => Err(Error::invalid(format!(
                "{}: {what} was stored with digest {reported:?}, expected {digest}; a proxy may have altered the bytes",
                self.client.host
            ))),
        }
    }
}
