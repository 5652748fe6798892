//! Pushing blobs (distribution-spec, "Pushing blobs"): in one request or several, mounted from elsewhere, gone on with
//! where a request was cut.

use super::uploads::UploadGuard;
use crate::error::Kind;
use crate::image::{Algorithm, Digest};
use crate::serve::backend::writable::Target;
use crate::serve::http::errors::{Code, Refusal};
use crate::serve::http::reply::{Answered, add, bare, blocking, lost};
use crate::serve::http::request::Asked;
use crate::serve::http::request_body::{End, RequestBody};
use crate::serve::http::route::{digest as parse_digest, name_of};
use crate::serve::server::Server;
use crate::transport::layout::Upload;
use hyper::header;
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `POST blobs/uploads/`: begins an upload, takes a blob whole, or mounts one.
pub async fn begin(server: &Arc<Server>, asked: Asked, name: String, body: &mut RequestBody) -> Answered {
    let target = writable(server)?;
    let wanted = |key: &str| asked.query.value(key).map(parse_digest).transpose();
    let (digest, mount) = (wanted("digest")?, wanted("mount")?);
    let algorithm = match asked.query.value("digest-algorithm") {
        None => digest.or(mount).map_or_else(Algorithm::default, |digest| digest.algorithm()),
        Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(_) => return Err(Refusal::bad(Code::DigestInvalid, "only sha256 and sha512 are known")),
    };
    let (made, repository) = (target.clone(), name.clone());
    let layout = blocking(move || made.make_layout(&repository)).await??;
    if let Some(digest) = mount {
        let from = asked.query.value("from").map(str::to_owned);
        let (target, into) = (target.clone(), layout.clone());
        let mounted = blocking(move || match from {
            Some(from) => match name_of(&from).map(|from| target.layout(&from)) {
                Ok(from) => from?.map_or(Ok(false), |from| into.mount(&digest, &from)),
                Err(_) => Ok(false),
            },
            // Without a word where from: wherever it is.
            None => into.mount(&digest, target.pool()),
        });
        if mounted.await?? {
            count(&server.figures.blobs_mounted);
            return Ok(created(&name, &digest));
        }
    }
    let mut turn = server.sessions.begin(&name, layout, algorithm).await?;
    match digest {
        Some(digest) => {
            if let Err(mut refusal) = receive(&mut turn, &asked, body).await {
                // Nobody was told where to go on.
                cancel(server, turn).await?;
                if refusal.status == StatusCode::REQUEST_TIMEOUT {
                    refusal.message = "the request was cut, or too slow; begin again".to_owned();
                }
                return Err(refusal);
            }
            finish(server, turn, name, digest).await
        }
        None => Ok(standing(StatusCode::ACCEPTED, &name, &turn)),
    }
}

/// `blobs/uploads/<id>`: status, more bytes, the end, or no more of it.
pub async fn go_on(server: &Arc<Server>, asked: Asked, name: String, id: String, body: &mut RequestBody) -> Answered {
    let target = writable(server)?;
    let digest = match asked.method {
        Method::PUT => {
            let missing = || Refusal::bad(Code::DigestInvalid, "an upload ends with ?digest=");
            Some(parse_digest(asked.query.value("digest").ok_or_else(missing)?)?)
        }
        _ => None,
    };
    let mut turn = server.sessions.resume(&name, &id, target).await?;
    match asked.method {
        Method::GET | Method::HEAD => Ok(standing(StatusCode::NO_CONTENT, &name, &turn)),
        Method::DELETE => {
            cancel(server, turn).await?;
            Ok(bare(StatusCode::NO_CONTENT))
        }
        Method::PATCH | Method::PUT => {
            in_order(&asked, body, &name, &turn)?;
            receive(&mut turn, &asked, body).await?;
            match digest {
                Some(digest) => finish(server, turn, name, digest).await,
                None => Ok(standing(StatusCode::ACCEPTED, &name, &turn)),
            }
        }
        _ => Err(Refusal::method("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

/// `DELETE blobs/<digest>`.
pub async fn delete(server: &Arc<Server>, name: String, digest: Digest) -> Answered {
    let target = writable(server)?.clone();
    let repository = name.clone();
    let removed = blocking(move || match target.layout(&repository)? {
        Some(layout) => layout.remove_blob(&digest, target.pool()),
        None => Ok(false),
    });
    match removed.await?? {
        true => Ok(bare(StatusCode::ACCEPTED)),
        false => Err(Refusal::not_found(Code::BlobUnknown, format!("there is no blob {digest} in {name}"))),
    }
}

/// Where pushes go.
pub fn writable(server: &Arc<Server>) -> Result<&Arc<Target>, Refusal> {
    let read_only = || {
        let message = "this server is for pulling only; it takes pushes with --writable";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message).with("allow", "GET, HEAD".to_owned())
    };
    server.target.as_ref().ok_or_else(read_only)
}

pub fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

/// Whether a chunk begins where the upload stands, and is as long as it says. The specification has `0-99`, some
/// clients write `bytes 0-99/200`.
fn in_order(asked: &Asked, body: &RequestBody, name: &str, turn: &UploadGuard) -> Result<(), Refusal> {
    let Some(range) = asked.header(header::CONTENT_RANGE) else { return Ok(()) };
    let wrong = || Refusal::bad(Code::BlobUploadInvalid, format!("{range:?} is no Content-Range; expected FIRST-LAST"));
    let spec = range.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let (first, last) = spec.split('/').next().and_then(|spec| spec.split_once('-')).ok_or_else(wrong)?;
    let (first, last) = (first.parse::<u64>().map_err(|_| wrong())?, last.parse::<u64>().map_err(|_| wrong())?);
    if first != turn.size() {
        let stands = format!("the upload stands at byte {}, the chunk begins at {first}", turn.size());
        let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, stands);
        return Err(refusal.with("location", location(name, turn)).with("range", range_of(turn)));
    }
    let length = last.checked_sub(first).and_then(|length| length.checked_add(1));
    match (length, body.announced()) {
        (None, _) => Err(wrong()),
        (Some(length), Some(announced)) if length != announced => Err(Refusal::bad(
            Code::SizeInvalid,
            format!("Content-Range has {length} bytes, Content-Length says {announced}"),
        )),
        _ => Ok(()),
    }
}

/// Writes the body behind what is there. A body that is cut leaves what came of it.
async fn receive(turn: &mut UploadGuard, asked: &Asked, body: &mut RequestBody) -> Result<(), Refusal> {
    let mut upload = turn.take_out()?;
    let (before, announced) = (upload.size(), body.announced());
    // A full disk is told now, not after the transfer.
    let mut writing = tokio::task::spawn_blocking(move || {
        let reserved = announced.map_or(Ok(()), |more| upload.reserve(more));
        (upload, reserved)
    });
    loop {
        // The next bytes come in while those before are hashed and written.
        let over = tokio::select! {
            over = body.gather(asked.share) => over,
            () = turn.superseded() => Some(End::Cut),
        };
        let pieces = body.take();
        let (mut upload, written) = writing.await.map_err(|_| lost())?;
        if let Err(error) = written {
            return put_back(turn, upload, End::Whole, before).await.and(Err(error.into()));
        }
        writing = tokio::task::spawn_blocking(move || {
            let written = pieces.iter().try_for_each(|piece| upload.write(piece));
            (upload, written)
        });
        if let Some(over) = over {
            let (upload, written) = writing.await.map_err(|_| lost())?;
            put_back(turn, upload, over, before).await?;
            written?;
            return match over {
                End::Whole => Ok(()),
                End::Cut => {
                    let message = "the request was cut, or too slow; ask for the upload's status and go on there";
                    Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, message))
                }
            };
        }
    }
}

/// Lets the upload stand where it is.
async fn put_back(turn: &mut UploadGuard, mut upload: Upload, over: End, before: u64) -> Result<(), Refusal> {
    let settled = blocking(move || {
        // One byte and none look alike to who asks how far it came.
        if over == End::Cut && before == 0 && upload.size() == 1 {
            let _ = upload.clear();
        }
        upload.flush();
        upload
    });
    turn.put_back(settled.await?);
    Ok(())
}

async fn cancel(server: &Arc<Server>, mut turn: UploadGuard) -> Result<(), Refusal> {
    let upload = turn.take_out()?;
    server.sessions.end(upload.id());
    blocking(move || upload.remove()).await
}

async fn finish(server: &Arc<Server>, mut turn: UploadGuard, name: String, digest: Digest) -> Answered {
    let target = writable(server)?.clone();
    let upload = turn.take_out()?;
    server.sessions.end(upload.id());
    let repository = name.clone();
    let kept = blocking(move || {
        let layout = target.make_layout(&repository)?;
        layout.finish_upload(upload, &digest, target.pool())
    });
    match kept.await? {
        Ok(_) => {
            count(&server.figures.blobs_pushed);
            Ok(created(&name, &digest))
        }
        Err(error) if error.kind() == Kind::Invalid => Err(Refusal::bad(Code::DigestInvalid, error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn created(name: &str, digest: &Digest) -> Response<crate::serve::http::response::Answer> {
    let mut response = bare(StatusCode::CREATED);
    add(&mut response, "location", &format!("/v2/{name}/blobs/{digest}"));
    add(&mut response, "docker-content-digest", &digest.to_string());
    response
}

/// Where an upload stands.
fn standing(status: StatusCode, name: &str, turn: &UploadGuard) -> Response<crate::serve::http::response::Answer> {
    let mut response = bare(status);
    add(&mut response, "location", &location(name, turn));
    add(&mut response, "range", &range_of(turn));
    add(&mut response, "docker-upload-uuid", &turn.id());
    response
}

fn location(name: &str, turn: &UploadGuard) -> String {
    format!("/v2/{name}/blobs/uploads/{}", turn.id())
}

/// `0-0` where nothing is there yet, as clients expect it.
fn range_of(turn: &UploadGuard) -> String {
    format!("0-{}", turn.size().saturating_sub(1))
}

/// Removes uploads that nobody goes on with, again and again.
pub async fn expire(server: Arc<Server>, every: std::time::Duration, life: std::time::Duration) {
    loop {
        server.sessions.let_go(life);
        if let Some(target) = server.target.clone() {
            let expired = blocking(move || target.expire(life)).await;
            if let Ok(Ok(expired @ 1..)) = expired {
                server.watch.say(&format!("{expired} uploads that nobody went on with were removed"));
            }
        }
        tokio::time::sleep(every).await;
    }
}
