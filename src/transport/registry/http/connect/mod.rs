//! Connections of our own over ureq's transport layer: the way through a proxy (`tunnel`, `absolute`), TLS (`secure`,
//! `verifier`), which progress a connection owes (`steady`), and answers that come before the body was sent (`early`).
//!
//! ureq has no hook for a verifier of certificates, asks HTTP proxies for tunnels only, and has time-outs that a single
//! byte restarts. Semver does not cover `ureq::unversioned`, so Cargo.toml pins the version that this is written against.

mod absolute_form;
pub mod early;
mod socks;
mod stall_guard;
mod tls_transport;
mod trailers;
mod tunnel;
pub mod verifier;

use super::proxy::{Proxy, ProxyKind};
use super::transport_error;
use super::transport_error::TransportError;
use early::EarlyResponses;
use rustls::ClientConfig;
use stall_guard::StallGuard;
use std::sync::Arc;
use std::time::Instant;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};
use ureq::{Agent, Error};

pub use stall_guard::StallRules;

/// How a connection is made, from the socket up.
#[derive(Debug)]
pub struct RegistryConnector {
    pub proxy: Option<Proxy>,
    /// For an `https` URL.
    pub tls: Option<Arc<ClientConfig>>,
    /// For a proxy that speaks TLS itself.
    pub proxy_tls: Option<Arc<ClientConfig>>,
    pub rules: StallRules,
}

/// An agent whose connections are all made by `line`. `config` names no proxy but that of `line`, if it speaks SOCKS.
pub fn agent(config: Config, line: RegistryConnector) -> Agent {
    match line.proxy.clone().filter(|proxy| proxy.kind() != ProxyKind::Socks) {
        Some(proxy) => Agent::with_parts(config, line, ProxyResolver { proxy, usual: DefaultResolver::default() }),
        None => Agent::with_parts(config, line, DefaultResolver::default()),
    }
}

impl Connector<()> for RegistryConnector {
    type Out = EarlyResponses<StallGuard>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<EarlyResponses<StallGuard>>, Error> {
        let deadline = ConnectDeadline::new(details);
        let mut line = self.connect_host(details)?;
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.kind() != ProxyKind::Socks) {
            if let (ProxyKind::Https, Some(tls)) = (proxy.kind(), &self.proxy_tls) {
                let wrapped = tls_transport::wrap(line, proxy.host(), tls, details.config, &deadline);
                line = wrapped.map_err(|error| transport_error::from_proxy(error, proxy))?;
            }
            line = match details.needs_tls() {
                true => tunnel::open(line, proxy, details.uri, &deadline)?,
                false => Box::new(absolute_form::AbsoluteForm::new(line, proxy, details.uri)),
            };
        }
        if let (true, Some(tls)) = (details.needs_tls(), &self.tls) {
            line = tls_transport::wrap(line, details.uri.host().unwrap_or_default(), tls, details.config, &deadline)?;
        }
        Ok(Some(EarlyResponses::new(StallGuard::new(line, self.rules))))
    }
}

impl RegistryConnector {
    /// A connection to the host itself, to its HTTP proxy (see [`ToProxy`]), or to the host through a SOCKS proxy.
    fn connect_host(&self, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        let Some(proxy) = &self.proxy else {
            let connected = TcpConnector::default().connect(details, None::<()>)?;
            return connected.map(boxed).ok_or(Error::ConnectionFailed);
        };
        if proxy.kind() == ProxyKind::Socks {
            return socks::connect(proxy, details);
        }
        let connected = TcpConnector::default().connect(details, None::<()>);
        let connected = connected.map_err(|error| transport_error::from_proxy(error, proxy))?;
        connected.map(boxed).ok_or(Error::ConnectionFailed)
    }
}

fn boxed(transport: impl Transport) -> Box<dyn Transport> {
    Box::new(transport)
}

/// Looks up the proxy in place of every host: the proxy looks those up itself.
#[derive(Debug)]
struct ProxyResolver {
    proxy: Proxy,
    usual: DefaultResolver,
}

impl Resolver for ProxyResolver {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let looked_up = self.usual.resolve(self.proxy.address(), config, timeout);
        looked_up.map_err(|error| transport_error::from_proxy(error, &self.proxy).into())
    }
}

/// What is left of the time in which a connection has to be made.
pub struct ConnectDeadline {
    started: Instant,
    total: NextTimeout,
    current_time: Arc<dyn Fn() -> ureq::unversioned::transport::time::Instant + Send + Sync>,
}

impl ConnectDeadline {
    fn new(details: &ConnectionDetails<'_>) -> ConnectDeadline {
        ConnectDeadline { started: Instant::now(), total: details.timeout, current_time: details.current_time.clone() }
    }

    fn left(&self) -> NextTimeout {
        let mut left = self.total;
        if !left.after.is_not_happening() {
            left.after = left.after.saturating_sub(self.started.elapsed()).into();
        }
        left
    }
}

impl From<TransportError> for Error {
    fn from(fault: TransportError) -> Error {
        Error::Other(Box::new(fault))
    }
}
