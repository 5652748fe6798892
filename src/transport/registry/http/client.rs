//! The client of one registry: redirects, credentials and retries around a request (`http/mod.rs`).
//!
//! `Authorization` is sent only to the registry's own origin (scheme, host and port). A redirect from https to http is
//! refused. Plain HTTP is used only on loopback and where the user allowed it.

use super::error_body;
use super::error_body::FailedRequest;
use super::proxy::is_loopback;
use super::pull_limit::{PullLimit, PullsLeft};
use super::retry;
use super::retry::RetryPolicy;
use super::throttle::Throttle;
use super::transport_error::TransportError;
use super::web_page;
use super::window::{HostWindow, Permit};
use super::{Call, HostKind, Http, Payload, Response};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::DEFAULT_REGISTRY;
use crate::progress::Watch;
use crate::transport::registry::HUB_API;
use crate::transport::registry::auth::state;
use crate::transport::registry::auth::state::AuthState;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::options::{Access, Insecure};
use crate::transport::registry::push::body_limit::BodyLimit;
use crate::transport::registry::push::book::BlobBook;
use crate::transport::registry::referrers_memory::ReferrersMemories;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use ureq::http::{HeaderValue, Method, header};
use url::{Origin, Url};

const MAX_REDIRECTS: usize = 8;
/// The limit on requests for a new redirect URL after the redirect's target refused the last one.
const MAX_REDIRECT_URLS: u32 = 3;

/// The state that all requests to one registry share. Clones share it too, except their `watch`.
#[derive(Clone)]
pub struct RegistryClient {
    /// `HOST[:PORT]` as in references.
    pub host: String,
    pub access: Access,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
    http: Arc<Http>,
    auth: Arc<Mutex<AuthState>>,
    pub throttle: Arc<Throttle>,
    pub bodies: Arc<BodyLimit>,
    /// The blobs that the copies of the run have stored.
    pub blobs: Arc<BlobBook>,
    /// The properties of its repositories' referrers.
    pub referrers: Arc<ReferrersMemories>,
    /// The pulls that the host allows.
    pub pulls: Arc<PullLimit>,
    /// The limit on requests to the host, also of other registries at this host.
    pub window: Arc<HostWindow>,
    /// The user was warned that the cache is not writable.
    pub cache_warned: Arc<AtomicBool>,
    api: Arc<OnceLock<Url>>,
    api_detection: Arc<Mutex<()>>,
}

impl RegistryClient {
    pub fn new(
        host: &str,
        access: Access,
        watch: Arc<dyn Watch>,
        cancel: Cancel,
        window: Arc<HostWindow>,
    ) -> Result<RegistryClient> {
        if !crate::image::is_host(host) {
            return Err(Error::usage(format!("{host:?} is not a registry; expected HOST[:PORT]")));
        }
        Ok(RegistryClient {
            http: Arc::new(Http::new(host, access.clone(), &cancel)),
            bodies: Arc::new(BodyLimit::new(host, access.cache_dir.as_deref())),
            host: host.to_owned(),
            access,
            watch,
            cancel,
            auth: Arc::default(),
            throttle: Arc::default(),
            blobs: Arc::default(),
            referrers: Arc::default(),
            pulls: Arc::default(),
            window,
            cache_warned: Arc::default(),
            api: Arc::default(),
            api_detection: Arc::default(),
        })
    }

    /// The same client, which reports to `watch`.
    pub(crate) fn reporting_to(&self, watch: Arc<dyn Watch>) -> RegistryClient {
        RegistryClient { watch, ..self.clone() }
    }

    /// Whether both have the same connections and tokens.
    #[cfg(test)]
    pub(crate) fn shares_state_with(&self, other: &RegistryClient) -> bool {
        Arc::ptr_eq(&self.http, &other.http) && Arc::ptr_eq(&self.auth, &other.auth)
    }

    /// Returns the URL of `path` (below `/v2/`).
    pub fn url(&self, path: &str) -> Result<Url> {
        let wrong = |_| Error::invalid(format!("{path:?} cannot be requested from {}", self.host));
        let mut url = self.api()?.join(&format!("{}/{path}", self.access.api_root)).map_err(wrong)?;
        if let Some(namespace) = &self.access.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// Returns the registry's root URL: https, or http if plain HTTP is allowed and the registry does not speak TLS.
    /// Plain HTTP is allowed on loopback and where the user said so. The registry is probed once.
    pub(crate) fn api(&self) -> Result<&Url> {
        if let Some(url) = self.api.get() {
            return Ok(url);
        }
        let host = if self.host == DEFAULT_REGISTRY { HUB_API } else { &self.host };
        let root = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|_| Error::usage(format!("{host:?} is not a host name")))
        };
        let secure = root("https")?;
        let _guard = self.api_detection.lock().unwrap_or_else(PoisonError::into_inner);
        let plain_http_allowed =
            self.access.insecure.is_allowed() || is_loopback(secure.host_str().unwrap_or_default());
        let found = match plain_http_allowed && self.api.get().is_none() && !self.speaks_tls(&secure) {
            true => root("http")?,
            false => secure,
        };
        Ok(self.api.get_or_init(|| found))
    }

    /// Whether the server at `root` speaks TLS, trusted or not.
    fn speaks_tls(&self, root: &Url) -> bool {
        let call = Call::new(Method::GET, root.clone());
        match self.http.send(&call, &mut Payload::Nothing, HostKind::Probe) {
            // Usually an untrusted certificate, since a probe trusts none: the server has responded to the handshake.
            Ok(_) | Err(TransportError::Permanent(_)) => true,
            Err(
                TransportError::NotTls
                | TransportError::TunnelRefused(_)
                | TransportError::Transient(_)
                | TransportError::Unreachable(_),
            ) => false,
        }
    }

    /// Sends `call` and retries transient failures. `authorization` is an `Authorization` value with the only origin
    /// that may receive it.
    pub(crate) fn send_with_retries(
        &self,
        what: &str,
        call: &Call,
        payload: &mut Payload<'_>,
        authorization: Option<(&Origin, &str)>,
    ) -> Result<Response> {
        let mut retries = self.retry_policy(0);
        let replayable = !matches!(payload, Payload::Stream { .. });
        loop {
            self.cancel.check()?;
            let (why, retry_after) = match self.follow_redirects(call, payload, authorization) {
                Ok(response)
                    if retry::is_transient(response.status)
                        && retries.may_retry()
                        && replayable
                        && !self.exceeds_wait_limit(&response) =>
                {
                    let failure = (format!("status {}", response.status), response.retry_after());
                    response.drain();
                    failure
                }
                Ok(response) => return Ok(response),
                Err(TransportError::Transient(why)) if retries.may_retry() && replayable => (why, None),
                Err(TransportError::Unreachable(why)) if retries.may_retry_unreachable() && replayable => (why, None),
                Err(TransportError::Transient(why) | TransportError::Unreachable(why)) => {
                    self.cancel.check()?;
                    return Err(retries.final_error(&self.describe(what, &call.url), &why));
                }
                Err(error) => return Err(self.permanent_error(error)),
            };
            retries.wait(&self.describe(what, &call.url), &why, retry_after)?;
        }
    }

    /// Whether the server asks for a longer pause than `Access::response_timeout`, which the mirror sets because its own
    /// client waits.
    fn exceeds_wait_limit(&self, response: &Response) -> bool {
        let retry_after = response.retry_after();
        self.access.response_timeout.is_some_and(|limit| retry_after.is_some_and(|retry_after| retry_after > limit))
    }

    /// Sends a request that the registry may redirect to another host. A status in `refusals` from that host may mean
    /// that the redirect's URL has expired, so the registry is asked for a new one.
    pub fn get(&self, call: &Call, scope: &Scope, what: &str, refusals: &[u16]) -> Result<Response> {
        let mut retries = self.retry_policy(0);
        loop {
            let response = self.send(call, Payload::Nothing, scope, what)?;
            let refused = refusals.contains(&response.status) && self.is_from_other_host(&response);
            if !refused || retries.failures() == MAX_REDIRECT_URLS {
                return Ok(response);
            }
            let from = response.url.host_str().unwrap_or_default();
            let why = format!(
                "{from}, to which {} redirects, refused the request with status {}",
                self.host, response.status
            );
            response.drain();
            retries.wait(what, &why, None)?;
        }
    }

    /// Reads a small document: the complete body of a response of status 200. Reading shares the retries of the
    /// request.
    pub fn document(&self, call: &Call, scope: &Scope, what: &str, limit: u64) -> Result<(Response, Vec<u8>)> {
        self.read_body(call, scope, what, |response| response.bytes(limit, what))
    }

    /// Calls `read` for a response of status 200. A `Network` error of `read` repeats the request and the call, within
    /// the retries of the request.
    pub fn read_body<T>(
        &self,
        call: &Call,
        scope: &Scope,
        what: &str,
        mut read: impl FnMut(&mut Response) -> Result<T>,
    ) -> Result<(Response, T)> {
        let mut retries = self.retry_policy(0);
        loop {
            // 404 is a final response: some registries redirect every read to another registry.
            let response = self.get(call, scope, what, &[400, 401, 403, 410])?;
            let mut response = self.expect(response, &[200], scope, what)?;
            match read(&mut response) {
                Ok(content) => return Ok((response, content)),
                Err(error) if error.kind() == Kind::Network && retries.may_retry() && !self.cancel.raised() => {
                    retries.wait(what, &error.to_string(), None)?;
                }
                Err(error) => {
                    self.cancel.check()?;
                    return Err(self.with_host(error));
                }
            }
        }
    }

    /// The number of requests that may be sent at the same time.
    pub fn parallel_requests(&self) -> usize {
        self.throttle.parallel_blobs(self.access.parallel_blobs).min(self.access.max_requests)
    }

    /// Returns the retry policy of one request that has failed `failures` times.
    pub fn retry_policy(&self, failures: u32) -> RetryPolicy<'_> {
        RetryPolicy::new(&self.access, &*self.watch, &self.cancel, failures)
    }

    /// Sends one request and follows its redirects.
    fn follow_redirects(
        &self,
        call: &Call,
        payload: &mut Payload<'_>,
        authorization: Option<(&Origin, &str)>,
    ) -> std::result::Result<Response, TransportError> {
        let home = self.api().map_err(TransportError::Permanent)?.origin();
        let mut call = call.clone();
        for _ in 0..=MAX_REDIRECTS {
            call.headers.remove(header::AUTHORIZATION);
            if let Some((origin, value)) = authorization
                && call.url.origin() == *origin
                && let Ok(value) = HeaderValue::from_str(value)
            {
                call.headers.insert(header::AUTHORIZATION, value);
            }
            let to = if call.url.origin() == home { HostKind::Registry } else { HostKind::Other };
            for (name, value) in &self.access.headers {
                call.headers.remove(*name);
                if let (HostKind::Registry, Ok(value)) = (to, HeaderValue::from_str(value)) {
                    call.headers.insert(*name, value);
                }
            }
            let response = self.send_in_window(&call, payload, to)?;
            if response.status == 429 {
                self.throttle.record_too_many_requests();
            }
            let Some(next) = self.redirect(&call, payload, &response).map_err(TransportError::Permanent)? else {
                return Ok(response);
            };
            response.drain();
            call.url = next;
        }
        Err(TransportError::Permanent(Error::failed(format!("{}: more than {MAX_REDIRECTS} redirects", self.host))))
    }

    /// Sends one request, within the window of the registry's host.
    fn send_in_window(
        &self,
        call: &Call,
        payload: &mut Payload<'_>,
        to: HostKind,
    ) -> std::result::Result<Response, TransportError> {
        let mut permit = match to {
            HostKind::Registry => Some(self.window.enter(&self.cancel).map_err(TransportError::Permanent)?),
            HostKind::Other | HostKind::Probe => None,
        };
        let (started, is_bare) = (Instant::now(), matches!(payload, Payload::Nothing));
        let response = match payload {
            Payload::Stream { bytes, size } => {
                let mut bytes = ReleasingReader { bytes: &mut **bytes, permit: permit.as_mut() };
                self.http.send(call, &mut Payload::Stream { bytes: &mut bytes, size: *size }, to)?
            }
            payload => self.http.send(call, payload, to)?,
        };
        if is_bare {
            self.throttle.record_latency(started.elapsed());
        }
        if let Some(permit) = permit {
            permit.answered(response.status);
            if let Some(left) = PullsLeft::of(&response) {
                self.pulls.record(left);
            }
        }
        Ok(response)
    }

    /// Returns the target of a redirect that may be followed; `None` if `response` is not a redirect.
    fn redirect(&self, call: &Call, payload: &Payload<'_>, response: &Response) -> Result<Option<Url>> {
        if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = response.header("location") else {
            return Ok(None);
        };
        let next = self.location(&call.url, location)?;
        let reads = matches!(call.method, Method::GET | Method::HEAD);
        let repeatable = matches!(response.status, 307 | 308)
            && next.origin() == call.url.origin()
            && !matches!(payload, Payload::Stream { .. });
        if reads || repeatable {
            return Ok(Some(next));
        }
        let to = next.host_str().unwrap_or_default();
        Err(Error::failed(format!(
            "{} redirects a {} request to {to}; imgmv does not follow it",
            self.host, call.method
        )))
    }

    /// Resolves a `Location` or `Link` header of a response from `base`. Fails if requests to that URL are not
    /// allowed.
    pub fn location(&self, base: &Url, text: &str) -> Result<Url> {
        let wrong =
            |why: &str| Error::invalid(format!("{} names a location that imgmv does not use: {why}", self.host));
        let next = base.join(text).map_err(|_| wrong("it is not a URL"))?;
        if !next.username().is_empty() || next.password().is_some() {
            return Err(wrong("it contains credentials"));
        }
        let by_user = self.access.insecure == Insecure::ByUser;
        let plain_http_allowed = || by_user || is_loopback(next.host_str().unwrap_or_default());
        match (base.scheme(), next.scheme()) {
            (_, "https") => Ok(next),
            ("https", "http") => {
                Err(wrong("it leads from https to http; a proxy in front of the registry must send X-Forwarded-Proto"))
            }
            (_, "http") if next.origin() == base.origin() || plain_http_allowed() => Ok(next),
            (_, "http") => Err(wrong("it is plain HTTP on another host")),
            _ => Err(wrong("it is neither http nor https")),
        }
    }

    pub(crate) fn auth_state(&self) -> MutexGuard<'_, AuthState> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the host to `what`.
    fn describe(&self, what: &str, url: &Url) -> String {
        let requested = url.host_str().unwrap_or_default();
        if self.host.starts_with(requested) || self.host == DEFAULT_REGISTRY {
            format!("{what} at {}", self.host)
        } else {
            format!("{what} at {requested}")
        }
    }

    /// Whether a redirect led to another host, which sent `response`.
    pub fn is_from_other_host(&self, response: &Response) -> bool {
        self.api().is_ok_and(|api| api.origin() != response.url.origin())
    }

    /// Turns a transport error into the final error, without a retry.
    pub(crate) fn permanent_error(&self, error: TransportError) -> Error {
        if self.cancel.raised() {
            return Error::interrupted();
        }
        match error {
            TransportError::Permanent(error) | TransportError::TunnelRefused(error) => self.with_host(error),
            TransportError::Transient(why) | TransportError::Unreachable(why) => {
                Error::network(format!("{}: {why}", self.host))
            }
            TransportError::NotTls => Error::network(match self.http.proxy() {
                Some(proxy) => format!(
                    "{}: the response through the proxy {proxy} is not TLS; it may be a login page of the proxy",
                    self.host
                ),
                None => {
                    format!("{} does not speak TLS; to use plain HTTP, add --src-insecure or --dst-insecure", self.host)
                }
            }),
        }
    }

    /// Adds the registry's name to an error without it.
    pub(crate) fn with_host(&self, error: Error) -> Error {
        if error.to_string().contains(&self.host) { error } else { error.at(&self.host) }
    }

    /// Returns `response` if its status is in `wanted` and it is not a web page, else the error for it. The error never
    /// contains a secret, even if the registry quotes one.
    pub fn expect(&self, response: Response, wanted: &[u16], scope: &Scope, what: &str) -> Result<Response> {
        let is_page = response.status < 300 && web_page::is_page(&response);
        if wanted.contains(&response.status) && !is_page {
            return Ok(response);
        }
        if is_page {
            return Err(web_page::error(&self.host, &response, what));
        }
        let found = self.auth_state().looked_up(scope.repository()).cloned().unwrap_or_default();
        let subject = FailedRequest {
            host: &self.host,
            from_other_host: self.is_from_other_host(&response),
            repository: scope.repository(),
            what,
            verb: scope.verb(),
            credentials: &found.note,
            logged_in: found.login.is_some(),
        };
        let proxy = response.refusing_proxy().cloned();
        let error = error_body::error(&subject, response);
        let message = proxy.map_or_else(
            || error.to_string(),
            |proxy| format!("{error} (through the proxy {proxy}, which may have refused it itself)"),
        );
        Err(error.reworded(state::scrub(&message, found.login.as_ref())))
    }
}

/// A request's body, which may come from the same host: it is read without a permit.
struct ReleasingReader<'a> {
    bytes: &'a mut dyn Read,
    permit: Option<&'a mut Permit>,
}

impl Read for ReleasingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(permit) = self.permit.take() {
            permit.release();
        }
        self.bytes.read(buffer)
    }
}
