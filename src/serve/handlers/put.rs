//! Pushing manifests and deleting them (distribution-spec, "Pushing Manifests" and "Deleting Manifests").

use super::push::{count, writable};
use crate::error::{Error, Kind};
use crate::image::{Body, Descriptor, Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, is_tag};
use crate::serve::backend::catalog::At;
use crate::serve::http::errors::{Code, Refusal};
use crate::serve::http::reply::{Answered, add, bare, blocking};
use crate::serve::http::request::Asked;
use crate::serve::http::request_body::{Oversize, RequestBody};
use crate::serve::http::route::digest as parse_digest;
use crate::serve::server::Server;
use crate::transport::layout::PushedLayout;
use hyper::header;
use hyper::{Response, StatusCode};
use std::sync::Arc;

/// Tags that one push by digest may set.
const MAX_TAGS: usize = 16;

/// `PUT manifests/<reference>`.
pub async fn put(server: &Arc<Server>, asked: Asked, name: String, at: At, body: &mut RequestBody) -> Answered {
    let target = writable(server)?.clone();
    let _room = server.documents.room(body.announced().unwrap_or(MAX_MANIFEST_BYTES)).await;
    let bytes = body.document(MAX_MANIFEST_BYTES).await.map_err(|why| match why {
        Oversize::More => {
            let message = format!("a manifest has at most {MAX_MANIFEST_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ManifestInvalid, message)
        }
        Oversize::Cut => Refusal::bad(Code::ManifestInvalid, "the manifest was cut"),
    })?;
    let by_digest = matches!(at, At::Digest(_));
    let (digest, tags) = match at {
        At::Digest(digest) => (digest, tags(&asked)?),
        At::Tag(tag) => match asked.query.value("digest") {
            Some(digest) => (parse_digest(digest)?, vec![tag]),
            None => (Digest::of(&bytes), vec![tag]),
        },
    };
    let found = Hasher::new(digest.algorithm()).with(&bytes).finish();
    if found != digest {
        return Err(Refusal::bad(Code::DigestInvalid, format!("the manifest is {found}, not {digest}")));
    }
    let manifest = understood(bytes, asked.header(header::CONTENT_TYPE).unwrap_or_default(), digest)?;
    let subject = manifest.subject.as_ref().map(|subject| subject.digest);
    let repository = name.clone();
    let by_digest = by_digest && !tags.is_empty();
    let tags = blocking(move || {
        let layout = target.make_layout(&repository)?;
        keep(&layout, &manifest, &tags).map(|()| tags)
    });
    let tags = tags.await??;
    count(&server.figures.manifests_pushed);
    let mut response: Response<_> = bare(StatusCode::CREATED);
    add(&mut response, "location", &format!("/v2/{name}/manifests/{digest}"));
    add(&mut response, "docker-content-digest", &digest.to_string());
    if let Some(subject) = subject {
        add(&mut response, "oci-subject", &subject.to_string());
    }
    if by_digest {
        add(&mut response, "oci-tag", &tags.join(", "));
    }
    Ok(response)
}

/// The tags that a manifest pushed by digest is to have as well.
fn tags(asked: &Asked) -> Result<Vec<String>, Refusal> {
    let tags: Vec<String> = asked.query.values("tag").map(str::to_owned).collect();
    match tags.len() <= MAX_TAGS && tags.iter().all(|tag| is_tag(tag)) {
        true => Ok(tags),
        false => Err(Refusal::bad(Code::ManifestInvalid, format!("?tag= is a tag, at most {MAX_TAGS} times"))),
    }
}

fn understood(bytes: Vec<u8>, media_type: &str, digest: Digest) -> Result<Manifest, Refusal> {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let claim = Descriptor::new(media_type, digest, bytes.len() as u64);
    let invalid = |why: String| Refusal::bad(Code::ManifestInvalid, why);
    let manifest = Manifest::parse(bytes, &claim).map_err(|error| invalid(error.to_string()))?;
    match manifest.body {
        Body::Opaque => Err(invalid(format!("{media_type:?} is no type of manifest that is known here"))),
        _ => Ok(manifest),
    }
}

fn keep(layout: &PushedLayout, manifest: &Manifest, tags: &[String]) -> Result<(), Refusal> {
    if let Some(lacking) = layout.lacking(manifest)? {
        let message = format!("the manifest points at {lacking}, which is not here; push it first");
        return Err(Refusal::bad(Code::ManifestBlobUnknown, message));
    }
    let refused = |error: Error| match error.kind() {
        Kind::Invalid => Refusal::bad(Code::ManifestInvalid, error.to_string()),
        _ => error.into(),
    };
    match tags {
        [] => layout.put_manifest(manifest, None).map_err(refused),
        tags => tags.iter().try_for_each(|tag| layout.put_manifest(manifest, Some(tag)).map_err(refused)),
    }
}

/// `DELETE manifests/<reference>`: a tag alone, or a manifest with all its tags.
pub async fn delete(server: &Arc<Server>, name: String, at: At) -> Answered {
    let target = writable(server)?.clone();
    let shown = match &at {
        At::Tag(tag) => format!("{name}:{tag}"),
        At::Digest(digest) => format!("{name}@{digest}"),
    };
    let removed = blocking(move || match (target.layout(&name)?, at) {
        (None, _) => Ok(false),
        (Some(layout), At::Tag(tag)) => layout.untag(&tag),
        (Some(layout), At::Digest(digest)) => layout.remove_manifest(&digest),
    });
    match removed.await?? {
        true => Ok(bare(StatusCode::ACCEPTED)),
        false => Err(Refusal::not_found(Code::ManifestUnknown, format!("there is no {shown}"))),
    }
}
