//! Guards against requests from web pages. A page must not write. A loopback server accepts only loopback's own names,
//! against DNS rebinding (a foreign name that resolves to 127.0.0.1).

use crate::serve::http::errors::{ApiError, ErrorCode};
use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode, Uri};
use std::net::{IpAddr, SocketAddr};

/// Names that virtual machines and containers use for their host.
const HOST_ALIASES: [&str; 6] = [
    "host.docker.internal",
    "gateway.docker.internal",
    "kubernetes.docker.internal",
    "host.containers.internal",
    "host.lima.internal",
    "host.rancher-desktop.internal",
];

/// The host names that a server responds to.
#[derive(Debug, Clone)]
pub struct BrowserGuard {
    loopback: bool,
    names: Vec<String>,
}

impl BrowserGuard {
    /// Creates the guard of a server that listens on `socket_address` and accepts the additional host names `names`.
    pub fn new(socket_address: SocketAddr, names: &[String]) -> BrowserGuard {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        BrowserGuard { loopback: socket_address.ip().is_loopback(), names }
    }

    /// Fails with 403 if a request may come from a foreign web page.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let refused = |why: &str| Err(ApiError::new(StatusCode::FORBIDDEN, ErrorCode::Denied, why));
        // Browsers add this header to every write of a page; registry clients never send it.
        if !reads && headers.contains_key(header::ORIGIN) {
            return refused("request refused: web pages must not write to this registry");
        }
        if !reads && headers.get("sec-fetch-site").is_some_and(|site| site != "none") {
            return refused("request refused: web pages must not write to this registry");
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        // A host in the request target takes precedence over the header (RFC 9112, section 3.2.2).
        let target_host = uri.authority().map_or(host, |authority| authority.as_str());
        if self.loopback && !(self.is_allowed(host) && self.is_allowed(target_host)) {
            return refused("host name refused: this server listens on loopback; allow the name with --allow-host");
        }
        Ok(())
    }

    fn is_allowed(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.is_empty()
            || name == "localhost"
            || name.ends_with(".localhost")
            || ip.is_ok_and(|ip| ip.is_loopback())
            || HOST_ALIASES.contains(&name)
            || self.names.iter().any(|allowed| allowed == name)
    }
}

/// Returns `HOST[:PORT]` without the port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, method: Method, headers: &[(&'static str, &str)]) -> bool {
        let guard = BrowserGuard::new(listen.parse().unwrap(), &["registry.lan".to_owned()]);
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        guard.check(&method, &Uri::from_static("/v2/"), &headers).is_ok()
    }

    #[test]
    fn loopback_responds_only_to_its_own_names() {
        for (host, allowed) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("LOCALHOST", true),
            ("app.localhost:5000", true),
            ("registry.lan:5000", true),
            ("host.docker.internal:5000", true),
            ("evil.example:5000", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:5000", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(check("127.0.0.1:5000", Method::GET, &[("host", host)]), allowed, "{host}");
            assert!(check("0.0.0.0:5000", Method::GET, &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_page_never_writes() {
        for listen in ["127.0.0.1:5000", "0.0.0.0:5000"] {
            let host = ("host", "localhost:5000");
            assert!(check(listen, Method::PUT, &[host]));
            assert!(check(listen, Method::GET, &[host, ("origin", "http://evil.example")]));
            assert!(!check(listen, Method::PUT, &[host, ("origin", "http://localhost:5000")]));
            assert!(!check(listen, Method::POST, &[host, ("origin", "null")]));
            assert!(!check(listen, Method::DELETE, &[host, ("sec-fetch-site", "same-origin")]));
        }
    }
}
