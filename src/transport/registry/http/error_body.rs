//! Turns a registry's error response (distribution-spec, "Error Codes") into a message that says what to do.

use super::Response;
use crate::error::{Error, Kind};
use serde::Deserialize;

/// The limit on the body of an error or of a token response.
pub const MAX_ERROR_BODY_BYTES: u64 = 1 << 20;
const MAX_REASONS: usize = 3;
const MAX_REASON_CHARS: usize = 240;
/// The codes for a manifest of which blobs or children are missing.
const MISSING_CONTENT: [&str; 3] = ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"];

/// The failed request, as its error describes it.
#[derive(Debug, Clone)]
pub struct FailedRequest<'a> {
    /// `registry.lan:5000`.
    pub host: &'a str,
    /// The response came from another host, to which the registry redirects.
    pub from_other_host: bool,
    /// `team/app`; empty for the registry itself.
    pub repository: &'a str,
    /// `manifest team/app:2`, `blob sha256:…`.
    pub what: &'a str,
    /// `read`, `push to`.
    pub verb: &'static str,
    /// The origin of the credentials that were sent, or the reason for sending none; may be empty.
    pub credentials: &'a str,
    pub logged_in: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorField>,
    /// Sent by token services and some proxies.
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct ErrorField {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    detail: Option<serde_json::Value>,
}

/// The registry's words in an error response.
#[derive(Default)]
struct Words {
    /// Bounded, untrusted, and may be empty.
    text: String,
    /// Blobs or children of a manifest are missing.
    means_missing_content: bool,
}

/// Reads the registry's text from the body of an error response. The text is bounded, untrusted and may be empty.
pub fn text(response: Response) -> String {
    words(response).text
}

fn words(mut response: Response) -> Words {
    let text_type = response.header("content-type").is_some_and(|t| t.contains("json") || t.starts_with("text/plain"));
    let bytes = response.bytes(MAX_ERROR_BODY_BYTES, "an error").unwrap_or_default();
    let cut = |text: &str| -> String {
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        one_line.chars().take(MAX_REASON_CHARS).collect()
    };
    let Ok(body) = serde_json::from_slice::<ErrorBody>(&bytes) else {
        let text =
            if text_type { cut(&String::from_utf8_lossy(&bytes[..bytes.len().min(4096)])) } else { String::new() };
        return Words { text, ..Words::default() };
    };
    let mut reasons: Vec<String> = Vec::new();
    for reason in body.errors.iter().take(MAX_REASONS) {
        let message = reason.message.as_deref().filter(|text| !text.is_empty()).unwrap_or(&reason.code);
        reasons.push(match &reason.detail {
            Some(serde_json::Value::String(detail)) if !detail.is_empty() && detail != message => {
                format!("{}: {}", cut(message), cut(detail))
            }
            _ => cut(message),
        });
    }
    reasons.extend(body.details.iter().chain(&body.message).take(1).map(|text| cut(text)));
    let means_missing_content = body.errors.iter().any(|reason| MISSING_CONTENT.contains(&&*reason.code));
    Words { text: reasons.join("; "), means_missing_content }
}

/// The kind of a refusal by a redirect's target. A read can be retried, as after a broken connection.
fn redirect_refusal_kind(verb: &str) -> Kind {
    if verb == "read" { Kind::Network } else { Kind::Failed }
}

/// Whether `status` refuses the method `HEAD` without reporting existence. Some registries, and proxies in front of
/// them, support only `GET`.
pub fn refuses_head(status: u16) -> bool {
    matches!(status, 400 | 403 | 405 | 406 | 501)
}

/// The error for a response with an unexpected status.
pub fn error(request: &FailedRequest<'_>, response: Response) -> Error {
    let (status, from) = (response.status, response.url.host_str().unwrap_or_default().to_owned());
    let Words { text, means_missing_content } = words(response);
    let error = message_for(request, status, &from, &text);
    if means_missing_content { error.missing_content() } else { error }
}

fn message_for(request: &FailedRequest<'_>, status: u16, from: &str, text: &str) -> Error {
    let FailedRequest { host, from_other_host, repository, what, verb, credentials, logged_in } = request;
    let reason = if text.is_empty() { String::new() } else { format!(" ({text})") };
    let target = if repository.is_empty() { (*host).to_owned() } else { format!("{host}/{repository}") };
    let note = if credentials.is_empty() { String::new() } else { format!(" ({credentials})") };
    match status {
        // The redirect's target does not know this user, so a login does not help.
        400 | 401 | 403 | 410 if *from_other_host => Error::new(
            redirect_refusal_kind(verb),
            format!(
                "{from}, to which {host} redirects for {what}, refused the request with status {status}{reason}; the \
                 URL may have expired: check the clock of this host, or retry later"
            ),
        ),
        404 if *from_other_host => {
            Error::not_found(format!("{from}, to which {host} redirects, has no {what}{reason}"))
        }
        401 if *logged_in => Error::denied(format!(
            "{host} refused the credentials for {target}{note}{reason}; log in again with: imgmv login {host}"
        )),
        401 => Error::denied(format!(
            "{host} requires credentials to {verb} {target}, or the repository does not exist{reason}; log in with: \
             imgmv login {host}{note}"
        )),
        403 if *logged_in => Error::denied(format!(
            "{host} does not allow this user to {verb} {target}{reason}; ask its owner, or log in as another user \
             with: imgmv login {host}"
        )),
        403 => Error::denied(format!(
            "{host} does not allow anonymous users to {verb} {target}{reason}; log in with: imgmv login {host}"
        )),
        404 => Error::not_found(format!("{host} has no {what}{reason}")),
        405 | 501 => Error::failed(format!("{host} does not support this request: {what}, status {status}{reason}")),
        413 => Error::failed(format!(
            "{host} refuses a body of that size for {what}{reason}; raise the limit of the registry, or of the proxy \
             in front of it"
        )),
        429 => Error::network(format!("{host} limits requests (status 429): {what}{reason}")),
        500.. => Error::network(format!("{host} failed with status {status}: {what}{reason}")),
        _ => Error::new(Kind::Failed, format!("{host} refused {what} with status {status}{reason}")),
    }
}
