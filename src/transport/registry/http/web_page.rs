//! A web page where a registry should answer: a captive portal, or the login page of a proxy, says 200 to everything.

use super::Response;
use crate::error::Error;

/// Headers that only a registry sends. quay.io answers `/v2/` with `text/html`, and with the first of these.
const REGISTRY: [&str; 2] = ["docker-distribution-api-version", "docker-content-digest"];

/// The `Content-Type` of `answer` in lower case and without its parameters; empty where there is none.
pub fn media_type(response: &Response) -> String {
    let stated = response.header("content-type").unwrap_or_default();
    stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the head of `answer` announces a web page.
pub fn is_page(response: &Response) -> bool {
    matches!(&*media_type(response), "text/html" | "application/xhtml+xml")
        && REGISTRY.iter().all(|name| response.header(name).is_none())
}

/// Whether `bytes` are markup, whatever their type is said to be.
pub fn is_markup(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<')
}

/// The error for `answer`, a web page, when `host` was asked for `what`. It is `Network`, since a registry is not what
/// answered.
pub fn error(host: &str, response: &Response, what: &str) -> Error {
    let from = response.url.host_str().unwrap_or_default();
    let by = if host.starts_with(from) { String::new() } else { format!(" from {from}") };
    let seen = &response.url[..url::Position::AfterPath];
    Error::network(format!(
        "{host} answered with a web page{by}, not {what} (a proxy or captive portal?); open {seen} in a browser to see it"
    ))
}
