//! A manifest or index from a registry (distribution-spec, "Pulling manifests"): requested by tag or digest, hashed,
//! and compared with the expected digest.

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, media_type};
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::Call;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::web_page;
use std::fmt;
use ureq::http::{Method, header};

/// A manifest's reference within a repository.
#[derive(Debug, Clone, Copy)]
pub enum ManifestRef<'a> {
    Tag(&'a str),
    Digest(&'a Digest),
}

impl fmt::Display for ManifestRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestRef::Tag(tag) => f.write_str(tag),
            ManifestRef::Digest(digest) => digest.fmt(f),
        }
    }
}

impl ManifestRef<'_> {
    /// Formats it for messages: `image team/app:2`.
    pub fn name(&self, repository: &str) -> String {
        match self {
            ManifestRef::Tag(tag) => format!("image {repository}:{tag}"),
            ManifestRef::Digest(digest) => format!("image {repository}@{digest}"),
        }
    }
}

/// The `Accept` header: every type that imgmv supports. A registry converts a manifest whose type the header omits.
pub fn accepted_types() -> String {
    use media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, "*/*"].join(", ")
}

/// Fetches a manifest; returns its descriptor, made from the response, and its bytes.
///
/// Fails with `Network` if the response is a web page, and with `Invalid` if it is not a manifest. Bytes with another
/// digest than `reference` (for a tag: `Docker-Content-Digest`) are requested once more, then fail with `Invalid`. Fails
/// with `Network` if only reserved pulls are left ([`Access::hub_reserve`](super::super::Access::hub_reserve)).
pub fn fetch(client: &RegistryClient, repository: &str, reference: ManifestRef<'_>) -> Result<(Descriptor, Vec<u8>)> {
    let call = Call::new(Method::GET, client.url(&format!("{repository}/manifests/{reference}"))?)
        .with(header::ACCEPT, &accepted_types());
    let (scope, what) = (Scope::Pull(repository.to_owned()), reference.name(repository));
    let mut retried = false;
    loop {
        let _pull = client.enter_pull(&call, &scope, &what)?;
        let (response, bytes) = client.document(&call, &scope, &what, MAX_MANIFEST_BYTES)?;
        if web_page::is_markup(&bytes) || web_page::media_type(&response) == "text/html" {
            return Err(web_page::error(&client.host, &response, &what));
        }
        let media_type = web_page::media_type(&response);
        let stated = response.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let expected = match reference {
            ManifestRef::Digest(digest) => Some(*digest),
            ManifestRef::Tag(_) => stated,
        };
        let algorithm = expected.map(|digest| digest.algorithm()).unwrap_or_default();
        let found = Hasher::new(algorithm).with(&bytes).finish();
        match expected {
            Some(expected) if expected != found && !retried => {
                retried = true;
                client
                    .watch
                    .say(&format!("{what} from {} does not match its digest; requesting it again", client.host));
            }
            Some(expected) if expected != found => {
                return Err(Error::invalid(format!(
                    "{what} from {} does not match: expected {expected}, got {found}; a proxy may alter it",
                    client.host
                )));
            }
            _ => {
                Manifest::check_fields(&bytes)
                    .map_err(|why| Error::invalid(format!("the response of {} is {why}, not {what}", client.host)))?;
                return Ok((Descriptor::new(media_type, found, bytes.len() as u64), bytes));
            }
        }
    }
}
