//! Plain HTTP through an HTTP proxy. The request names the complete URL (the absolute form of RFC 9112, section 3.2.2)
//! and carries the proxy's credentials. Many proxies allow CONNECT to port 443 only, so this is not a tunnel.

use crate::transport::registry::http::proxy::Proxy;
use ureq::Error;
use ureq::http::Uri;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

/// A connection to a proxy that rewrites each request target from a path to a URL.
pub struct AbsoluteForm {
    connection: Box<dyn Transport>,
    /// `http://HOST[:PORT]`, inserted before the path.
    origin: String,
    /// Header lines for the proxy only.
    headers: String,
    /// The next byte sent is the first of a request.
    at_start: bool,
}

impl std::fmt::Debug for AbsoluteForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} over {:?}", self.origin, self.connection)
    }
}

impl AbsoluteForm {
    pub fn new(connection: Box<dyn Transport>, proxy: &Proxy, target: &Uri) -> AbsoluteForm {
        let origin = format!("http://{}", target.authority().map_or("", |authority| authority.as_str()));
        let headers =
            proxy.authorization().map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        AbsoluteForm { connection, origin, headers, at_start: true }
    }

    fn send(&mut self, mut bytes: &[u8], timeout: NextTimeout) -> Result<(), Error> {
        while !bytes.is_empty() {
            let output = self.connection.buffers().output();
            let n = output.len().min(bytes.len());
            output[..n].copy_from_slice(&bytes[..n]);
            self.connection.transmit_output(n, timeout)?;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

/// Rewrites the start of a request, which contains its complete first line. Returns anything else unchanged.
fn rewrite_head(head: &[u8], origin: &str, headers: &str) -> Vec<u8> {
    let path = head.iter().position(|byte| *byte == b' ').map(|at| at + 1);
    let rest = head.windows(2).position(|two| two == b"\r\n").map(|at| at + 2);
    let (Some(path), Some(rest)) = (path, rest) else { return head.to_vec() };
    if path > rest {
        return head.to_vec();
    }
    [&head[..path], origin.as_bytes(), &head[path..rest], headers.as_bytes(), &head[rest..]].concat()
}

impl Transport for AbsoluteForm {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !std::mem::take(&mut self.at_start) {
            return self.connection.transmit_output(amount, timeout);
        }
        let head = rewrite_head(&self.connection.buffers().output()[..amount], &self.origin, &self.headers);
        self.send(&head, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // ureq does not read while it sends, so the next byte sent starts a request.
        self.at_start = true;
        self.connection.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.connection.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_whole_url_and_the_proxys_headers_follow_it() {
        let cases = [
            (
                "GET /v2/a?b=c HTTP/1.1\r\nHost: r.lan\r\n\r\nbody / x",
                "GET http://r.lan/v2/a?b=c HTTP/1.1\r\nP: q\r\nHost: r.lan\r\n\r\nbody / x",
            ),
            ("no line", "no line"),
            ("odd\r\na b", "odd\r\na b"),
        ];
        for (head, expected) in cases {
            assert_eq!(rewrite_head(head.as_bytes(), "http://r.lan", "P: q\r\n"), expected.as_bytes());
        }
    }
}
