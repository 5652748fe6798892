//! One HTTP request and its answer: connections and their time-outs, nothing of what a registry is. Redirects, retries
//! and credentials are `client.rs`'s.

pub(super) mod client;
pub(super) mod connect;
pub(super) mod error_body;
pub(super) mod proxy;
pub(super) mod retry;
pub(super) mod throttle;
pub(super) mod tls;
pub(super) mod transport_error;
pub(super) mod web_page;

use super::auth::state::Use;
use super::options::Access;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::rate_limit::{Limit, Limited};
use connect::{Line, Rules, early};
use proxy::{Kind, Proxies, Proxy};
use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use transport_error::{Fault, of_body};
use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderValue, Method, Request, header};
use ureq::{Agent, Body, SendBody};
use url::Url;

/// In bytes; what is left of an answer is read up to here, so that its connection can be used again.
const DRAINED: u64 = 64 << 10;
const IDLE_CONNECTIONS: usize = 32;
/// docker-registry and most proxies keep an idle connection longer than this.
const IDLE_AGE: Duration = Duration::from_secs(20);

/// What a request carries.
pub enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// Passes once: such a request cannot be tried again. `size` in bytes where known.
    Stream {
        bytes: &'a mut dyn Read,
        size: Option<u64>,
    },
}

/// How long the answer may take to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Usual,
    /// The registry checks and stores what it was sent.
    Storing,
}

/// One request, without its payload.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub patience: Patience,
    pub token: Use,
}

impl Call {
    pub fn new(method: Method, url: Url) -> Call {
        Call { method, url, headers: HeaderMap::new(), patience: Patience::Usual, token: Use::Shared }
    }

    pub fn with(mut self, name: header::HeaderName, value: &str) -> Call {
        // Values are made here of checked parts; one that is not fit for a header is left out and the server says so.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Shows a token that no other request has shown: one that was shared was refused.
    pub fn with_own_token(mut self) -> Call {
        self.token = Use::Own;
        self
    }

    pub fn storing(mut self) -> Call {
        self.patience = Patience::Storing;
        self
    }
}

/// The connections of one registry and of the hosts it sends us to.
pub struct Http {
    access: Access,
    /// `HOST[:PORT]` as the user wrote it, for `certs.d`.
    host: String,
    proxies: Proxies,
    agents: Arc<Mutex<HashMap<Route, Agent>>>,
}

/// Connections that may share settings.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Route {
    tls: bool,
    to: To,
    proxy: Option<Proxy>,
}

/// Whom a connection is to, which decides whom it trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum To {
    /// The registry's own host.
    Registry,
    /// A token service or a storage elsewhere.
    Other,
    /// Whoever is there, only to learn whether it speaks TLS. Nobody is trusted.
    Probe,
}

impl Http {
    pub fn new(host: &str, access: Access, cancel: &Cancel) -> Http {
        let agents: Arc<Mutex<HashMap<Route, Agent>>> = Arc::default();
        let running = Arc::downgrade(&agents);
        // Ends reads and writes that wait on a far side.
        cancel.on_raise(move || {
            if let Some(agents) = running.upgrade() {
                let agents = agents.lock().unwrap_or_else(PoisonError::into_inner);
                agents.values().for_each(|agent| agent.clone().shutdown());
            }
        });
        Http { access, host: host.to_owned(), proxies: Proxies::from_environment(), agents }
    }

    /// The proxy to this host over TLS.
    pub fn proxy(&self) -> Option<Proxy> {
        let url = Url::parse(&format!("https://{}/", self.host)).ok()?;
        self.proxies.of(&url).ok()?
    }

    /// Sends `call` and waits for the head of its answer, whatever its status.
    pub fn send(&self, call: &Call, payload: &mut Payload<'_>, to: To) -> std::result::Result<Answer, Fault> {
        let proxy = self.proxies.of(&call.url).map_err(Fault::Lasting)?;
        let route = Route { tls: call.url.scheme() == "https", to, proxy };
        let agent = self.agent(&route).map_err(Fault::Lasting)?;
        let mut head = Request::builder().method(call.method.clone()).uri(call.url.as_str());
        if let Some(headers) = head.headers_mut() {
            headers.extend(call.headers.clone());
            if let Payload::Stream { size: Some(size), .. } = payload {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(*size));
            }
        }
        let sent = match payload {
            Payload::Nothing if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                // An empty body, said so: some servers refuse a POST without a length.
                self.run(&agent, call, head.body(&[][..]))
            }
            Payload::Nothing => self.run(&agent, call, head.body(())),
            Payload::Bytes(bytes) => {
                if let Some(limit) = &self.access.rate_limit {
                    limit.wait_for(bytes.len()).map_err(Fault::Lasting)?;
                }
                self.run(&agent, call, head.body(*bytes))
            }
            Payload::Stream { bytes, .. } => {
                let mut bytes = Limited::new(&mut **bytes, self.access.rate_limit.as_ref());
                self.run(&agent, call, head.body(SendBody::from_reader(&mut bytes)))
            }
        };
        let (head, body) = sent?.into_parts();
        if let (407, false, Some(proxy)) = (head.status.as_u16(), route.tls, &route.proxy) {
            let challenges = head.headers.get_all(header::PROXY_AUTHENTICATE).iter();
            let challenges = challenges.filter_map(|value| value.to_str().ok().map(str::to_owned));
            return Err(Fault::Lasting(proxy.wants_credentials(challenges)));
        }
        let (patience, limit) = (4 * self.access.timeout, self.access.rate_limit.clone());
        // A tunnel's inside is not the proxy's to answer in.
        let proxy = route.proxy.filter(|proxy| !route.tls && proxy.kind() != Kind::Socks);
        let (status, url) = (head.status.as_u16(), call.url.clone());
        Ok(Answer { status, url, proxy, headers: head.headers, body, patience, limit })
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        agent: &Agent,
        call: &Call,
        request: std::result::Result<Request<B>, ureq::http::Error>,
    ) -> std::result::Result<ureq::http::Response<Body>, Fault> {
        let host = call.url.host_str().unwrap_or_default();
        let request = request
            .map_err(|_| Fault::Lasting(Error::invalid(format!("an address at {host} cannot be used in a request"))))?;
        let sent = match call.patience {
            Patience::Usual => agent.run(request),
            Patience::Storing => {
                let long = 10 * self.access.timeout;
                let request = agent
                    .configure_request(request)
                    .timeout_per_read(Some(long))
                    .timeout_recv_response(Some(long))
                    .build();
                agent.run(request)
            }
        };
        early::answered(sent).map_err(|error| transport_error::of_request(error, host, &self.access))
    }

    fn agent(&self, route: &Route) -> Result<Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(route) {
            return Ok(agent.clone());
        }
        let agent = connect::agent(self.config(route), self.line(route)?);
        agents.insert(route.clone(), agent.clone());
        Ok(agent)
    }

    fn config(&self, route: &Route) -> Config {
        let wait = self.access.timeout;
        Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(route.proxy.as_ref().filter(|proxy| proxy.kind() == Kind::Socks).map(Proxy::for_ureq))
            .user_agent(concat!("imgmv/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .input_buffer_size(self.access.buffer_bytes)
            .output_buffer_size(self.access.buffer_bytes)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            .timeout_resolve(Some(self.access.connect_timeout.unwrap_or(wait)))
            .timeout_connect(Some(self.access.connect_timeout.unwrap_or(wait)))
            .timeout_per_read(Some(wait))
            .timeout_per_write(Some(wait))
            .timeout_recv_response(Some(self.access.response_timeout.unwrap_or(4 * wait)))
            .build()
    }

    fn line(&self, route: &Route) -> Result<Line> {
        let tls = || match route.to {
            To::Registry => tls::of_registry(&self.access, &self.host),
            To::Other => tls::of_others(&self.access),
            To::Probe => tls::of_a_probe(),
        };
        let to_proxy = route.proxy.as_ref().is_some_and(|proxy| proxy.kind() == Kind::Https);
        Ok(Line {
            tls: route.tls.then(tls).transpose()?,
            proxy_tls: to_proxy.then(|| tls::of_others(&self.access)).transpose()?,
            proxy: route.proxy.clone(),
            rules: Rules::new(self.access.timeout, self.access.rate_limit.as_deref()),
        })
    }
}

/// The head of an answer, its body still to be read.
pub struct Answer {
    pub status: u16,
    /// Where it came from.
    pub url: Url,
    /// The proxy that passed it on, or made it.
    proxy: Option<Proxy>,
    headers: HeaderMap,
    body: Body,
    patience: Duration,
    limit: Option<Arc<Limit>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.status, self.url.host_str().unwrap_or_default())
    }
}

impl Answer {
    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether there is such a header, text or not.
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// `Content-Length`, in bytes.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// The proxy that may have refused what was asked, in place of the server.
    pub fn refusing_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| matches!(self.status, 403 | 502 | 503 | 504))
    }

    /// How long the server asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        retry::wish(self.header("retry-after")?, SystemTime::now())
    }

    /// The body as it comes. Read to its end, its connection can be used again.
    pub fn into_reader(self) -> impl Read + Send + 'static {
        Limited::new(self.body.into_with_config().limit(u64::MAX).reader(), self.limit.as_ref())
    }

    /// The whole body, at most `limit` bytes and within a few time-outs; longer ones are `Invalid`.
    pub fn bytes(&mut self, limit: u64, what: &str) -> Result<Vec<u8>> {
        let too_long = |host: &str| Error::invalid(format!("{what} from {host} has more than {limit} bytes"));
        let host = self.url.host_str().unwrap_or_default().to_owned();
        if self.length().is_some_and(|length| length > limit) {
            return Err(too_long(&host));
        }
        let own = self.limit.as_ref().map_or(Duration::ZERO, |own| own.duration_of(limit));
        let until = Instant::now() + self.patience + own;
        let mut reader = self.body.with_config().limit(u64::MAX).reader();
        let mut reader = Limited::new(&mut reader, self.limit.as_ref());
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
        loop {
            let n = reader.read(&mut buffer).map_err(|e| match of_body(e) {
                Fault::Lasting(error) => error,
                fault => Error::network(format!("{what} from {host}: {fault}")),
            })?;
            if n == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&buffer[..n]);
            if bytes.len() as u64 > limit {
                return Err(too_long(&host));
            }
            if Instant::now() > until {
                return Err(Error::network(format!("{what} from {host} comes too slowly")));
            }
        }
    }

    /// Reads what is left, if it is little, so that the connection can be used again.
    pub fn drain(self) {
        if self.length().is_none_or(|length| length <= DRAINED) {
            let until = Instant::now() + self.patience;
            let mut reader = self.into_reader().take(DRAINED);
            let mut buffer = vec![0; 8 << 10];
            while matches!(reader.read(&mut buffer), Ok(n) if n > 0) && Instant::now() < until {}
        }
    }
}
