//! The error type of the library: one message and a [`Kind`], from which the exit status follows.
//!
//! A message is `subject: problem; what to do`, with the values expected and found.

use crate::message::on_one_line;
use std::{fmt, io};

/// The class of a failure, for callers and for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None of the others.
    Failed,
    /// The command line or the request is wrong.
    Usage,
    /// An image, tag, platform or file does not exist.
    NotFound,
    /// Authentication failed or permission is missing.
    Denied,
    /// A digest, size or format is wrong, or the input is hostile.
    Invalid,
    /// The network or a registry failed, after all retries.
    Network,
    /// The engine or the remote host failed.
    RemoteHost,
    /// The destination cannot be written: it is full, read-only or locked.
    Unwritable,
    /// Some of several images or destinations failed.
    Partial,
    /// A signal stopped the process.
    Interrupted,
}

impl Kind {
    /// Returns the exit status of the process for this kind.
    pub fn exit_status(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Denied => 4,
            Kind::Invalid => 5,
            Kind::Network => 6,
            Kind::RemoteHost => 7,
            Kind::Unwritable => 8,
            Kind::Partial => 9,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure: a kind and a message.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    cause: Option<Cause>,
    permanent: bool,
}

/// A cause that callers treat in a special way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    DigestMismatch,
    WebPage,
    MissingContent,
    PullLimit,
}

/// A result with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error of `kind`. `message` has no full stop and may quote untrusted text: it is put on one line, and
    /// control characters become `?`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: on_one_line(&message.into()), cause: None, permanent: false }
    }
    /// Creates an error of `kind` with one indented line below `message` for each of `causes`.
    pub fn several(kind: Kind, message: &str, causes: &[String]) -> Self {
        let lines = std::iter::once(message).chain(causes.iter().map(String::as_str)).map(on_one_line);
        Error { kind, message: lines.collect::<Vec<_>>().join("\n  "), cause: None, permanent: false }
    }
    /// Creates a `Failed` error; see [`Error::new`] for the message.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }
    /// Creates a `Usage` error.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    /// Creates a `NotFound` error.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    /// Creates a `Denied` error.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, message)
    }
    /// Creates an `Invalid` error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
    /// Creates a `Network` error.
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(Kind::Network, message)
    }
    /// Creates a `RemoteHost` error.
    pub fn remote_host(message: impl Into<String>) -> Self {
        Self::new(Kind::RemoteHost, message)
    }
    /// Creates an `Unwritable` error.
    pub fn unwritable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unwritable, message)
    }
    /// Creates an `Interrupted` error with its fixed message.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted: no incomplete image was published; run the same command again")
    }

    /// Creates an `Invalid` error for bytes with a wrong digest; the connection may have altered them.
    pub fn digest_mismatch(message: impl Into<String>) -> Self {
        Error { cause: Some(Cause::DigestMismatch), ..Self::invalid(message) }
    }

    /// Whether [`Error::digest_mismatch`] made this error: one retry may help, a second one does not.
    pub fn is_digest_mismatch(&self) -> bool {
        self.cause == Some(Cause::DigestMismatch)
    }

    /// Creates a `Network` error for a web page in place of the response that the protocol asks for.
    pub fn web_page(message: impl Into<String>) -> Self {
        Error { cause: Some(Cause::WebPage), ..Self::network(message) }
    }

    /// Whether [`Error::web_page`] made this error: the host answers, but not this request.
    pub fn is_web_page(&self) -> bool {
        self.cause == Some(Cause::WebPage)
    }

    /// Marks the error as a refusal of a manifest of which blobs or children are missing at the registry.
    pub fn missing_content(self) -> Self {
        Error { cause: Some(Cause::MissingContent), ..self }
    }

    /// Whether [`Error::missing_content`] marked this error.
    pub fn is_missing_content(&self) -> bool {
        self.cause == Some(Cause::MissingContent)
    }

    /// Creates a permanent `Network` error for a host whose remaining pulls are reserved.
    pub fn pull_limit(message: impl Into<String>) -> Self {
        Error { cause: Some(Cause::PullLimit), ..Self::network(message) }.permanent()
    }

    /// Whether [`Error::pull_limit`] made this error: no request of the run to this host can pull more images.
    pub fn is_pull_limit(&self) -> bool {
        self.cause == Some(Cause::PullLimit)
    }

    /// Marks the error as one that must not be retried.
    pub fn permanent(self) -> Self {
        Error { permanent: true, ..self }
    }

    /// Whether [`Error::permanent`] marked this error: the retries are used up, or a retry cannot help.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// Returns the class of the failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Prefixes the message with a location: `location: message`.
    pub fn at(self, location: impl fmt::Display) -> Self {
        Error { message: format!("{}: {}", on_one_line(&location.to_string()), self.message), ..self }
    }

    /// As [`Error::at`], unless the message has `location` already.
    pub fn at_once(self, location: &str) -> Self {
        if self.message.contains(&*on_one_line(location)) { self } else { self.at(location) }
    }

    /// Replaces the message; see [`Error::new`] for `message`.
    pub fn reworded(self, message: impl Into<String>) -> Self {
        Error { message: on_one_line(&message.into()), ..self }
    }

    /// Converts an I/O error from writing `what`. The kind is always `Unwritable`.
    pub fn writing(what: impl fmt::Display, error: io::Error) -> Self {
        match Error::carried(error) {
            Ok(error) => error,
            Err(error) => Error::unwritable(format!("cannot write {what}: {}", reason(&error))),
        }
    }

    /// Converts an I/O error from reading `what`.
    pub fn reading(what: impl fmt::Display, error: io::Error) -> Self {
        let error = match Error::carried(error) {
            Ok(error) => return error,
            Err(error) => error,
        };
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Kind::Invalid,
            _ => Kind::Failed,
        };
        Error::new(kind, format!("cannot read {what}: {}", reason(&error)))
    }

    /// Takes this library's error out of an `io::Error` that wraps one; otherwise returns `error` unchanged.
    pub fn carried(error: io::Error) -> std::result::Result<Error, io::Error> {
        match error.downcast::<Error>() {
            Ok(own) => Ok(own),
            Err(error) => Err(error),
        }
    }
}

/// The message of the operating system without Rust's `(os error N)`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match Error::carried(error) {
            Ok(own) => own,
            Err(error) => Error::failed(reason(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_trip_through_io() {
        let io: io::Error = Error::invalid("layer sha256:ab does not match").into();
        let back = Error::from(io);
        assert_eq!(back.kind(), Kind::Invalid);
        assert_eq!(back.to_string(), "layer sha256:ab does not match");
    }

    #[test]
    fn terminal_escapes_never_reach_a_message() {
        assert_eq!(Error::failed("a\x1b[31mred\u{202e}b\x07").to_string(), "a?[31mred?b?");
        assert_eq!(Error::failed("a\nimgmv: done\u{2028}").at("b\r\n").to_string(), "b? : a imgmv: done?");
        let several = Error::several(Kind::Partial, "two failed", &["a\nb".to_owned(), "c".to_owned()]);
        assert_eq!(several.to_string(), "two failed\n  a b\n  c");
    }
}
