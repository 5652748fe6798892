//! Parses a request's path and query (distribution-spec, "Endpoints"). A hand-written parser: a repository name
//! contains slashes, and any of its parts may be `blobs` or `tags`.

use super::errors::{ApiError, ErrorCode};
use crate::image::{Digest, is_repository, is_tag};
use crate::serve::backend::catalog::TagOrDigest;

/// The maximum length of a repository name; distribution-spec mentions 255 as the limit of many clients.
const MAX_NAME_BYTES: usize = 255;

/// The endpoint of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/…`
    Repository(String, Resource),
    /// `/healthz`
    Health,
    /// `/metrics`
    Metrics,
    /// `/token`, the token service.
    Token,
    /// `/`, the page for browsers.
    Page,
}

/// The endpoint within a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Tags,
    Manifest(TagOrDigest),
    Blob(Digest),
    Referrers(Digest),
    /// `blobs/uploads/`
    Uploads,
    /// `blobs/uploads/<id>`
    Upload(String),
}

impl Resource {
    /// Whether this is an upload; even reading its status needs the right to push.
    pub fn is_upload(&self) -> bool {
        matches!(self, Resource::Uploads | Resource::Upload(_))
    }
}

/// Parses a percent-encoded path.
pub fn route(path: &str) -> Result<Route, ApiError> {
    let nothing = || ApiError::not_found(ErrorCode::Unsupported, "this path is not an endpoint of this registry");
    let path = percent_decoded(path).ok_or_else(nothing)?;
    match &*path {
        "/" => return Ok(Route::Page),
        "/healthz" => return Ok(Route::Health),
        "/metrics" => return Ok(Route::Metrics),
        "/token" => return Ok(Route::Token),
        "/v2" | "/v2/" => return Ok(Route::Base),
        "/v2/_catalog" => return Ok(Route::Catalog),
        _ => {}
    }
    let rest = path.strip_prefix("/v2/").ok_or_else(nothing)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let (name, resource) = match &parts[..] {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => (name, Resource::Uploads),
        [name @ .., "blobs", "uploads", id] => (name, Resource::Upload(upload_id(id)?)),
        [name @ .., "tags", "list"] => (name, Resource::Tags),
        [name @ .., "manifests", reference] => (name, Resource::Manifest(tag_or_digest(reference)?)),
        [name @ .., "blobs", text] => (name, Resource::Blob(digest(text)?)),
        [name @ .., "referrers", text] => (name, Resource::Referrers(digest(text)?)),
        _ => return Err(nothing()),
    };
    Ok(Route::Repository(repository_name(&name.join("/"))?, resource))
}

/// Checks a repository name.
pub fn repository_name(name: &str) -> Result<String, ApiError> {
    match name.len() <= MAX_NAME_BYTES && is_repository(name) {
        true => Ok(name.to_owned()),
        false => Err(ApiError::bad_request(
            ErrorCode::NameInvalid,
            "invalid repository name; use lower-case letters and digits, joined by . _ or -, in parts separated by /",
        )),
    }
}

fn tag_or_digest(reference: &str) -> Result<TagOrDigest, ApiError> {
    match reference.contains(':') {
        true => Ok(TagOrDigest::Digest(digest(reference)?)),
        false if is_tag(reference) => Ok(TagOrDigest::Tag(reference.to_owned())),
        false => Err(ApiError::not_found(
            ErrorCode::ManifestUnknown,
            "invalid tag; use a letter, digit or _, then up to 127 letters, digits, _ . or -",
        )),
    }
}

/// Parses a digest.
pub fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error: crate::Error| ApiError::bad_request(ErrorCode::DigestInvalid, error.to_string()))
}

/// Checks an upload ID: this server creates only hexadecimal ones.
fn upload_id(id: &str) -> Result<String, ApiError> {
    match (16..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(id.to_owned()),
        false => Err(ApiError::not_found(ErrorCode::BlobUploadUnknown, "upload not found")),
    }
}

/// Decodes percent-encoding once; `None` if the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut half = || rest.next().and_then(|b| (b as char).to_digit(16));
                let (high, low) = (half()?, half()?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The query parameters of a request.
#[derive(Debug, Clone, Default)]
pub struct UrlQuery(Vec<(String, String)>);

impl UrlQuery {
    pub fn parse(text: Option<&str>) -> UrlQuery {
        let pairs = url::form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        UrlQuery(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// The first value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// Every value of `key`.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_endpoint_is_found_whatever_a_repository_is_called() {
        let digest: Digest = D.parse().unwrap();
        let tag = |tag: &str| Resource::Manifest(TagOrDigest::Tag(tag.into()));
        for (path, name, resource) in [
            ("/v2/app/manifests/v1", "app", tag("v1")),
            ("/v2/a/b/c/manifests/v1", "a/b/c", tag("v1")),
            ("/v2/manifests/manifests/manifests", "manifests", tag("manifests")),
            ("/v2/blobs/tags/list", "blobs", Resource::Tags),
            ("/v2/tags/list/tags/list", "tags/list", Resource::Tags),
            (&format!("/v2/a/manifests/{D}"), "a", Resource::Manifest(TagOrDigest::Digest(digest))),
            (
                &format!("/v2/a/manifests/{}", D.replace(':', "%3A")),
                "a",
                Resource::Manifest(TagOrDigest::Digest(digest)),
            ),
            (&format!("/v2/a/blobs/{D}"), "a", Resource::Blob(digest)),
            (&format!("/v2/a/referrers/{D}"), "a", Resource::Referrers(digest)),
            ("/v2/a/blobs/uploads/", "a", Resource::Uploads),
            ("/v2/a/blobs/uploads", "a", Resource::Uploads),
            ("/v2/a/blobs/uploads/0123456789abcdef", "a", Resource::Upload("0123456789abcdef".into())),
        ] {
            assert_eq!(route(path).unwrap(), Route::Repository(name.into(), resource), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_means_something_safe_or_nothing(path in "/v2/[-a-zA-Z0-9_./%:@]{0,60}(/(manifests|blobs|tags)/)?.{0,40}") {
            if let Ok(Route::Repository(name, _)) = route(&path) {
                assert!(is_repository(&name), "{path}: {name}");
                assert!(name.split('/').all(|part| !part.starts_with('.')), "{path}: {name}");
            }
        }
    }

    #[test]
    fn no_path_leads_out_of_a_repository() {
        for path in [
            "/v2/../manifests/v1",
            "/v2/a/../../manifests/v1",
            "/v2/%2e%2e/manifests/v1",
            "/v2/a%2f..%2fb/manifests/v1",
            "/v2//manifests/v1",
            "/v2/A/manifests/v1",
            "/v2/a/manifests/..",
            "/v2/a/manifests/%00",
            "/v2/a/manifests/x%",
            "/v2/a/blobs/sha256:../../etc",
            "/v2/a/blobs/uploads/../../x",
            "/v2/a/blobs/uploads/..%2f..%2fx",
            "/v1/",
            "/v2/a",
            "",
        ] {
            assert!(route(path).is_err(), "{path}");
        }
        let long = format!("/v2/{}/manifests/v1", "a".repeat(256));
        assert_eq!(route(&long).unwrap_err().code, ErrorCode::NameInvalid);
    }
}
