//! A manifest or index from a registry (distribution-spec, "Pulling manifests"): asked for by tag or digest, hashed,
//! and held against what the registry says its digest is.

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, media_type};
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::Call;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::web_page;
use std::fmt;
use ureq::http::{Method, header};

/// Which manifest of a repository.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    Tag(&'a str),
    Digest(&'a Digest),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Tag(tag) => f.write_str(tag),
            At::Digest(digest) => digest.fmt(f),
        }
    }
}

impl At<'_> {
    /// As in `image team/app:2`.
    pub fn name(&self, repository: &str) -> String {
        match self {
            At::Tag(tag) => format!("image {repository}:{tag}"),
            At::Digest(digest) => format!("image {repository}@{digest}"),
        }
    }
}

/// Every type that imgmv knows; a registry converts to an older one for whoever does not list them.
pub fn accepted() -> String {
    use media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, "*/*"].join(", ")
}

/// Fetches a manifest: its descriptor as found, and its bytes.
///
/// Fails with `Network` where a web page came, and with `Invalid` where it is not a manifest at all. Bytes that are not
/// what `at` (or, for a tag, `Docker-Content-Digest`) says are asked for once more, then `Invalid`.
pub fn fetch(wire: &RegistryClient, repository: &str, at: At<'_>) -> Result<(Descriptor, Vec<u8>)> {
    let call =
        Call::new(Method::GET, wire.url(&format!("{repository}/manifests/{at}"))?).with(header::ACCEPT, &accepted());
    let (scope, what) = (Scope::Pull(repository.to_owned()), at.name(repository));
    let mut asked_again = false;
    loop {
        let (answer, bytes) = wire.document(&call, &scope, &what, MAX_MANIFEST_BYTES)?;
        if web_page::is_markup(&bytes) || web_page::media_type(&answer) == "text/html" {
            return Err(web_page::error(&wire.host, &answer, &what));
        }
        let media_type = web_page::media_type(&answer);
        let stated = answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let expected = match at {
            At::Digest(digest) => Some(*digest),
            At::Tag(_) => stated,
        };
        let algorithm = expected.map(|digest| digest.algorithm()).unwrap_or_default();
        let found = Hasher::new(algorithm).with(&bytes).finish();
        match expected {
            Some(expected) if expected != found && !asked_again => {
                asked_again = true;
                wire.watch.say(&format!("{what} from {} does not match its digest; asking once more", wire.host));
            }
            Some(expected) if expected != found => {
                return Err(Error::invalid(format!(
                    "{what} from {} does not match: expected {expected}, got {found}; something on the way alters it",
                    wire.host
                )));
            }
            _ => {
                Manifest::check_fields(&bytes)
                    .map_err(|why| Error::invalid(format!("{} answered with {why}, not {what}", wire.host)))?;
                return Ok((Descriptor::new(media_type, found, bytes.len() as u64), bytes));
            }
        }
    }
}
