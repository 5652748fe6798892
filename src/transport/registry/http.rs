//! One HTTP request and its answer: connections and their time-outs, nothing of what a registry is. Redirects, retries
//! and credentials are `wire.rs`'s.

use super::access::Access;
use super::early;
use super::fault::{self, Fault, of_body};
use super::proxy::{self, Proxies};
use super::retry;
use super::tls;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::limit::{Limit, Limited};
use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
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
}

impl Call {
    pub fn new(method: Method, url: Url) -> Call {
        Call { method, url, headers: HeaderMap::new(), patience: Patience::Usual }
    }

    pub fn with(mut self, name: header::HeaderName, value: &str) -> Call {
        // Values are made here of checked parts; one that is not fit for a header is left out and the server says so.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
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
    proxy: Option<String>,
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

    /// Sends `call` and waits for the head of its answer, whatever its status.
    pub fn send(&self, call: &Call, payload: &mut Payload<'_>, to: To) -> std::result::Result<Answer, Fault> {
        let agent = self.agent(&call.url, to).map_err(Fault::Lasting)?;
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
                if let Some(limit) = &self.access.limit {
                    limit.pass(bytes.len()).map_err(Fault::Lasting)?;
                }
                self.run(&agent, call, head.body(*bytes))
            }
            Payload::Stream { bytes, .. } => {
                let mut bytes = Limited::new(&mut **bytes, self.access.limit.as_ref());
                self.run(&agent, call, head.body(SendBody::from_reader(&mut bytes)))
            }
        };
        let (head, body) = sent?.into_parts();
        let (patience, limit) = (4 * self.access.timeout, self.access.limit.clone());
        Ok(Answer { status: head.status.as_u16(), url: call.url.clone(), headers: head.headers, body, patience, limit })
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
        early::answered(sent).map_err(|error| fault::of_request(error, host, self.access.timeout))
    }

    fn agent(&self, url: &Url, to: To) -> Result<Agent> {
        let proxy = self.proxies.of(url);
        let route = Route { tls: url.scheme() == "https", to, proxy: proxy.map(str::to_owned) };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&route) {
            return Ok(agent.clone());
        }
        let wait = self.access.timeout;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy.map(proxy::parse).transpose()?)
            .user_agent(concat!("imgmv/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .input_buffer_size(self.access.buffer)
            .output_buffer_size(self.access.buffer)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            .timeout_resolve(Some(self.access.connect.unwrap_or(wait)))
            .timeout_connect(Some(self.access.connect.unwrap_or(wait)))
            .timeout_per_read(Some(wait))
            .timeout_per_write(Some(wait))
            .timeout_recv_response(Some(self.access.answer.unwrap_or(4 * wait)));
        if route.tls {
            config = config.tls_config(match to {
                To::Registry => tls::of_registry(&self.access, &self.host)?,
                To::Other => tls::of_others(&self.access)?,
                To::Probe => tls::of_a_probe(),
            });
        }
        let connector = DefaultConnector::default().chain(early::Reading);
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        agents.insert(route, agent.clone());
        Ok(agent)
    }
}

/// The head of an answer, its body still to be read.
pub struct Answer {
    pub status: u16,
    /// Where it came from.
    pub url: Url,
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

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// `Content-Length`, in bytes.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
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
        let own = self.limit.as_ref().map_or(Duration::ZERO, |own| own.time_of(limit));
        let until = Instant::now() + self.patience + own;
        let mut reader = self.body.with_config().limit(u64::MAX).reader();
        let mut reader = Limited::new(&mut reader, self.limit.as_ref());
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
        loop {
            let n = reader.read(&mut buffer).map_err(|e| match of_body(e) {
                Fault::Lasting(error) => error,
                Fault::Broken(why) | Fault::Unreachable(why) => Error::network(format!("{what} from {host}: {why}")),
                Fault::NotTls => Error::network(format!("{what} from {host}: it does not speak TLS")),
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
