//! How a call ends: the server's status, or what prevented one.

use crate::error::{Error, Kind};
use crate::remote::sanitize;
use http::HeaderMap;
use std::time::Duration;

/// The longest message of a server that is printed, in characters.
const MAX_MESSAGE_CHARS: usize = 600;

/// The codes of gRPC that are told apart (`codes.Code` of grpc-go).
pub(super) mod code {
    pub const OK: u32 = 0;
    pub const NOT_FOUND: u32 = 5;
    pub const ALREADY_EXISTS: u32 = 6;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const FAILED_PRECONDITION: u32 = 9;
    pub const OUT_OF_RANGE: u32 = 11;
    pub const UNAVAILABLE: u32 = 14;
    pub const UNAUTHENTICATED: u32 = 16;
}

/// The status of a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub code: u32,
    /// Without control characters, and bounded.
    pub message: String,
}

impl Status {
    /// Reads the status in the headers or trailers `map`; `None` if it has none.
    pub fn read(map: &HeaderMap) -> Option<Status> {
        let code = map.get("grpc-status")?.to_str().ok().and_then(|text| text.parse().ok());
        let message = map.get("grpc-message").map(|text| percent_decoded(text.as_bytes())).unwrap_or_default();
        // A code that is not a number is UNKNOWN, as in grpc-go.
        Some(Status { code: code.unwrap_or(2), message: shortened(&message) })
    }

    /// The class of the failure.
    fn kind(&self) -> Kind {
        let full = ["no space left", "quota exceeded", "read-only file system"];
        match self.code {
            code::NOT_FOUND => Kind::NotFound,
            code::PERMISSION_DENIED | code::UNAUTHENTICATED => Kind::Denied,
            _ if full.iter().any(|sign| self.message.to_lowercase().contains(sign)) => Kind::Unwritable,
            _ => Kind::RemoteHost,
        }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's answer.
    Status(Status),
    /// The connection could not be opened, or was lost; and why.
    Lost(String),
    /// No progress for this time.
    Stalled(Duration),
    /// The server broke the protocol; a sentence about the server without a subject.
    Protocol(String),
    /// An error of imgmv, or the cancelled copy.
    Other(Error),
}

impl Failure {
    /// The server broke the protocol. `problem` completes the sentence `containerd …`.
    pub fn protocol(problem: impl Into<String>) -> Failure {
        Failure::Protocol(problem.into())
    }

    /// Whether the same call may succeed over a new connection.
    pub fn is_transient(&self) -> bool {
        match self {
            Failure::Lost(_) | Failure::Stalled(_) => true,
            Failure::Status(status) => status.code == code::UNAVAILABLE,
            Failure::Protocol(_) | Failure::Other(_) => false,
        }
    }

    /// Whether the server answered with `code`.
    pub fn is(&self, code: u32) -> bool {
        matches!(self, Failure::Status(status) if status.code == code)
    }

    /// The reason, for a message about a retry.
    pub fn reason(&self) -> String {
        match self {
            Failure::Status(status) => status.message.clone(),
            Failure::Lost(why) | Failure::Protocol(why) => why.clone(),
            Failure::Stalled(after) => format!("no progress for {} seconds", after.as_secs()),
            Failure::Other(error) => error.to_string(),
        }
    }

    /// The error for the user. `place` names containerd; `action` is what failed, as `reading blob sha256:…`.
    pub fn into_error(self, place: &str, action: &str) -> Error {
        match self {
            Failure::Status(status) => {
                let message = if status.message.is_empty() { "no reason given" } else { &status.message };
                let code = status.code;
                Error::new(status.kind(), format!("{place}: {action} failed: {message} (status {code})"))
            }
            Failure::Lost(why) => Error::remote_host(format!("{place}: {action} failed: {why}")),
            Failure::Stalled(after) => {
                let seconds = after.as_secs();
                Error::remote_host(format!("{place}: {action} made no progress for {seconds} seconds (--timeout)"))
            }
            Failure::Protocol(problem) => Error::invalid(format!("{place}: {action} failed: containerd {problem}")),
            Failure::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

/// Decodes `%XX` (the encoding of `grpc-message`); malformed sequences stay as they are.
fn percent_decoded(text: &[u8]) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `text` on one line, without control characters, and at most [`MAX_MESSAGE_CHARS`] long.
pub(super) fn shortened(text: &str) -> String {
    let text = sanitize(text).replace(['\n', '\t'], " ");
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn status(code: &'static str, message: &[u8]) -> Status {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from_static(code));
        map.insert("grpc-message", HeaderValue::from_bytes(message).unwrap());
        Status::read(&map).unwrap()
    }

    #[test]
    fn a_message_is_decoded_and_made_safe() {
        let found = status("5", b"blob %22a%22%0anot found%1b[31m 100% %4");
        assert_eq!(found, Status { code: 5, message: "blob \"a\" not found 100% %4".to_owned() });
        assert_eq!(status("x", b"").code, 2);
        assert!(status("2", &[b'y'; 5000]).message.chars().count() <= MAX_MESSAGE_CHARS + 1);
        assert!(Status::read(&HeaderMap::new()).is_none());
    }

    #[test]
    fn the_kind_of_an_error_follows_from_the_status() {
        let error = |code, message: &[u8]| Failure::Status(status(code, message)).into_error("containerd", "writing");
        assert_eq!(error("5", b"x").kind(), Kind::NotFound);
        assert_eq!(error("7", b"x").kind(), Kind::Denied);
        let full = error("2", b"write: no space left on device");
        assert_eq!(full.kind(), Kind::Unwritable);
        let expected = "containerd: writing failed: write: no space left on device (status 2)";
        assert_eq!(full.to_string(), expected);
    }
}
