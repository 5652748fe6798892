//! Connections through a SOCKS proxy, by ureq's own connector. Its errors become messages here.

use crate::error::Error;
use crate::transport::registry::http::proxy::Proxy;
use crate::transport::registry::http::transport_error;
use crate::transport::registry::http::transport_error::TransportError;
use std::io::ErrorKind;
use ureq::unversioned::transport::{ConnectionDetails, Connector, SocksConnector, Transport};

/// Connects to the host of `details` through `proxy`, which the configuration in `details` names too.
pub fn connect(proxy: &Proxy, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, ureq::Error> {
    let connected = SocksConnector::default().connect(details, None::<()>);
    let host = details.uri.host().unwrap_or_default();
    let connected = connected.map_err(|error| classify(error, proxy, host))?;
    connected.map(|transport| Box::new(transport) as Box<dyn Transport>).ok_or(ureq::Error::ConnectionFailed)
}

fn classify(error: ureq::Error, proxy: &Proxy, host: &str) -> TransportError {
    let ureq::Error::Io(io) = &error else { return transport_error::from_proxy(error, proxy) };
    let reason = io.to_string();
    match io.kind() {
        ErrorKind::PermissionDenied => TransportError::Permanent(proxy.credentials_error(std::iter::empty())),
        ErrorKind::Other if reason.contains("auth method") => {
            TransportError::Permanent(proxy.credentials_error(std::iter::empty()))
        }
        ErrorKind::InvalidData => {
            TransportError::Permanent(Error::network(format!("the proxy {proxy} does not speak SOCKS ({reason})")))
        }
        ErrorKind::InvalidInput => {
            TransportError::Permanent(Error::usage(format!("the proxy {proxy} cannot connect to {host}: {reason}")))
        }
        ErrorKind::Other if reason.contains("not allowed") => TransportError::TunnelRefused(Error::network(format!(
            "the proxy {proxy} refused a connection to {host} ({reason})"
        ))),
        ErrorKind::Other => TransportError::Transient(format!("the proxy {proxy} cannot reach {host} ({reason})")),
        _ => transport_error::from_proxy(error, proxy),
    }
}
