//! Checks, parses and authorises a request, and dispatches it to its handler.

use super::errors::Refusal;
use super::reply::{Answered, add, lost, text};
use super::request::Asked;
use super::request_body::RequestBody;
use super::response::Answer;
use super::route;
use super::route::{Part, Query, Route};
use crate::serve::access::users::Right;
use crate::serve::access_log::{Record, RequestLog};
use crate::serve::handlers::{lists, metrics, page, pull, push, put};
use crate::serve::server::Server;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The maximum length, in characters, of client-supplied text in the access log.
const KEPT: usize = 512;

/// Answers `request`; the access log gets its record when the response has been sent.
pub async fn answer(
    server: Arc<Server>,
    peer: IpAddr,
    share: usize,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let mut tally = RequestLog::begin(record(peer, &request), &server.figures, server.journal.clone());
    let (head, body) = request.into_parts();
    let query = Query::of(head.uri.query());
    let asked = Asked { method: head.method, query, headers: head.headers, share, user: None };
    let is_head = asked.method == Method::HEAD;
    let mut body = Some(RequestBody::new(body, server.limits.idle, tally.received()));
    let answered = dispatch(&server, &head.uri, asked, &mut body, &mut tally).await;
    if let Some(mut body) = body.filter(|_| answered.is_err()) {
        body.drain().await;
    }
    let mut response = answered.unwrap_or_else(|refusal| {
        tally.failed(&refusal.message);
        refused(&refusal)
    });
    let headers = response.headers_mut();
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    let size = response.body().size();
    let lengthless = response.status() == StatusCode::NO_CONTENT || response.status() == StatusCode::NOT_MODIFIED;
    if !response.headers().contains_key(header::CONTENT_LENGTH) && !lengthless {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    tally.answered(response.status().as_u16(), if is_head { 0 } else { size });
    Ok(response.map(|body| if is_head { body.head() } else { body }.tallied(tally)))
}

/// Dispatches a request to its handler; takes `body` if the handler reads it.
async fn dispatch(
    server: &Arc<Server>,
    uri: &Uri,
    mut asked: Asked,
    body: &mut Option<RequestBody>,
    tally: &mut RequestLog,
) -> Answered {
    server.gate.check(&asked.method, uri, &asked.headers)?;
    let route = route::route(uri.path())?;
    let right = if asked.reads() { Right::Read } else { Right::Write };
    asked.user = match &route {
        Route::Health | Route::Token => None,
        Route::Base => server.rights.base(&asked.headers).await?,
        Route::Repository(_, Part::Uploads | Part::Upload(_)) => {
            server.rights.check(Right::Write, &asked.headers).await?
        }
        _ => server.rights.check(right, &asked.headers).await?,
    };
    tally.user(asked.user.clone());
    let writes = matches!(&route, Route::Repository(_, part) if !asked.reads() || part.is_upload());
    let (name, part) = match route {
        Route::Health if asked.reads() => return Ok(text("text/plain; charset=utf-8", "ok\n")),
        Route::Base if asked.reads() => return Ok(text("application/json", "{}")),
        Route::Catalog if asked.reads() => return lists::catalog(server, asked).await,
        Route::Metrics if asked.reads() => return Ok(metrics::answer(&server.figures)),
        Route::Page if asked.reads() => return page::page(server, asked).await,
        Route::Token if asked.reads() && server.rights.by_token() => {
            return Ok(text("application/json", server.rights.token(&asked.headers).await?));
        }
        Route::Health | Route::Base | Route::Catalog | Route::Metrics | Route::Token | Route::Page => {
            return Err(Refusal::method("GET, HEAD"));
        }
        Route::Repository(name, part) => (name, part),
    };
    if let Some(body) = body.take_if(|_| writes) {
        // A separate task, which finishes properly if the connection breaks.
        let written = tokio::spawn(write(server.clone(), asked, name, part, body));
        return written.await.unwrap_or_else(|_| Err(lost()));
    }
    let nobody = asked.user.is_none().then(|| asked.headers.clone());
    let read = match part {
        Part::Tags => lists::tags(server, asked, name).await,
        Part::Referrers(subject) => lists::referrers(server, asked, name, subject).await,
        Part::Manifest(at) => pull::manifest(server, asked, name, at).await,
        Part::Blob(digest) => pull::blob(server, asked, name, digest).await,
        Part::Uploads | Part::Upload(_) => Err(lost()),
    };
    read.map_err(|refusal| match nobody {
        Some(headers) => server.rights.instead(refusal, &headers),
        None => refusal,
    })
}

async fn write(server: Arc<Server>, asked: Asked, name: String, part: Part, mut body: RequestBody) -> Answered {
    let method = asked.method.clone();
    let written = match (part, &method) {
        (Part::Uploads, &Method::POST) => push::begin(&server, asked, name, &mut body).await,
        (Part::Upload(id), _) => push::go_on(&server, asked, name, id, &mut body).await,
        (Part::Manifest(at), &Method::PUT) => put::put(&server, asked, name, at, &mut body).await,
        (Part::Manifest(at), &Method::DELETE) => put::delete(&server, name, at).await,
        (Part::Blob(digest), &Method::DELETE) => push::delete(&server, name, digest).await,
        (Part::Uploads, _) => Err(Refusal::method("POST")),
        (Part::Manifest(_), _) => Err(Refusal::method("GET, HEAD, PUT, DELETE")),
        (Part::Blob(_), _) => Err(Refusal::method("GET, HEAD, DELETE")),
        (Part::Tags | Part::Referrers(_), _) => Err(Refusal::method("GET, HEAD")),
    };
    if written.is_err() {
        body.drain().await;
    }
    written
}

fn refused(refusal: &Refusal) -> Response<Answer> {
    let mut response = text("application/json", refusal.json());
    *response.status_mut() = refusal.status;
    for (name, value) in &refusal.headers {
        add(&mut response, name, value);
    }
    response
}

fn record(peer: IpAddr, request: &Request<Incoming>) -> Record {
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    Record {
        at: SystemTime::now(),
        peer,
        user: None,
        method: request.method().as_str().chars().take(16).collect(),
        target: target.chars().take(KEPT).collect(),
        status: 0,
        received: 0,
        sent: 0,
        took: Duration::ZERO,
        agent: agent.chars().take(KEPT).collect(),
        failure: None,
    }
}
