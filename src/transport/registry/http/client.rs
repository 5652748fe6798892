//! The one way to ask a registry anything: redirects, credentials and retries around one request (`http/mod.rs`).
//!
//! `Authorization` goes to the registry's own origin (scheme, host and port) and to nobody else; https never falls to
//! http; plain HTTP goes to loopback, or where the user named it.

use super::error_body;
use super::error_body::Subject;
use super::proxy::is_loopback;
use super::retry;
use super::retry::RetryPolicy;
use super::throttle::Pace;
use super::transport_error::Fault;
use super::web_page;
use super::{Answer, Call, Http, Payload, To};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::DEFAULT_REGISTRY;
use crate::progress::Watch;
use crate::transport::registry::HUB_API;
use crate::transport::registry::auth::state;
use crate::transport::registry::auth::state::Known;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::options::{Access, Insecure};
use crate::transport::registry::push::body_limit::BodyLimit;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use ureq::http::{HeaderValue, Method, header};
use url::{Origin, Url};

const MAX_REDIRECTS: usize = 8;
/// How often the registry is asked for another address when another host refuses the one that it gave.
const MAX_ADDRESSES: u32 = 3;

/// Everything that requests to one registry share.
pub struct RegistryClient {
    /// As in references.
    pub host: String,
    pub access: Access,
    pub watch: Arc<dyn Watch>,
    pub cancel: Cancel,
    http: Http,
    known: Mutex<Known>,
    pub pace: Pace,
    pub bodies: BodyLimit,
    /// The user's cache cannot be written to, which was said.
    pub uncached: AtomicBool,
    api: OnceLock<Url>,
    finding_api: Mutex<()>,
}

impl RegistryClient {
    pub fn new(host: &str, access: Access, watch: Arc<dyn Watch>, cancel: Cancel) -> Result<RegistryClient> {
        if !crate::image::is_host(host) {
            return Err(Error::usage(format!("{host:?} is not a registry's HOST[:PORT]")));
        }
        Ok(RegistryClient {
            http: Http::new(host, access.clone(), &cancel),
            bodies: BodyLimit::new(host, access.cache_dir.as_deref()),
            host: host.to_owned(),
            access,
            watch,
            cancel,
            known: Mutex::default(),
            pace: Pace::default(),
            uncached: AtomicBool::new(false),
            api: OnceLock::new(),
            finding_api: Mutex::new(()),
        })
    }

    /// The address of `path` (below `/v2/`).
    pub fn url(&self, path: &str) -> Result<Url> {
        let wrong = |_| Error::invalid(format!("{path:?} cannot be asked of {}", self.host));
        let mut url = self.api()?.join(&format!("{}/{path}", self.access.api_root)).map_err(wrong)?;
        if let Some(namespace) = &self.access.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// The registry's root. Hosts other than loopback have TLS unless the user said otherwise; for those two it is
    /// found out once.
    pub(crate) fn api(&self) -> Result<&Url> {
        if let Some(url) = self.api.get() {
            return Ok(url);
        }
        let host = if self.host == DEFAULT_REGISTRY { HUB_API } else { &self.host };
        let root = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|_| Error::usage(format!("{host:?} is not a host")))
        };
        let secure = root("https")?;
        let _only_one = self.finding_api.lock().unwrap_or_else(PoisonError::into_inner);
        let may_be_plain = self.access.insecure.is_allowed() || is_loopback(secure.host_str().unwrap_or_default());
        let found = match may_be_plain && self.api.get().is_none() && !self.speaks_tls(&secure) {
            true => root("http")?,
            false => secure,
        };
        Ok(self.api.get_or_init(|| found))
    }

    /// Whether something at `root` speaks TLS, trusted or not.
    fn speaks_tls(&self, root: &Url) -> bool {
        let call = Call::new(Method::GET, root.clone());
        match self.http.send(&call, &mut Payload::Nothing, To::Probe) {
            // Most likely that its certificate is not trusted, as nobody's is here: a handshake took place.
            Ok(_) | Err(Fault::Lasting(_)) => true,
            Err(Fault::NotTls | Fault::NoTunnel(_) | Fault::Broken(_) | Fault::Unreachable(_)) => false,
        }
    }

    /// Sends `call`, and again while that may help and there are tries left. `shown` is an `Authorization` and the
    /// only origin that may see it.
    pub(crate) fn persist(
        &self,
        what: &str,
        call: &Call,
        payload: &mut Payload<'_>,
        shown: Option<(&Origin, &str)>,
    ) -> Result<Answer> {
        let mut tries = self.tries(0);
        let replayable = !matches!(payload, Payload::Stream { .. });
        loop {
            self.cancel.check()?;
            let (why, wish) = match self.follow(call, payload, shown) {
                Ok(answer)
                    if retry::is_passing(answer.status)
                        && tries.left()
                        && replayable
                        && !self.is_long_wait(&answer) =>
                {
                    let told = (format!("status {}", answer.status), answer.retry_after());
                    answer.drain();
                    told
                }
                Ok(answer) => return Ok(answer),
                Err(Fault::Broken(why)) if tries.left() && replayable => (why, None),
                Err(Fault::Unreachable(why)) if tries.left_for_unreachable() && replayable => (why, None),
                Err(Fault::Broken(why) | Fault::Unreachable(why)) => {
                    self.cancel.check()?;
                    return Err(tries.give_up(&self.about(what, &call.url), &why));
                }
                Err(fault) => return Err(self.lasting(fault)),
            };
            tries.wait(&self.about(what, &call.url), &why, wish)?;
        }
    }

    /// Whether the server asks for a longer pause than anybody here waits for an answer.
    fn is_long_wait(&self, answer: &Answer) -> bool {
        let wish = answer.retry_after();
        self.access.response_timeout.is_some_and(|patience| wish.is_some_and(|wish| wish > patience))
    }

    /// Asks for something that may be at another host. Where that host answers with one of `refusals`, the address that
    /// the registry gave may have expired: the registry is asked for another one.
    pub fn get(&self, call: &Call, scope: &Scope, what: &str, refusals: &[u16]) -> Result<Answer> {
        let mut tries = self.tries(0);
        loop {
            let answer = self.send(call, Payload::Nothing, scope, what)?;
            let refused = refusals.contains(&answer.status) && self.is_elsewhere(&answer);
            if !refused || tries.made() == MAX_ADDRESSES {
                return Ok(answer);
            }
            let from = answer.url.host_str().unwrap_or_default();
            let why = format!("{from}, to which {} redirects, refused it with status {}", self.host, answer.status);
            answer.drain();
            tries.wait(what, &why, None)?;
        }
    }

    /// A small document: the whole body of an answer of status 200, read within the same tries.
    pub fn document(&self, call: &Call, scope: &Scope, what: &str, limit: u64) -> Result<(Answer, Vec<u8>)> {
        let mut tries = self.tries(0);
        loop {
            // 404 is an answer: some registries redirect all reading to another one.
            let answer = self.get(call, scope, what, &[400, 401, 403, 410])?;
            let mut answer = self.expect(answer, &[200], scope, what)?;
            match answer.bytes(limit, what) {
                Ok(bytes) => return Ok((answer, bytes)),
                Err(error) if error.kind() == Kind::Network && tries.left() && !self.cancel.raised() => {
                    tries.wait(what, &error.to_string(), None)?;
                }
                Err(error) => {
                    self.cancel.check()?;
                    return Err(self.told(error));
                }
            }
        }
    }

    /// The tries of one request, of which `made` have failed.
    pub fn tries(&self, made: u32) -> RetryPolicy<'_> {
        RetryPolicy::new(&self.access, &*self.watch, &self.cancel, made)
    }

    /// One request and the redirects that it leads to.
    fn follow(
        &self,
        call: &Call,
        payload: &mut Payload<'_>,
        shown: Option<(&Origin, &str)>,
    ) -> std::result::Result<Answer, Fault> {
        let home = self.api().map_err(Fault::Lasting)?.origin();
        let mut call = call.clone();
        for _ in 0..=MAX_REDIRECTS {
            call.headers.remove(header::AUTHORIZATION);
            if let Some((origin, value)) = shown
                && call.url.origin() == *origin
                && let Ok(value) = HeaderValue::from_str(value)
            {
                call.headers.insert(header::AUTHORIZATION, value);
            }
            let to = if call.url.origin() == home { To::Registry } else { To::Other };
            for (name, value) in &self.access.headers {
                call.headers.remove(*name);
                if let (To::Registry, Ok(value)) = (to, HeaderValue::from_str(value)) {
                    call.headers.insert(*name, value);
                }
            }
            let asked = Instant::now();
            let answer = self.http.send(&call, payload, to)?;
            if matches!(payload, Payload::Nothing) {
                self.pace.answered(asked.elapsed());
            }
            if answer.status == 429 {
                self.pace.asked_for_patience();
            }
            let Some(next) = self.redirect(&call, payload, &answer).map_err(Fault::Lasting)? else {
                return Ok(answer);
            };
            answer.drain();
            call.url = next;
        }
        Err(Fault::Lasting(Error::failed(format!("{} redirects in a circle", self.host))))
    }

    /// Where `answer` sends us, if it does and we go.
    fn redirect(&self, call: &Call, payload: &Payload<'_>, answer: &Answer) -> Result<Option<Url>> {
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = answer.header("location") else {
            return Ok(None);
        };
        let next = self.location(&call.url, location)?;
        let reads = matches!(call.method, Method::GET | Method::HEAD);
        let same_again = matches!(answer.status, 307 | 308)
            && next.origin() == call.url.origin()
            && !matches!(payload, Payload::Stream { .. });
        if reads || same_again {
            return Ok(Some(next));
        }
        let to = next.host_str().unwrap_or_default();
        Err(Error::failed(format!("{} sends a {} on to {to}, which is not followed", self.host, call.method)))
    }

    /// The address that a `Location` or `Link` from `base` means, if it is one that may be asked.
    pub fn location(&self, base: &Url, text: &str) -> Result<Url> {
        let wrong =
            |why: &str| Error::invalid(format!("{} sends us to an address that is not asked: {why}", self.host));
        let next = base.join(text).map_err(|_| wrong("it is not a URL"))?;
        if !next.username().is_empty() || next.password().is_some() {
            return Err(wrong("it has credentials in it"));
        }
        let by_user = self.access.insecure == Insecure::ByUser;
        let may_be_plain = || by_user || is_loopback(next.host_str().unwrap_or_default());
        match (base.scheme(), next.scheme()) {
            (_, "https") => Ok(next),
            ("https", "http") => Err(wrong(
                "it leads from https to http; if a proxy stands before the registry, it has to send X-Forwarded-Proto",
            )),
            (_, "http") if next.origin() == base.origin() || may_be_plain() => Ok(next),
            (_, "http") => Err(wrong("it is plain HTTP on another host")),
            _ => Err(wrong("it is no web address")),
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `what`, and whose it is.
    fn about(&self, what: &str, url: &Url) -> String {
        let asked = url.host_str().unwrap_or_default();
        if self.host.starts_with(asked) || self.host == DEFAULT_REGISTRY {
            format!("{what} at {}", self.host)
        } else {
            format!("{what} at {asked}")
        }
    }

    /// Whether `answer` is not the registry's own: a redirect led to another host.
    pub fn is_elsewhere(&self, answer: &Answer) -> bool {
        self.api().is_ok_and(|api| api.origin() != answer.url.origin())
    }

    /// What `fault` means when another try makes no sense.
    pub(crate) fn lasting(&self, fault: Fault) -> Error {
        if self.cancel.raised() {
            return Error::interrupted();
        }
        match fault {
            Fault::Lasting(error) | Fault::NoTunnel(error) => self.told(error),
            Fault::Broken(why) | Fault::Unreachable(why) => Error::network(format!("{}: {why}", self.host)),
            Fault::NotTls => Error::network(match self.http.proxy() {
                Some(proxy) => format!(
                    "the answer for {} through the proxy {proxy} is not TLS; it may be a login page of the proxy",
                    self.host
                ),
                None => format!(
                    "{} does not speak TLS; if it is meant to be plain HTTP, say so with --src-insecure or --dst-insecure",
                    self.host
                ),
            }),
        }
    }

    /// An error with the registry's name in it.
    pub(crate) fn told(&self, error: Error) -> Error {
        if error.to_string().contains(&self.host) { error } else { error.at(&self.host) }
    }

    /// `answer` when its status is among `wanted` and it is not a web page, else the sentence for it. Never shows a
    /// secret, whatever the registry quotes.
    pub fn expect(&self, answer: Answer, wanted: &[u16], scope: &Scope, what: &str) -> Result<Answer> {
        let is_page = answer.status < 300 && web_page::is_page(&answer);
        if wanted.contains(&answer.status) && !is_page {
            return Ok(answer);
        }
        if is_page {
            return Err(web_page::refused(&self.host, &answer, what));
        }
        let found = self.known().shown(scope.repository()).cloned().unwrap_or_default();
        let subject = Subject {
            host: &self.host,
            elsewhere: self.is_elsewhere(&answer),
            repository: scope.repository(),
            what,
            verb: scope.verb(),
            credentials: &found.note,
            logged_in: found.login.is_some(),
        };
        let proxy = answer.refusing_proxy().cloned();
        let error = error_body::refusal(&subject, answer);
        let told = proxy.map_or_else(
            || error.to_string(),
            |proxy| format!("{error} (the proxy {proxy} passed this on, or refuses it itself)"),
        );
        Err(Error::new(error.kind(), state::scrub(&told, found.login.as_ref())))
    }
}
