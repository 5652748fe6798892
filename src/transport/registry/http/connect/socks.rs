//! A way through a SOCKS proxy, which ureq knows; what it says of a failure becomes a sentence here.

use super::boxed;
use crate::error::Error;
use crate::transport::registry::http::proxy::Proxy;
use crate::transport::registry::http::transport_error;
use crate::transport::registry::http::transport_error::Fault;
use std::io::ErrorKind;
use ureq::unversioned::transport::{ConnectionDetails, Connector, SocksConnector, Transport};

/// A connection to the host of `details` through `proxy`, which its configuration names too.
pub fn reached(proxy: &Proxy, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, ureq::Error> {
    let reached = SocksConnector::default().connect(details, None::<()>);
    let host = details.uri.host().unwrap_or_default();
    let reached = reached.map_err(|error| of_socks(error, proxy, host))?;
    reached.map(boxed).ok_or(ureq::Error::ConnectionFailed)
}

fn of_socks(error: ureq::Error, proxy: &Proxy, host: &str) -> Fault {
    let ureq::Error::Io(io) = &error else { return transport_error::of_proxy(error, proxy) };
    let words = io.to_string();
    match io.kind() {
        ErrorKind::PermissionDenied => Fault::Lasting(proxy.wants_credentials(std::iter::empty())),
        ErrorKind::Other if words.contains("auth method") => {
            Fault::Lasting(proxy.wants_credentials(std::iter::empty()))
        }
        ErrorKind::InvalidData => {
            Fault::Lasting(Error::network(format!("the proxy {proxy} does not answer as a SOCKS proxy does ({words})")))
        }
        ErrorKind::InvalidInput => {
            Fault::Lasting(Error::usage(format!("the proxy {proxy} cannot be asked for {host}: {words}")))
        }
        ErrorKind::Other if words.contains("not allowed") => {
            Fault::NoTunnel(Error::network(format!("the proxy {proxy} refuses a connection to {host} ({words})")))
        }
        ErrorKind::Other => Fault::Broken(format!("the proxy {proxy} cannot reach {host} ({words})")),
        _ => transport_error::of_proxy(error, proxy),
    }
}
