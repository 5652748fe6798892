//! Pushes blobs (distribution-spec, "Pushing blobs"): in one request, in chunks, by mounting; an upload resumes where a
//! request broke off.

use super::uploads::UploadGuard;
use crate::error::Kind;
use crate::image::{Algorithm, Digest};
use crate::serve::access_log::add;
use crate::serve::backend::writable::WritableBackend;
use crate::serve::http::errors::{ApiError, ErrorCode};
use crate::serve::http::reply::{HandlerResult, add_header, blocking, empty, panicked};
use crate::serve::http::request::RequestHead;
use crate::serve::http::request_body::{BodyEnd, RequestBody};
use crate::serve::http::route::{digest as parse_digest, repository_name};
use crate::serve::server::Server;
use crate::transport::layout::Upload;
use hyper::header;
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;

/// Handles `POST blobs/uploads/`: starts an upload, receives a complete blob, or mounts one.
pub async fn begin(server: &Arc<Server>, request: RequestHead, name: String, body: &mut RequestBody) -> HandlerResult {
    let writable = writable_backend(server)?;
    let wanted = |key: &str| request.query.value(key).map(parse_digest).transpose();
    let (digest, mount) = (wanted("digest")?, wanted("mount")?);
    let algorithm = match request.query.value("digest-algorithm") {
        None => digest.or(mount).map_or_else(Algorithm::default, |digest| digest.algorithm()),
        Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(_) => {
            return Err(ApiError::bad_request(
                ErrorCode::DigestInvalid,
                "unsupported digest-algorithm; use sha256 or sha512",
            ));
        }
    };
    let (made, repository) = (writable.clone(), name.clone());
    let layout = blocking(move || made.make_layout(&repository)).await??;
    if let Some(digest) = mount {
        let from = request.query.value("from").map(str::to_owned);
        let (writable, into) = (writable.clone(), layout.clone());
        let mounted = blocking(move || match from {
            Some(from) => match repository_name(&from).map(|from| writable.layout(&from)) {
                Ok(from) => from?.map_or(Ok(false), |from| into.mount(&digest, &from)),
                Err(_) => Ok(false),
            },
            // Without `from`, any repository may have the blob.
            None => into.mount(&digest, writable.pool()),
        });
        if mounted.await?? {
            add(&server.metrics.blobs_mounted, 1);
            return Ok(created(&name, &digest));
        }
    }
    let mut turn = server.sessions.begin(&name, layout, algorithm).await?;
    match digest {
        Some(digest) => {
            if let Err(mut api_error) = receive(&mut turn, &request, body).await {
                // The client does not know the upload's location, so it cannot resume it.
                cancel(server, turn).await?;
                if api_error.status == StatusCode::REQUEST_TIMEOUT {
                    api_error.message = "the request broke off or was too slow; start a new upload".to_owned();
                }
                return Err(api_error);
            }
            finish(server, turn, name, digest).await
        }
        None => Ok(standing(StatusCode::ACCEPTED, &name, &turn)),
    }
}

/// Handles `blobs/uploads/<id>`: the status (GET), more bytes (PATCH), completion (PUT), cancellation (DELETE).
pub async fn go_on(
    server: &Arc<Server>,
    request: RequestHead,
    name: String,
    id: String,
    body: &mut RequestBody,
) -> HandlerResult {
    let writable = writable_backend(server)?;
    let digest = match request.method {
        Method::PUT => {
            let missing = || {
                ApiError::bad_request(
                    ErrorCode::DigestInvalid,
                    "?digest= is missing; the PUT that completes an upload needs it",
                )
            };
            Some(parse_digest(request.query.value("digest").ok_or_else(missing)?)?)
        }
        _ => None,
    };
    let mut turn = server.sessions.resume(&name, &id, writable).await?;
    match request.method {
        Method::GET | Method::HEAD => Ok(standing(StatusCode::NO_CONTENT, &name, &turn)),
        Method::DELETE => {
            cancel(server, turn).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Method::PATCH | Method::PUT => {
            in_order(&request, body, &name, &turn)?;
            receive(&mut turn, &request, body).await?;
            match digest {
                Some(digest) => finish(server, turn, name, digest).await,
                None => Ok(standing(StatusCode::ACCEPTED, &name, &turn)),
            }
        }
        _ => Err(ApiError::method_not_allowed("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

/// Handles `DELETE blobs/<digest>`.
pub async fn delete(server: &Arc<Server>, name: String, digest: Digest) -> HandlerResult {
    let writable = writable_backend(server)?.clone();
    let repository = name.clone();
    let removed = blocking(move || match writable.layout(&repository)? {
        Some(layout) => layout.remove_blob(&digest, writable.pool()),
        None => Ok(false),
    });
    match removed.await?? {
        true => Ok(empty(StatusCode::ACCEPTED)),
        false => Err(ApiError::not_found(ErrorCode::BlobUnknown, format!("blob {digest} was not found in {name}"))),
    }
}

/// The directory that accepts pushes.
pub fn writable_backend(server: &Arc<Server>) -> Result<&Arc<WritableBackend>, ApiError> {
    let read_only = || {
        let message = "this server is read-only; start it with --writable to accept pushes";
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message)
            .with_header("allow", "GET, HEAD".to_owned())
    };
    server.writable.as_ref().ok_or_else(read_only)
}

/// Checks that a chunk starts at the upload's size and has the length of its `Content-Range`. The specification has
/// `0-99`; some clients write `bytes 0-99/200`.
fn in_order(request: &RequestHead, body: &RequestBody, name: &str, turn: &UploadGuard) -> Result<(), ApiError> {
    let Some(range) = request.header(header::CONTENT_RANGE) else { return Ok(()) };
    let wrong = || {
        ApiError::bad_request(
            ErrorCode::BlobUploadInvalid,
            format!("{range:?} is not a Content-Range; expected FIRST-LAST"),
        )
    };
    let spec = range.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let (first, last) = spec.split('/').next().and_then(|spec| spec.split_once('-')).ok_or_else(wrong)?;
    let (first, last) = (first.parse::<u64>().map_err(|_| wrong())?, last.parse::<u64>().map_err(|_| wrong())?);
    if first != turn.size() {
        let stands = format!("the upload has {} bytes, but the chunk starts at byte {first}", turn.size());
        let api_error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, stands);
        return Err(api_error.with_header("location", location(name, turn)).with_header("range", range_of(turn)));
    }
    let length = last.checked_sub(first).and_then(|length| length.checked_add(1));
    match (length, body.content_length()) {
        (None, _) => Err(wrong()),
        (Some(length), Some(content_length)) if length != content_length => Err(ApiError::bad_request(
            ErrorCode::SizeInvalid,
            format!("Content-Range covers {length} bytes, but Content-Length is {content_length}"),
        )),
        _ => Ok(()),
    }
}

/// Appends the body to the upload. If the body breaks off, its received bytes stay.
async fn receive(turn: &mut UploadGuard, request: &RequestHead, body: &mut RequestBody) -> Result<(), ApiError> {
    let mut upload = turn.take_out()?;
    let (before, content_length) = (upload.size(), body.content_length());
    // Reserves the space first, so that a full disk is reported before the transfer.
    let mut writing = tokio::task::spawn_blocking(move || {
        let reserved = content_length.map_or(Ok(()), |more| upload.reserve(more));
        (upload, reserved)
    });
    loop {
        // The next bytes are received while the previous ones are hashed and written.
        let over = tokio::select! {
            over = body.read_at_least(request.buffer_bytes) => over,
            () = turn.superseded() => Some(BodyEnd::Cut),
        };
        let pieces = body.take();
        let (mut upload, written) = writing.await.map_err(|_| panicked())?;
        if let Err(error) = written {
            return put_back(turn, upload, BodyEnd::Complete, before).await.and(Err(error.into()));
        }
        writing = tokio::task::spawn_blocking(move || {
            let written = pieces.iter().try_for_each(|piece| upload.write(piece));
            (upload, written)
        });
        if let Some(over) = over {
            let (upload, written) = writing.await.map_err(|_| panicked())?;
            put_back(turn, upload, over, before).await?;
            written?;
            return match over {
                BodyEnd::Complete => Ok(()),
                BodyEnd::Cut => {
                    let message = "the request broke off or was too slow; query the upload's status and resume there";
                    Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid, message))
                }
            };
        }
    }
}

/// Puts the upload back with the bytes that it has.
async fn put_back(turn: &mut UploadGuard, mut upload: Upload, over: BodyEnd, before: u64) -> Result<(), ApiError> {
    let settled = blocking(move || {
        // The range `0-0` means both zero bytes and one byte, so a single byte is discarded.
        if over == BodyEnd::Cut && before == 0 && upload.size() == 1 {
            let _ = upload.begin_anew();
        }
        upload.settle();
        upload
    });
    turn.put_back(settled.await?);
    Ok(())
}

async fn cancel(server: &Arc<Server>, mut turn: UploadGuard) -> Result<(), ApiError> {
    let upload = turn.take_out()?;
    server.sessions.end(upload.id());
    blocking(move || upload.remove()).await
}

async fn finish(server: &Arc<Server>, mut turn: UploadGuard, name: String, digest: Digest) -> HandlerResult {
    let writable = writable_backend(server)?.clone();
    let upload = turn.take_out()?;
    server.sessions.end(upload.id());
    let repository = name.clone();
    let kept = blocking(move || {
        let layout = writable.make_layout(&repository)?;
        layout.keep(upload, &digest, writable.pool())
    });
    match kept.await? {
        Ok(_) => {
            add(&server.metrics.blobs_pushed, 1);
            Ok(created(&name, &digest))
        }
        Err(error) if error.kind() == Kind::Invalid => {
            Err(ApiError::bad_request(ErrorCode::DigestInvalid, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn created(name: &str, digest: &Digest) -> Response<crate::serve::http::response::ResponseBody> {
    let mut response = empty(StatusCode::CREATED);
    add_header(&mut response, "location", &format!("/v2/{name}/blobs/{digest}"));
    add_header(&mut response, "docker-content-digest", &digest.to_string());
    response
}

/// The status of an upload as a response.
fn standing(
    status: StatusCode,
    name: &str,
    turn: &UploadGuard,
) -> Response<crate::serve::http::response::ResponseBody> {
    let mut response = empty(status);
    add_header(&mut response, "location", &location(name, turn));
    add_header(&mut response, "range", &range_of(turn));
    add_header(&mut response, "docker-upload-uuid", &turn.id());
    response
}

fn location(name: &str, turn: &UploadGuard) -> String {
    format!("/v2/{name}/blobs/uploads/{}", turn.id())
}

/// The `Range` of an upload; `0-0` for an empty one, as clients expect.
fn range_of(turn: &UploadGuard) -> String {
    format!("0-{}", turn.size().saturating_sub(1))
}

/// Removes expired uploads periodically.
pub async fn expire(server: Arc<Server>, every: std::time::Duration, life: std::time::Duration) {
    loop {
        server.sessions.let_go(life);
        if let Some(writable) = server.writable.clone() {
            let expired = blocking(move || writable.expire(life)).await;
            if let Ok(Ok(expired @ 1..)) = expired {
                server.watch.say(&format!("removed {expired} expired uploads"));
            }
        }
        tokio::time::sleep(every).await;
    }
}
