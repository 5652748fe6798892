//! Pushes and deletes manifests (distribution-spec, "Pushing Manifests" and "Deleting Manifests").

use super::push::writable_backend;
use crate::error::{Error, Kind};
use crate::image::{Body, Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, is_tag};
use crate::serve::access_log::add;
use crate::serve::backend::catalog::TagOrDigest;
use crate::serve::http::errors::{ApiError, ErrorCode};
use crate::serve::http::reply::{HandlerResult, add_header, blocking, empty};
use crate::serve::http::request::RequestHead;
use crate::serve::http::request_body::{DocumentError, RequestBody};
use crate::serve::http::route::digest as parse_digest;
use crate::serve::server::Server;
use crate::transport::layout::PushedLayout;
use hyper::header;
use hyper::{Response, StatusCode};
use std::sync::Arc;

/// The maximum number of tags that one push by digest may set.
const MAX_TAGS_PER_PUSH: usize = 16;

/// Handles `PUT manifests/<reference>`.
pub async fn put_manifest(
    server: &Arc<Server>,
    request: RequestHead,
    name: String,
    at: TagOrDigest,
    body: &mut RequestBody,
) -> HandlerResult {
    let writable = writable_backend(server)?.clone();
    let _memory = server.manifest_memory.reserve(body.content_length().unwrap_or(MAX_MANIFEST_BYTES)).await;
    let bytes = body.document(MAX_MANIFEST_BYTES).await.map_err(|why| match why {
        DocumentError::TooLarge => {
            let message = format!("the manifest is too large; the limit is {MAX_MANIFEST_BYTES} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ManifestInvalid, message)
        }
        DocumentError::Incomplete => ApiError::bad_request(
            ErrorCode::ManifestInvalid,
            "the manifest is incomplete: the request broke off or was too slow",
        ),
    })?;
    let by_digest = matches!(at, TagOrDigest::Digest(_));
    let (digest, tags) = match at {
        TagOrDigest::Digest(digest) => (digest, tags(&request)?),
        TagOrDigest::Tag(tag) => match request.query.value("digest") {
            Some(digest) => (parse_digest(digest)?, vec![tag]),
            None => (Digest::of(&bytes), vec![tag]),
        },
    };
    let found = Hasher::new(digest.algorithm()).with(&bytes).finish();
    if found != digest {
        return Err(ApiError::bad_request(
            ErrorCode::DigestInvalid,
            format!("the manifest does not match its digest: expected {digest}, got {found}"),
        ));
    }
    let manifest = parse_manifest(bytes, request.header(header::CONTENT_TYPE).unwrap_or_default(), digest)?;
    let subject = manifest.subject.as_ref().map(|subject| subject.digest);
    let repository = name.clone();
    let by_digest = by_digest && !tags.is_empty();
    let tags = blocking(move || {
        let layout = writable.create_layout(&repository)?;
        store_manifest(&layout, &manifest, &tags).map(|()| tags)
    });
    let tags = tags.await??;
    add(&server.metrics.manifests_pushed, 1);
    let mut response: Response<_> = empty(StatusCode::CREATED);
    add_header(&mut response, "location", &format!("/v2/{name}/manifests/{digest}"));
    add_header(&mut response, "docker-content-digest", &digest.to_string());
    if let Some(subject) = subject {
        add_header(&mut response, "oci-subject", &subject.to_string());
    }
    if by_digest {
        add_header(&mut response, "oci-tag", &tags.join(", "));
    }
    Ok(response)
}

/// The tags in the query of a push by digest.
fn tags(request: &RequestHead) -> Result<Vec<String>, ApiError> {
    let tags: Vec<String> = request.query.values("tag").map(str::to_owned).collect();
    match tags.len() <= MAX_TAGS_PER_PUSH && tags.iter().all(|tag| is_tag(tag)) {
        true => Ok(tags),
        false => Err(ApiError::bad_request(
            ErrorCode::ManifestInvalid,
            format!("invalid ?tag=; use valid tags, at most {MAX_TAGS_PER_PUSH}"),
        )),
    }
}

fn parse_manifest(bytes: Vec<u8>, media_type: &str, digest: Digest) -> Result<Manifest, ApiError> {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
    let invalid = |why: String| ApiError::bad_request(ErrorCode::ManifestInvalid, why);
    let manifest = Manifest::parse(bytes, &descriptor).map_err(|error| invalid(error.to_string()))?;
    match manifest.body {
        Body::Opaque => Err(invalid(format!("{media_type:?} is not a supported manifest media type"))),
        _ => Ok(manifest),
    }
}

fn store_manifest(layout: &PushedLayout, manifest: &Manifest, tags: &[String]) -> Result<(), ApiError> {
    if let Some(missing) = layout.first_missing(manifest)? {
        let message = format!("the manifest refers to {missing}, which is not in this repository; push it first");
        return Err(ApiError::bad_request(ErrorCode::ManifestBlobUnknown, message));
    }
    let refused = |error: Error| match error.kind() {
        Kind::Invalid => ApiError::bad_request(ErrorCode::ManifestInvalid, error.to_string()),
        _ => error.into(),
    };
    match tags {
        [] => layout.put_manifest(manifest, None).map_err(refused),
        tags => tags.iter().try_for_each(|tag| layout.put_manifest(manifest, Some(tag)).map_err(refused)),
    }
}

/// Handles `DELETE manifests/<reference>`: removes a tag, or a manifest with all its tags.
pub async fn delete_manifest(server: &Arc<Server>, name: String, at: TagOrDigest) -> HandlerResult {
    let writable = writable_backend(server)?.clone();
    let full_name = match &at {
        TagOrDigest::Tag(tag) => format!("{name}:{tag}"),
        TagOrDigest::Digest(digest) => format!("{name}@{digest}"),
    };
    let removed = blocking(move || match (writable.layout(&name)?, at) {
        (None, _) => Ok(false),
        (Some(layout), TagOrDigest::Tag(tag)) => layout.untag(&tag),
        (Some(layout), TagOrDigest::Digest(digest)) => layout.remove_manifest(&digest),
    });
    match removed.await?? {
        true => Ok(empty(StatusCode::ACCEPTED)),
        false => Err(ApiError::not_found(ErrorCode::ManifestUnknown, format!("manifest {full_name} was not found"))),
    }
}
