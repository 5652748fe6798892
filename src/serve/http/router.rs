//! Checks, parses and authorises a request, and dispatches it to its handler.

use super::errors::ApiError;
use super::reply::{HandlerResult, add_header, panicked, text};
use super::request::RequestHead;
use super::request_body::RequestBody;
use super::response::ResponseBody;
use super::route;
use super::route::{Resource, Route, UrlQuery};
use crate::serve::access::users::Right;
use crate::serve::access_log::{LogRecord, RequestLog};
use crate::serve::handlers::{lists, manifests, metrics, page, pull, push};
use crate::serve::server::Server;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The maximum length, in characters, of client-supplied text in the access log.
const MAX_LOGGED_CHARS: usize = 512;

/// Responds to `request`; the access log gets its record when the response has been sent.
pub async fn respond(
    server: Arc<Server>,
    client: IpAddr,
    buffer_bytes: usize,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut log = RequestLog::start(record(client, &request), &server.metrics, server.access_log.clone());
    let (head, body) = request.into_parts();
    let query = UrlQuery::parse(head.uri.query());
    let request = RequestHead { method: head.method, query, headers: head.headers, buffer_bytes, user: None };
    let is_head = request.method == Method::HEAD;
    let mut body = Some(RequestBody::new(body, server.limits.idle_timeout, log.received()));
    let result = dispatch(&server, &head.uri, request, &mut body, &mut log).await;
    if let Some(mut body) = body.filter(|_| result.is_err()) {
        body.drain().await;
    }
    let mut response = result.unwrap_or_else(|api_error| {
        log.failed(&api_error.message);
        error_to_response(&api_error)
    });
    let headers = response.headers_mut();
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    let size = response.body().size();
    let lengthless = response.status() == StatusCode::NO_CONTENT || response.status() == StatusCode::NOT_MODIFIED;
    if !response.headers().contains_key(header::CONTENT_LENGTH) && !lengthless {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    log.set_response(response.status().as_u16(), if is_head { 0 } else { size });
    Ok(response.map(|body| if is_head { body.without_bytes() } else { body }.with_log(log)))
}

/// Dispatches a request to its handler; takes `body` if the handler reads it.
async fn dispatch(
    server: &Arc<Server>,
    uri: &Uri,
    mut request: RequestHead,
    body: &mut Option<RequestBody>,
    log: &mut RequestLog,
) -> HandlerResult {
    server.browser_guard.check(&request.method, uri, &request.headers)?;
    let route = route::route(uri.path())?;
    let right = if request.is_read() { Right::Read } else { Right::Write };
    request.user = match &route {
        Route::Health | Route::Token => None,
        Route::Base => server.rights.check_base(&request.headers).await?,
        Route::Repository(_, Resource::Uploads | Resource::Upload(_)) => {
            server.rights.check(Right::Write, &request.headers).await?
        }
        _ => server.rights.check(right, &request.headers).await?,
    };
    log.user(request.user.clone());
    let writes = matches!(&route, Route::Repository(_, resource) if !request.is_read() || resource.is_upload());
    let (name, resource) = match route {
        Route::Health if request.is_read() => return Ok(text("text/plain; charset=utf-8", "ok\n")),
        Route::Base if request.is_read() => return Ok(text("application/json", "{}")),
        Route::Catalog if request.is_read() => return lists::catalog(server, request).await,
        Route::Metrics if request.is_read() => return Ok(metrics::respond(&server.metrics)),
        Route::Page if request.is_read() => return page::page(server, request).await,
        Route::Token if request.is_read() && server.rights.uses_tokens() => {
            return Ok(text("application/json", server.rights.issue_token(&request.headers).await?));
        }
        Route::Health | Route::Base | Route::Catalog | Route::Metrics | Route::Token | Route::Page => {
            return Err(ApiError::method_not_allowed("GET, HEAD"));
        }
        Route::Repository(name, resource) => (name, resource),
    };
    if let Some(body) = body.take_if(|_| writes) {
        // A separate task, which finishes properly if the connection breaks.
        let written = tokio::spawn(write(server.clone(), request, name, resource, body));
        return written.await.unwrap_or_else(|_| Err(panicked()));
    }
    let anonymous = request.user.is_none().then(|| request.headers.clone());
    let read = match resource {
        Resource::Tags => lists::tags(server, request, name).await,
        Resource::Referrers(subject) => lists::referrers(server, request, name, subject).await,
        Resource::Manifest(at) => pull::manifest(server, request, name, at).await,
        Resource::Blob(digest) => pull::blob(server, request, name, digest).await,
        Resource::Uploads | Resource::Upload(_) => Err(panicked()),
    };
    read.map_err(|api_error| match anonymous {
        Some(headers) => server.rights.challenge_anonymous(api_error, &headers),
        None => api_error,
    })
}

async fn write(
    server: Arc<Server>,
    request: RequestHead,
    name: String,
    resource: Resource,
    mut body: RequestBody,
) -> HandlerResult {
    let method = request.method.clone();
    let written = match (resource, &method) {
        (Resource::Uploads, &Method::POST) => push::start_upload(&server, request, name, &mut body).await,
        (Resource::Upload(id), _) => push::handle_upload(&server, request, name, id, &mut body).await,
        (Resource::Manifest(at), &Method::PUT) => manifests::put_manifest(&server, request, name, at, &mut body).await,
        (Resource::Manifest(at), &Method::DELETE) => manifests::delete_manifest(&server, name, at).await,
        (Resource::Blob(digest), &Method::DELETE) => push::delete_blob(&server, name, digest).await,
        (Resource::Uploads, _) => Err(ApiError::method_not_allowed("POST")),
        (Resource::Manifest(_), _) => Err(ApiError::method_not_allowed("GET, HEAD, PUT, DELETE")),
        (Resource::Blob(_), _) => Err(ApiError::method_not_allowed("GET, HEAD, DELETE")),
        (Resource::Tags | Resource::Referrers(_), _) => Err(ApiError::method_not_allowed("GET, HEAD")),
    };
    if written.is_err() {
        body.drain().await;
    }
    written
}

fn error_to_response(api_error: &ApiError) -> Response<ResponseBody> {
    let mut response = text("application/json", api_error.json());
    *response.status_mut() = api_error.status;
    for (name, value) in &api_error.headers {
        add_header(&mut response, name, value);
    }
    response
}

fn record(client: IpAddr, request: &Request<Incoming>) -> LogRecord {
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    LogRecord {
        at: SystemTime::now(),
        client,
        user: None,
        method: request.method().as_str().chars().take(16).collect(),
        target: target.chars().take(MAX_LOGGED_CHARS).collect(),
        status: 0,
        received: 0,
        sent: 0,
        took: Duration::ZERO,
        agent: agent.chars().take(MAX_LOGGED_CHARS).collect(),
        failure: None,
    }
}
