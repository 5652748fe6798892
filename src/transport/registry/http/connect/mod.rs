//! Connections of our own over ureq's transport layer: the way through a proxy (`tunnel`, `absolute`), TLS (`secure`,
//! `verifier`), which progress a connection owes (`steady`), and answers that come before the body was sent (`early`).
//!
//! ureq has no hook for a verifier of certificates, asks HTTP proxies for tunnels only, and has time-outs that a single
//! byte restarts. Semver does not cover `ureq::unversioned`, so Cargo.toml pins the version that this is written against.

mod absolute;
pub mod early;
mod secure;
mod socks;
mod steady;
mod trailers;
mod tunnel;
pub mod verifier;

use super::proxy::{Kind, Proxy};
use super::transport_error;
use super::transport_error::Fault;
use early::Early;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Instant;
use steady::Steady;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};
use ureq::{Agent, Error};

pub use steady::Rules;

/// How a connection is made, from the socket up.
#[derive(Debug)]
pub struct Line {
    pub proxy: Option<Proxy>,
    /// For an `https` URL.
    pub tls: Option<Arc<ClientConfig>>,
    /// For a proxy that speaks TLS itself.
    pub proxy_tls: Option<Arc<ClientConfig>>,
    pub rules: Rules,
}

/// An agent whose connections are all made by `line`. `config` names no proxy but that of `line`, if it speaks SOCKS.
pub fn agent(config: Config, line: Line) -> Agent {
    match line.proxy.clone().filter(|proxy| proxy.kind() != Kind::Socks) {
        Some(proxy) => Agent::with_parts(config, line, ToProxy { proxy, usual: DefaultResolver::default() }),
        None => Agent::with_parts(config, line, DefaultResolver::default()),
    }
}

impl Connector<()> for Line {
    type Out = Early<Steady>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Early<Steady>>, Error> {
        let clock = Clock::of(details);
        let mut line = self.reached(details)?;
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.kind() != Kind::Socks) {
            if let (Kind::Https, Some(tls)) = (proxy.kind(), &self.proxy_tls) {
                let wrapped = secure::wrap(line, proxy.host(), tls, details.config, &clock);
                line = wrapped.map_err(|error| transport_error::of_proxy(error, proxy))?;
            }
            line = match details.needs_tls() {
                true => tunnel::open(line, proxy, details.uri, &clock)?,
                false => Box::new(absolute::Absolute::new(line, proxy, details.uri)),
            };
        }
        if let (true, Some(tls)) = (details.needs_tls(), &self.tls) {
            line = secure::wrap(line, details.uri.host().unwrap_or_default(), tls, details.config, &clock)?;
        }
        Ok(Some(Early::new(Steady::new(line, self.rules))))
    }
}

impl Line {
    /// A connection to the host itself, to its HTTP proxy (see [`ToProxy`]), or to the host through a SOCKS proxy.
    fn reached(&self, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        let Some(proxy) = &self.proxy else {
            let reached = TcpConnector::default().connect(details, None::<()>)?;
            return reached.map(boxed).ok_or(Error::ConnectionFailed);
        };
        if proxy.kind() == Kind::Socks {
            return socks::reached(proxy, details);
        }
        let reached = TcpConnector::default().connect(details, None::<()>);
        let reached = reached.map_err(|error| transport_error::of_proxy(error, proxy))?;
        reached.map(boxed).ok_or(Error::ConnectionFailed)
    }
}

fn boxed(transport: impl Transport) -> Box<dyn Transport> {
    Box::new(transport)
}

/// Looks up the proxy in place of every host: the proxy looks those up itself.
#[derive(Debug)]
struct ToProxy {
    proxy: Proxy,
    usual: DefaultResolver,
}

impl Resolver for ToProxy {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let looked_up = self.usual.resolve(self.proxy.address(), config, timeout);
        looked_up.map_err(|error| transport_error::of_proxy(error, &self.proxy).into())
    }
}

/// What is left of the time in which a connection has to be made.
pub struct Clock {
    begun: Instant,
    whole: NextTimeout,
    current_time: Arc<dyn Fn() -> ureq::unversioned::transport::time::Instant + Send + Sync>,
}

impl Clock {
    fn of(details: &ConnectionDetails<'_>) -> Clock {
        Clock { begun: Instant::now(), whole: details.timeout, current_time: details.current_time.clone() }
    }

    fn left(&self) -> NextTimeout {
        let mut left = self.whole;
        if !left.after.is_not_happening() {
            left.after = left.after.saturating_sub(self.begun.elapsed()).into();
        }
        left
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Other(Box::new(fault))
    }
}
