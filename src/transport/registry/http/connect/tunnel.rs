//! A tunnel through an HTTP proxy (CONNECT: RFC 9110, section 9.3.6).

use super::deadline::ConnectDeadline;
use crate::error::Error;
use crate::transport::registry::http::proxy::Proxy;
use crate::transport::registry::http::transport_error;
use crate::transport::registry::http::transport_error::TransportError;
use std::io::{self, Read, Write};
use ureq::http::Uri;
use ureq::unversioned::transport::{Transport, TransportAdapter};

/// The limit on the head of a proxy's response.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Asks `proxy`, to which `connection` leads, for a tunnel to the host of `target`.
pub fn open(
    connection: Box<dyn Transport>,
    proxy: &Proxy,
    target: &Uri,
    deadline: &ConnectDeadline,
) -> Result<Box<dyn Transport>, ureq::Error> {
    let host = target.host().unwrap_or_default();
    let to = format!("{host}:{}", target.port_u16().unwrap_or(443));
    let mut adapter = TransportAdapter::new(connection, deadline.current_time.clone());
    adapter.set_timeout(deadline.remaining());
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    request += concat!("User-Agent: imgmv/", env!("CARGO_PKG_VERSION"), "\r\n");
    if let Some(value) = proxy.authorization() {
        request += &format!("Proxy-Authorization: {value}\r\n");
    }
    request += "\r\n";
    let failed = |error: io::Error| ureq::Error::from(transport_error::from_proxy(error.into(), proxy));
    adapter.write_all(request.as_bytes()).map_err(failed)?;
    let head = read_head(&mut adapter).map_err(failed)?;
    match error(&head, proxy, host) {
        None => Ok(adapter.into_inner()),
        Some(fault) => Err(fault.into()),
    }
}

/// Reads a response's head and not a byte more: the next byte comes from the host.
fn read_head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES || from.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(head)
}

/// The error of a proxy that has not opened a tunnel; `None` if it has.
fn error(head: &[u8], proxy: &Proxy, host: &str) -> Option<TransportError> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let status = match (words.next().is_some_and(|word| word.starts_with("HTTP/")), words.next()) {
        (true, Some(status)) => status.parse().unwrap_or(0),
        _ => 0_u16,
    };
    let challenge = |line: &'_ str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authenticate").then(|| value.trim().to_owned())
    };
    match status {
        200..=299 => None,
        0 => Some(TransportError::Permanent(Error::network(format!("the proxy {proxy} does not speak HTTP")))),
        407 => Some(TransportError::Permanent(proxy.credentials_error(lines.filter_map(challenge)))),
        408 | 429 | 500..=599 => {
            Some(TransportError::Transient(format!("the proxy {proxy} cannot reach {host} (status {status})")))
        }
        _ => Some(TransportError::TunnelRefused(Error::network(format!(
            "the proxy {proxy} refused a tunnel to {host} (status {status}); allow {host} in the proxy, or add \
             {host} to NO_PROXY"
        )))),
    }
}
