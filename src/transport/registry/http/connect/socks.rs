//! A way through a SOCKS proxy, which ureq knows; what it says of a failure becomes a sentence here.

use super::boxed;
use crate::error::Error;
use crate::transport::registry::http::proxy::Proxy;
use crate::transport::registry::http::transport_error;
use crate::transport::registry::http::transport_error::TransportError;
use std::io::ErrorKind;
use ureq::unversioned::transport::{ConnectionDetails, Connector, SocksConnector, Transport};

/// A connection to the host of `details` through `proxy`, which its configuration names too.
pub fn connect(proxy: &Proxy, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, ureq::Error> {
    let connected = SocksConnector::default().connect(details, None::<()>);
    let host = details.uri.host().unwrap_or_default();
    let connected = connected.map_err(|error| classify(error, proxy, host))?;
    connected.map(boxed).ok_or(ureq::Error::ConnectionFailed)
}

fn classify(error: ureq::Error, proxy: &Proxy, host: &str) -> TransportError {
    let ureq::Error::Io(io) = &error else { return transport_error::from_proxy(error, proxy) };
    let words = io.to_string();
    match io.kind() {
        ErrorKind::PermissionDenied => TransportError::Permanent(proxy.credentials_error(std::iter::empty())),
        ErrorKind::Other if words.contains("auth method") => {
            TransportError::Permanent(proxy.credentials_error(std::iter::empty()))
        }
        ErrorKind::InvalidData => TransportError::Permanent(Error::network(format!(
            "the proxy {proxy} does not answer as a SOCKS proxy does ({words})"
        ))),
        ErrorKind::InvalidInput => {
            TransportError::Permanent(Error::usage(format!("the proxy {proxy} cannot be asked for {host}: {words}")))
        }
        ErrorKind::Other if words.contains("not allowed") => TransportError::TunnelRefused(Error::network(format!(
            "the proxy {proxy} refuses a connection to {host} ({words})"
        ))),
        ErrorKind::Other => TransportError::Transient(format!("the proxy {proxy} cannot reach {host} ({words})")),
        _ => transport_error::from_proxy(error, proxy),
    }
}
