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
pub async fn start_upload(
    server: &Arc<Server>,
    request: RequestHead,
    name: String,
    body: &mut RequestBody,
) -> HandlerResult {
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
    let (backend, repository) = (writable.clone(), name.clone());
    let layout = blocking(move || backend.create_layout(&repository)).await??;
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
    let mut guard = server.uploads.start(&name, layout, algorithm).await?;
    match digest {
        Some(digest) => {
            if let Err(mut api_error) = receive_body(&mut guard, &request, body).await {
                // The client does not know the upload's location, so it cannot resume it.
                cancel_upload(server, guard).await?;
                if api_error.status == StatusCode::REQUEST_TIMEOUT {
                    api_error.message = "the request broke off or was too slow; start a new upload".to_owned();
                }
                return Err(api_error);
            }
            complete_upload(server, guard, name, digest).await
        }
        None => Ok(upload_status(StatusCode::ACCEPTED, &name, &guard)),
    }
}

/// Handles `blobs/uploads/<id>`: the status (GET), more bytes (PATCH), completion (PUT), cancellation (DELETE).
pub async fn handle_upload(
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
    let mut guard = server.uploads.resume(&name, &id, writable).await?;
    match request.method {
        Method::GET | Method::HEAD => Ok(upload_status(StatusCode::NO_CONTENT, &name, &guard)),
        Method::DELETE => {
            cancel_upload(server, guard).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Method::PATCH | Method::PUT => {
            check_content_range(&request, body, &name, &guard)?;
            receive_body(&mut guard, &request, body).await?;
            match digest {
                Some(digest) => complete_upload(server, guard, name, digest).await,
                None => Ok(upload_status(StatusCode::ACCEPTED, &name, &guard)),
            }
        }
        _ => Err(ApiError::method_not_allowed("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

/// Handles `DELETE blobs/<digest>`.
pub async fn delete_blob(server: &Arc<Server>, name: String, digest: Digest) -> HandlerResult {
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
fn check_content_range(
    request: &RequestHead,
    body: &RequestBody,
    name: &str,
    guard: &UploadGuard,
) -> Result<(), ApiError> {
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
    if first != guard.size() {
        let message = format!("the upload has {} bytes, but the chunk starts at byte {first}", guard.size());
        let api_error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message);
        return Err(api_error
            .with_header("location", upload_location(name, guard))
            .with_header("range", upload_range(guard)));
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
async fn receive_body(guard: &mut UploadGuard, request: &RequestHead, body: &mut RequestBody) -> Result<(), ApiError> {
    let mut upload = guard.take_out()?;
    let (before, content_length) = (upload.size(), body.content_length());
    // Reserves the space first, so that a full disk is reported before the transfer.
    let mut writing = tokio::task::spawn_blocking(move || {
        let reserved = content_length.map_or(Ok(()), |more| upload.reserve(more));
        (upload, reserved)
    });
    loop {
        // The next bytes are received while the previous ones are hashed and written.
        let end = tokio::select! {
            end = body.read_at_least(request.buffer_bytes) => end,
            () = guard.superseded() => Some(BodyEnd::Cut),
        };
        let buffers = body.take();
        let (mut upload, written) = writing.await.map_err(|_| panicked())?;
        if let Err(error) = written {
            return put_back(guard, upload, BodyEnd::Complete, before).await.and(Err(error.into()));
        }
        writing = tokio::task::spawn_blocking(move || {
            let written = buffers.iter().try_for_each(|buffer| upload.write(buffer));
            (upload, written)
        });
        if let Some(end) = end {
            let (upload, written) = writing.await.map_err(|_| panicked())?;
            put_back(guard, upload, end, before).await?;
            written?;
            return match end {
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
async fn put_back(guard: &mut UploadGuard, mut upload: Upload, end: BodyEnd, before: u64) -> Result<(), ApiError> {
    let upload = blocking(move || {
        // The range `0-0` means both zero bytes and one byte, so a single byte is dropped.
        if end == BodyEnd::Cut && before == 0 && upload.size() == 1 {
            let _ = upload.clear();
        }
        upload.flush();
        upload
    });
    guard.put_back(upload.await?);
    Ok(())
}

async fn cancel_upload(server: &Arc<Server>, mut guard: UploadGuard) -> Result<(), ApiError> {
    let upload = guard.take_out()?;
    server.uploads.remove(upload.id());
    blocking(move || upload.remove()).await
}

async fn complete_upload(server: &Arc<Server>, mut guard: UploadGuard, name: String, digest: Digest) -> HandlerResult {
    let writable = writable_backend(server)?.clone();
    let upload = guard.take_out()?;
    server.uploads.remove(upload.id());
    let repository = name.clone();
    let committed = blocking(move || {
        let layout = writable.create_layout(&repository)?;
        layout.finish_upload(upload, &digest, writable.pool())
    });
    match committed.await? {
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
fn upload_status(
    status: StatusCode,
    name: &str,
    guard: &UploadGuard,
) -> Response<crate::serve::http::response::ResponseBody> {
    let mut response = empty(status);
    add_header(&mut response, "location", &upload_location(name, guard));
    add_header(&mut response, "range", &upload_range(guard));
    add_header(&mut response, "docker-upload-uuid", &guard.id());
    response
}

fn upload_location(name: &str, guard: &UploadGuard) -> String {
    format!("/v2/{name}/blobs/uploads/{}", guard.id())
}

/// The `Range` of an upload; `0-0` for an empty one, as clients expect.
fn upload_range(guard: &UploadGuard) -> String {
    format!("0-{}", guard.size().saturating_sub(1))
}

/// Prunes uploads periodically.
pub async fn prune_uploads(server: Arc<Server>, interval: std::time::Duration, lifetime: std::time::Duration) {
    loop {
        server.uploads.close_idle(lifetime);
        if let Some(writable) = server.writable.clone() {
            let pruned = blocking(move || writable.prune_uploads(lifetime)).await;
            if let Ok(Ok(pruned @ 1..)) = pruned {
                server.watch.say(&format!("removed {pruned} expired uploads"));
            }
        }
        tokio::time::sleep(interval).await;
    }
}
