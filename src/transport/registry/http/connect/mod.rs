//! Connections on ureq's transport layer: through a proxy (`tunnel`, `absolute_form`, `socks`), with TLS
//! (`tls_transport`, `verifier`), with a minimum progress (`stall_guard`), and with responses that precede the body's
//! end (`early`).
//!
//! ureq has no hook for a certificate verifier, and asks HTTP proxies for tunnels only. A single byte restarts its
//! time-outs. Semver does not cover `ureq::unversioned`, so Cargo.toml pins the version that this code is written for.

mod absolute_form;
mod deadline;
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
use deadline::ConnectDeadline;
use early::EarlyResponses;
use rustls::ClientConfig;
use stall_guard::StallGuard;
use std::sync::Arc;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};
use ureq::{Agent, Error};

pub use stall_guard::StallRules;

/// Opens connections, from the socket up.
#[derive(Debug)]
pub struct RegistryConnector {
    pub proxy: Option<Proxy>,
    /// TLS for an `https` URL.
    pub tls: Option<Arc<ClientConfig>>,
    /// TLS for a proxy that speaks TLS itself.
    pub proxy_tls: Option<Arc<ClientConfig>>,
    pub rules: StallRules,
}

/// An agent that opens every connection with `connector`. `config` names only a SOCKS proxy, the one of `connector`.
pub fn agent(config: Config, connector: RegistryConnector) -> Agent {
    match connector.proxy.clone().filter(|proxy| proxy.kind() != ProxyKind::Socks) {
        Some(proxy) => {
            Agent::with_parts(config, connector, ProxyResolver { proxy, resolver: DefaultResolver::default() })
        }
        None => Agent::with_parts(config, connector, DefaultResolver::default()),
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
        let mut connection = self.connect_host(details)?;
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.kind() != ProxyKind::Socks) {
            if let (ProxyKind::Https, Some(tls)) = (proxy.kind(), &self.proxy_tls) {
                let wrapped = tls_transport::wrap(connection, proxy.host(), tls, details.config, &deadline);
                connection = wrapped.map_err(|error| transport_error::from_proxy(error, proxy))?;
            }
            connection = match details.needs_tls() {
                true => tunnel::open(connection, proxy, details.uri, &deadline)?,
                false => Box::new(absolute_form::AbsoluteForm::new(connection, proxy, details.uri)),
            };
        }
        if let (true, Some(tls)) = (details.needs_tls(), &self.tls) {
            connection = tls_transport::wrap(
                connection,
                details.uri.host().unwrap_or_default(),
                tls,
                details.config,
                &deadline,
            )?;
        }
        Ok(Some(EarlyResponses::new(StallGuard::new(connection, self.rules))))
    }
}

impl RegistryConnector {
    /// Connects to the host, to its HTTP proxy (see [`ProxyResolver`]), or to the host through a SOCKS proxy.
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

/// Resolves the proxy's name in place of the host's, which the proxy resolves.
#[derive(Debug)]
struct ProxyResolver {
    proxy: Proxy,
    resolver: DefaultResolver,
}

impl Resolver for ProxyResolver {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let looked_up = self.resolver.resolve(self.proxy.uri(), config, timeout);
        looked_up.map_err(|error| transport_error::from_proxy(error, &self.proxy).into())
    }
}

impl From<TransportError> for Error {
    fn from(fault: TransportError) -> Error {
        Error::Other(Box::new(fault))
    }
}
