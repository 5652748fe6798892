//! One HTTP request and its response: connections and time-outs. `client.rs` adds redirects, retries and credentials.

mod body_reader;
pub(super) mod client;
pub(super) mod connect;
pub(super) mod error_body;
pub(super) mod proxy;
pub(super) mod pull_limit;
pub(super) mod retry;
pub(super) mod throttle;
pub(super) mod tls;
pub(super) mod transport_error;
pub(super) mod web_page;
pub(super) mod window;

use super::auth::token::TokenUse;
use super::options::Access;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::rate_limit::{Limit, Limited};
use body_reader::BodyReader;
use connect::{RegistryConnector, StallRules, early};
use proxy::{Proxies, Proxy, ProxyKind};
use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use transport_error::TransportError;
use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderValue, Method, Request, header};
use ureq::{Agent, Body, SendBody};
use url::Url;

/// The limit on the rest of a response that is read so that its connection can be reused.
const MAX_DRAINED_BYTES: u64 = 64 << 10;
const MAX_IDLE_CONNECTIONS: usize = 32;
/// Shorter than the idle time of docker-registry and of most proxies.
const MAX_IDLE_AGE: Duration = Duration::from_secs(20);

/// The body of a request.
pub enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// Read once, so the request cannot be retried. `size` is in bytes, if known.
    Stream {
        bytes: &'a mut dyn Read,
        size: Option<u64>,
    },
}

/// The limit on the wait for a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseWait {
    Normal,
    /// The registry first verifies and stores the request's body.
    Storing,
}

/// One request, without its payload.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub wait: ResponseWait,
    pub token: TokenUse,
}

impl Call {
    pub fn new(method: Method, url: Url) -> Call {
        Call { method, url, headers: HeaderMap::new(), wait: ResponseWait::Normal, token: TokenUse::Shared }
    }

    pub fn with(mut self, name: header::HeaderName, value: &str) -> Call {
        // Values consist of checked parts. An invalid value is omitted, and the server reports the missing header.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Uses a token of this request alone, after a shared token was refused.
    pub fn with_own_token(mut self) -> Call {
        self.token = TokenUse::Own;
        self
    }

    pub fn storing(mut self) -> Call {
        self.wait = ResponseWait::Storing;
        self
    }
}

/// The connections to one registry and to the hosts that it redirects to.
pub struct Http {
    access: Access,
    /// `HOST[:PORT]` as the user wrote it, for `certs.d`.
    host: String,
    proxies: Proxies,
    agents: Arc<Mutex<HashMap<AgentKey, Agent>>>,
}

/// The settings that select an agent.
#[derive(Clone, PartialEq, Eq, Hash)]
struct AgentKey {
    tls: bool,
    to: HostKind,
    proxy: Option<Proxy>,
}

/// The kind of host that a connection leads to. It decides which certificates are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// The registry's own host.
    Registry,
    /// A token service or storage on another host.
    Other,
    /// A host that is only probed for TLS; no certificate is trusted.
    Probe,
}

impl Http {
    pub fn new(host: &str, access: Access, cancel: &Cancel) -> Http {
        let agents: Arc<Mutex<HashMap<AgentKey, Agent>>> = Arc::default();
        let running = Arc::downgrade(&agents);
        // Ends reads and writes that wait for a remote host.
        cancel.on_raise(move || {
            if let Some(agents) = running.upgrade() {
                let agents = agents.lock().unwrap_or_else(PoisonError::into_inner);
                agents.values().for_each(|agent| agent.clone().shutdown());
            }
        });
        Http { access, host: host.to_owned(), proxies: Proxies::from_environment(), agents }
    }

    /// Returns the proxy for https requests to this host.
    pub fn proxy(&self) -> Option<Proxy> {
        let url = Url::parse(&format!("https://{}/", self.host)).ok()?;
        self.proxies.for_url(&url).ok()?
    }

    /// Sends `call` and waits for the head of its response, of any status.
    pub fn send(
        &self,
        call: &Call,
        payload: &mut Payload<'_>,
        to: HostKind,
    ) -> std::result::Result<Response, TransportError> {
        let proxy = self.proxies.for_url(&call.url).map_err(TransportError::Permanent)?;
        let key = AgentKey { tls: call.url.scheme() == "https", to, proxy };
        let agent = self.agent(&key).map_err(TransportError::Permanent)?;
        let mut head = Request::builder().method(call.method.clone()).uri(call.url.as_str());
        if let Some(headers) = head.headers_mut() {
            headers.extend(call.headers.clone());
            if let Payload::Stream { size: Some(size), .. } = payload {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(*size));
            }
        }
        let sent = match payload {
            Payload::Nothing if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                // An empty body sends `Content-Length: 0`; some servers refuse a POST without a length.
                self.run(&agent, call, head.body(&[][..]))
            }
            Payload::Nothing => self.run(&agent, call, head.body(())),
            Payload::Bytes(bytes) => {
                if let Some(limit) = &self.access.rate_limit {
                    limit.wait_for(bytes.len()).map_err(TransportError::Permanent)?;
                }
                self.run(&agent, call, head.body(*bytes))
            }
            Payload::Stream { bytes, .. } => {
                let mut bytes = Limited::new(&mut **bytes, self.access.rate_limit.as_ref());
                self.run(&agent, call, head.body(SendBody::from_reader(&mut bytes)))
            }
        };
        let (head, body) = sent?.into_parts();
        if let (407, false, Some(proxy)) = (head.status.as_u16(), key.tls, &key.proxy) {
            let challenges = head.headers.get_all(header::PROXY_AUTHENTICATE).iter();
            let challenges = challenges.filter_map(|value| value.to_str().ok().map(str::to_owned));
            return Err(TransportError::Permanent(proxy.credentials_error(challenges)));
        }
        let (read_timeout, limit) = (4 * self.access.timeout, self.access.rate_limit.clone());
        // A proxy cannot respond inside a tunnel.
        let proxy = key.proxy.filter(|proxy| !key.tls && proxy.kind() != ProxyKind::Socks);
        let (status, url) = (head.status.as_u16(), call.url.clone());
        Ok(Response { status, url, proxy, headers: head.headers, body, read_timeout, limit })
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        agent: &Agent,
        call: &Call,
        request: std::result::Result<Request<B>, ureq::http::Error>,
    ) -> std::result::Result<ureq::http::Response<Body>, TransportError> {
        let host = call.url.host_str().unwrap_or_default();
        let request = request.map_err(|_| {
            TransportError::Permanent(Error::invalid(format!("a URL at {host} is not a valid request target")))
        })?;
        let sent = match call.wait {
            ResponseWait::Normal => agent.run(request),
            ResponseWait::Storing => {
                let long = 10 * self.access.timeout;
                let request = agent
                    .configure_request(request)
                    .timeout_per_read(Some(long))
                    .timeout_recv_response(Some(long))
                    .build();
                agent.run(request)
            }
        };
        early::into_response(sent).map_err(|error| transport_error::from_request(error, host, &self.access))
    }

    fn agent(&self, key: &AgentKey) -> Result<Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(key) {
            return Ok(agent.clone());
        }
        let agent = connect::agent(self.config(key), self.connector(key)?);
        agents.insert(key.clone(), agent.clone());
        Ok(agent)
    }

    fn config(&self, key: &AgentKey) -> Config {
        let wait = self.access.timeout;
        Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(key.proxy.as_ref().filter(|proxy| proxy.kind() == ProxyKind::Socks).map(Proxy::to_ureq))
            .user_agent(concat!("imgmv/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .input_buffer_size(self.access.buffer_bytes)
            .output_buffer_size(self.access.buffer_bytes)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .max_idle_age(MAX_IDLE_AGE)
            .timeout_resolve(Some(self.access.connect_timeout.unwrap_or(wait)))
            .timeout_connect(Some(self.access.connect_timeout.unwrap_or(wait)))
            .timeout_per_read(Some(wait))
            .timeout_per_write(Some(wait))
            .timeout_recv_response(Some(self.access.response_timeout.unwrap_or(4 * wait)))
            .build()
    }

    fn connector(&self, key: &AgentKey) -> Result<RegistryConnector> {
        let tls = || match key.to {
            HostKind::Registry => tls::for_registry(&self.access, &self.host),
            HostKind::Other => tls::for_other_hosts(&self.access),
            HostKind::Probe => tls::for_probe(),
        };
        let tls_to_proxy = key.proxy.as_ref().is_some_and(|proxy| proxy.kind() == ProxyKind::Https);
        Ok(RegistryConnector {
            tls: key.tls.then(tls).transpose()?,
            proxy_tls: tls_to_proxy.then(|| tls::for_other_hosts(&self.access)).transpose()?,
            proxy: key.proxy.clone(),
            rules: StallRules::new(self.access.timeout, self.access.rate_limit.as_deref()),
        })
    }
}

/// The head of a response, and its unread body.
pub struct Response {
    pub status: u16,
    /// The URL that was requested.
    pub url: Url,
    /// The proxy that forwarded or created it.
    proxy: Option<Proxy>,
    headers: HeaderMap,
    body: Body,
    read_timeout: Duration,
    limit: Option<Arc<Limit>>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.status, self.url.host_str().unwrap_or_default())
    }
}

impl Response {
    /// Returns a header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a header exists, text or not.
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Returns `Content-Length`, in bytes.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Returns the proxy that may have refused the request in place of the server.
    pub fn refusing_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| matches!(self.status, 403 | 502 | 503 | 504))
    }

    /// Returns the wait that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        retry::parse_retry_after(self.header("retry-after")?, SystemTime::now())
    }

    /// Streams the body. A body that is read to its end frees its connection for reuse.
    pub fn into_reader(self) -> impl Read + Send + 'static {
        Limited::new(self.body.into_with_config().limit(u64::MAX).reader(), self.limit.as_ref())
    }

    /// Streams the body, at most `limit` bytes. Each 4 MiB must arrive within four time-outs. The errors of the reader
    /// carry an [`Error`]; a longer body is `Invalid`.
    pub fn reader(&mut self, limit: u64, what: &str) -> Result<BodyReader<ureq::BodyReader<'_>>> {
        let length = self.length();
        let subject = format!("{what} from {}", self.url.host_str().unwrap_or_default());
        let body = self.body.with_config().limit(u64::MAX).reader();
        let reader = BodyReader::new(body, subject, limit, self.read_timeout, self.limit.as_ref());
        length.map_or(Ok(()), |length| reader.check_length(length))?;
        Ok(reader)
    }

    /// Reads the complete body within the limits of [`Response::reader`].
    pub fn bytes(&mut self, limit: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader(limit, what)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a short rest of the body, so that the connection can be reused.
    pub fn drain(self) {
        if self.length().is_none_or(|length| length <= MAX_DRAINED_BYTES) {
            let deadline = Instant::now() + self.read_timeout;
            let mut reader = self.into_reader().take(MAX_DRAINED_BYTES);
            let mut buffer = vec![0; 8 << 10];
            while matches!(reader.read(&mut buffer), Ok(n) if n > 0) && Instant::now() < deadline {}
        }
    }
}
