//! Pulls manifests and blobs (distribution-spec, "Pulling manifests" and "Pulling blobs").

use super::manifest_memory::MAX_SMALL_MANIFEST_BYTES;
use crate::image::{Digest, Manifest, media_type};
use crate::serve::backend::catalog::{Freshness, Prefetched, Repository, TagOrDigest};
use crate::serve::http::errors::{ApiError, ErrorCode};
use crate::serve::http::reply::{HandlerResult, add_header, empty};
use crate::serve::http::request::RequestHead;
use crate::serve::http::response::ResponseBody;
use crate::serve::server::Server;
use hyper::header;
use hyper::{Response, StatusCode};
use std::sync::Arc;

/// The `Cache-Control` of content that is addressed by digest and never changes.
const CACHE_FOREVER: &str = "max-age=31536000, immutable";

/// Handles `GET manifests/<reference>`.
pub async fn manifest(server: &Arc<Server>, request: RequestHead, name: String, at: TagOrDigest) -> HandlerResult {
    let full_name = match &at {
        TagOrDigest::Tag(tag) => format!("{name}:{tag}"),
        TagOrDigest::Digest(digest) => format!("{name}@{digest}"),
    };
    let immutable = matches!(at, TagOrDigest::Digest(_));
    let unknown = || ApiError::not_found(ErrorCode::ManifestUnknown, format!("manifest {full_name} was not found"));
    let repository_request = request.repository(&name);
    let fetch_small = move |repository: Arc<dyn Repository>| {
        let (at, freshness) = match repository.prefetch(&at)? {
            Prefetched::Found(digest, freshness) => (TagOrDigest::Digest(digest), freshness),
            Prefetched::NotNeeded => (at, Freshness::Current),
            Prefetched::NotFound => return Ok((Fetched::InMemory(None), Freshness::Current)),
        };
        let fetched = match repository.manifest_size(&at)? {
            Some(size) if size > MAX_SMALL_MANIFEST_BYTES => Fetched::Large(at, size),
            _ => Fetched::InMemory(repository.manifest(&at)?.map(Box::new)),
        };
        Ok((fetched, freshness))
    };
    let (fetched, freshness) = server.with_repository(repository_request.clone(), fetch_small).await?;
    let (found, memory) = match fetched {
        Fetched::InMemory(found) => (found, None),
        Fetched::Large(at, size) => {
            let memory = server.manifest_memory.reserve(size).await;
            let found = server.with_repository(repository_request, move |repository| repository.manifest(&at)).await?;
            (found.map(Box::new), memory)
        }
    };
    let manifest = found.ok_or_else(unknown)?;
    let descriptor = &manifest.descriptor;
    if !accepts(&request, &descriptor.media_type) {
        let message =
            format!("{full_name} has media type {}, which the request does not accept", descriptor.media_type);
        return Err(ApiError::not_found(ErrorCode::ManifestUnknown, message));
    }
    let digest = descriptor.digest.to_string();
    let mut response = match matches_etag(&request, &digest) {
        true => empty(StatusCode::NOT_MODIFIED),
        false => Response::new(ResponseBody::text(manifest.bytes).with_memory(memory)),
    };
    add_header(&mut response, "content-type", &descriptor.media_type);
    add_header(&mut response, "docker-content-digest", &digest);
    add_header(&mut response, "etag", &format!("\"{digest}\""));
    add_header(&mut response, "cache-control", if immutable { CACHE_FOREVER } else { "no-cache" });
    if freshness == Freshness::LastKnown {
        // RFC 7234, section 5.5.
        add_header(&mut response, "warning", "111 imgmv \"Revalidation Failed\"");
    }
    Ok(response)
}

/// A manifest that is already in memory, or one that must wait for memory.
enum Fetched {
    InMemory(Option<Box<Manifest>>),
    Large(TagOrDigest, u64),
}

/// Handles `GET blobs/<digest>`, with `Range` (RFC 9110, section 14).
pub async fn blob(server: &Arc<Server>, request: RequestHead, name: String, digest: Digest) -> HandlerResult {
    let unknown = || ApiError::not_found(ErrorCode::BlobUnknown, format!("blob {digest} was not found in {name}"));
    let etag = format!("\"{digest}\"");
    let conditional = request.header(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = request.header(header::RANGE).filter(|_| conditional).map(str::to_owned);
    let not_modified = matches_etag(&request, &digest.to_string());
    let only_head = request.method == hyper::Method::HEAD || not_modified;
    let found = server.with_repository(request.repository(&name), move |repository| {
        let Some(size) = repository.blob(&digest)? else { return Ok(None) };
        let range = ByteRange::parse(range.as_deref(), size);
        let reader = match range {
            ByteRange::Unsatisfiable => None,
            _ if only_head => None,
            ByteRange::Whole => Some(repository.open(&digest, size, 0)?),
            ByteRange::Some { from, .. } => Some(repository.open(&digest, size, from)?),
        };
        Ok(Some((size, range, reader)))
    });
    let (size, range, reader) = found.await?.ok_or_else(unknown)?;
    let (status, from, length) = match range {
        ByteRange::Unsatisfiable => {
            let message = format!("the blob has {size} bytes");
            let api_error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message);
            return Err(api_error.with_header("content-range", format!("bytes */{size}")));
        }
        _ if not_modified => (StatusCode::NOT_MODIFIED, 0, size),
        ByteRange::Whole => (StatusCode::OK, 0, size),
        ByteRange::Some { from, to } => (StatusCode::PARTIAL_CONTENT, from, to + 1 - from),
    };
    let mut response = empty(status);
    if let Some(reader) = reader {
        *response.body_mut() = ResponseBody::blob(reader, length, request.buffer_bytes);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        add_header(&mut response, "content-range", &format!("bytes {from}-{}/{size}", from + length - 1));
    }
    if status != StatusCode::NOT_MODIFIED {
        add_header(&mut response, "content-length", &length.to_string());
    }
    add_header(&mut response, "content-type", media_type::OCTETS);
    add_header(&mut response, "accept-ranges", "bytes");
    add_header(&mut response, "docker-content-digest", &digest.to_string());
    add_header(&mut response, "etag", &etag);
    add_header(&mut response, "cache-control", CACHE_FOREVER);
    Ok(response)
}

/// Whether `If-None-Match` says that the client already has `digest`.
fn matches_etag(request: &RequestHead, digest: &str) -> bool {
    let tags = request.header(header::IF_NONE_MATCH).unwrap_or_default();
    tags.split(',').map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"')).any(|tag| tag == digest)
}

/// Whether `Accept` permits `media_type`; a request without `Accept` permits every type.
fn accepts(request: &RequestHead, media_type: &str) -> bool {
    let values = request.headers.get_all(header::ACCEPT);
    let mut types = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).peekable();
    let fits = |accepted: &str| {
        let accepted = accepted.split(';').next().unwrap_or_default().trim();
        accepted == "*/*" || accepted == "application/*" || accepted.eq_ignore_ascii_case(media_type)
    };
    types.peek().is_none() || types.any(fits)
}

/// The requested bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteRange {
    Whole,
    /// Both ends are included.
    Some {
        from: u64,
        to: u64,
    },
    Unsatisfiable,
}

impl ByteRange {
    /// Parses `range` for a blob of `size` bytes. Several ranges, other units and invalid ranges select the complete
    /// blob, as the RFC allows.
    fn parse(range: Option<&str>, size: u64) -> ByteRange {
        let spec = range.and_then(|range| range.trim().strip_prefix("bytes="));
        let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return ByteRange::Whole };
        let number = |text: &str| match text.trim() {
            "" => Some(None),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
            _ => None,
        };
        match (number(first), number(last)) {
            (Some(Some(from)), Some(to)) => {
                let to: u64 = to.unwrap_or(u64::MAX);
                // A range that ends before its start is refused, as RFC 9110, section 14.2 allows.
                match from <= to && from < size {
                    true => ByteRange::Some { from, to: to.min(size - 1) },
                    false => ByteRange::Unsatisfiable,
                }
            }
            (Some(None), Some(Some(last))) => match last == 0 || size == 0 {
                true => ByteRange::Unsatisfiable,
                false => ByteRange::Some { from: size.saturating_sub(last), to: size - 1 },
            },
            _ => ByteRange::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_the_rfc_says() {
        let some = |from, to| ByteRange::Some { from, to };
        for (header, range) in [
            (None, ByteRange::Whole),
            (Some("bytes=0-9"), some(0, 9)),
            (Some("bytes=90-"), some(90, 99)),
            (Some("bytes=90-1000"), some(90, 99)),
            (Some("bytes=-10"), some(90, 99)),
            (Some("bytes=-1000"), some(0, 99)),
            (Some("bytes=0-18446744073709551616"), some(0, 99)),
            (Some("bytes=100-"), ByteRange::Unsatisfiable),
            (Some("bytes=-0"), ByteRange::Unsatisfiable),
            (Some("bytes=9-3"), ByteRange::Unsatisfiable),
            (Some("bytes=0-1,5-6"), ByteRange::Whole),
            (Some("lines=0-1"), ByteRange::Whole),
            (Some("bytes=x-1"), ByteRange::Whole),
            (Some("bytes=-"), ByteRange::Whole),
        ] {
            assert_eq!(ByteRange::parse(header, 100), range, "{header:?}");
        }
        assert_eq!(ByteRange::parse(Some("bytes=0-"), 0), ByteRange::Unsatisfiable);
    }
}
