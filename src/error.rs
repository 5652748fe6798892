//! One error for the whole library: a sentence that says what, which, expected, found and what to do,
//! with the kind that callers (and the exit status) tell apart.

use std::{fmt, io};

/// What went wrong, as far as a caller has to act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None of the others.
    Failed,
    /// The request makes no sense as written.
    Usage,
    /// An image, tag, platform or file that is not there.
    NotFound,
    /// Authentication or permission.
    Denied,
    /// A digest, size or format is wrong, or the input is hostile.
    Invalid,
    /// The network or a registry, after the retries.
    Network,
    /// The engine or the host on the far side.
    FarSide,
    /// The destination cannot be written: full, read-only, locked.
    Unwritable,
    /// Some of several images or destinations failed.
    Some,
    /// Stopped by a signal.
    Interrupted,
}

impl Kind {
    /// The process's exit status for this kind.
    pub fn exit_status(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Denied => 4,
            Kind::Invalid => 5,
            Kind::Network => 6,
            Kind::FarSide => 7,
            Kind::Unwritable => 8,
            Kind::Some => 9,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure, told in one sentence.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    altered: bool,
    lasting: bool,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`. `message` is a sentence without a full stop; it may quote strangers, and is put on one line
    /// with control characters in it shown as `?`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: on_one_line(&message.into()), altered: false, lasting: false }
    }
    /// An error of `kind` with a line below `message` for each of its `causes`.
    pub fn several(kind: Kind, message: &str, causes: &[String]) -> Self {
        let lines = std::iter::once(message).chain(causes.iter().map(String::as_str)).map(on_one_line);
        Error { kind, message: lines.collect::<Vec<_>>().join("\n  "), altered: false, lasting: false }
    }
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, message)
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(Kind::Network, message)
    }
    pub fn far_side(message: impl Into<String>) -> Self {
        Self::new(Kind::FarSide, message)
    }
    pub fn unwritable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unwritable, message)
    }
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted; nothing half-written has a name, run the same command again")
    }

    /// `Invalid`, because bytes have another digest than they should: a line may have altered them.
    pub fn altered(message: impl Into<String>) -> Self {
        Error { altered: true, ..Self::invalid(message) }
    }

    /// Whether it was made by [`Error::altered`]: worth a second look, and no third.
    pub fn is_altered(&self) -> bool {
        self.altered
    }

    /// The same error, after which no other try is made.
    pub fn lasting(self) -> Self {
        Error { lasting: true, ..self }
    }

    /// Whether it was made by [`Error::lasting`]: its tries are used up, or another one could not help.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error with a place before it: `place: message`.
    pub fn at(self, place: impl fmt::Display) -> Self {
        Error { message: format!("{}: {}", on_one_line(&place.to_string()), self.message), ..self }
    }

    /// An I/O error while writing `what`: full, read-only and permission errors are the destination's.
    pub fn writing(what: impl fmt::Display, error: io::Error) -> Self {
        match Error::carried(error) {
            Ok(error) => error,
            Err(error) => Error::unwritable(format!("cannot write {what}: {}", reason(&error))),
        }
    }

    /// An I/O error while reading `what`.
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

    /// The library's own error that travelled inside an `io::Error`, if there is one.
    pub fn carried(error: io::Error) -> std::result::Result<Error, io::Error> {
        match error.downcast::<Error>() {
            Ok(own) => Ok(own),
            Err(error) => Err(error),
        }
    }
}

/// The system's words without Rust's `(os error N)`.
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

/// `text` with control characters (terminal escapes, bidirectional overrides) replaced, safe to show to a person.
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    text.chars().map(|c| if hidden(c) { '?' } else { c }).collect()
}

/// [`printable`], and on one line: what a stranger says cannot look like a line of ours.
pub fn on_one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
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
        let several = Error::several(Kind::Some, "two failed", &["a\nb".to_owned(), "c".to_owned()]);
        assert_eq!(several.to_string(), "two failed\n  a b\n  c");
    }
}
