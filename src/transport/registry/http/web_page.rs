//! Detects a web page in place of a registry's response. A captive portal, or the login page of a proxy, responds with
//! status 200 to every request.

use super::Response;
use crate::error::Error;

/// Headers that only a registry sends. quay.io responds to `/v2/` with `text/html` and the first of these headers.
const REGISTRY_HEADERS: [&str; 2] = ["docker-distribution-api-version", "docker-content-digest"];

/// Returns the `Content-Type` in lower case and without parameters; empty if it is missing.
pub fn media_type(response: &Response) -> String {
    let stated = response.header("content-type").unwrap_or_default();
    stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the response's head announces a web page.
pub fn is_page(response: &Response) -> bool {
    matches!(&*media_type(response), "text/html" | "application/xhtml+xml")
        && REGISTRY_HEADERS.iter().all(|name| response.header(name).is_none())
}

/// Whether `bytes` are markup, regardless of their stated type.
pub fn is_markup(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<')
}

/// The error for a web page in response to a request to `host` for `what`. It is `Network`: the responder is not a
/// registry.
pub fn error(host: &str, response: &Response, what: &str) -> Error {
    let from = response.url.host_str().unwrap_or_default();
    let by = if host.starts_with(from) { String::new() } else { format!(" from {from}") };
    let seen = &response.url[..url::Position::AfterPath];
    Error::web_page(format!(
        "{host} responded with a web page{by}, not {what} (a proxy or captive portal?); open {seen} in a browser to \
         see it"
    ))
}
