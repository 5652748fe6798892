//! Standard output: the answer, as lines or as one JSON document, and nothing else ever.

use crate::error::{on_one_line, printable};
use crate::{Error, Kind, Result};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// The version of every JSON document; goes up when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;
/// The message of the error that stands for a reader of standard output who has gone.
const CLOSED: &str = "standard output was closed";

/// How a run answers.
pub struct Answer {
    json: bool,
    given: AtomicBool,
}

impl Answer {
    pub fn new(json: bool) -> Answer {
        Answer { json, given: AtomicBool::new(false) }
    }

    /// Whether the answer is to be one JSON document.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Standard output is for an archive: no document stands in for it.
    pub fn leave_to_archive(&self) {
        self.given.store(true, Ordering::Relaxed);
    }

    /// One line, whatever strangers wrote into it.
    pub fn line(&self, text: &str) -> Result<()> {
        self.bytes(format!("{}\n", on_one_line(text)).as_bytes())
    }

    /// Exact bytes.
    pub fn bytes(&self, bytes: &[u8]) -> Result<()> {
        self.given.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Error::unwritable(CLOSED),
            _ => Error::writing("standard output", error),
        })
    }

    /// The one document of this run.
    pub fn document(&self, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::failed(format!("the answer cannot be written as JSON: {error}")))?;
        self.bytes(format!("{}\n", escaped(&text)).as_bytes())
    }

    /// Stands in for the document where a run failed before it had one. What goes wrong here is not worth telling.
    pub fn failure(&self, error: &Error, status: u8) {
        if self.json && !self.given.load(Ordering::Relaxed) {
            let error = json!({ "kind": kind_word(error.kind()), "status": status, "message": error.to_string() });
            let _ = self.document(&json!({ "version": VERSION, "error": error }));
        }
    }
}

/// Whether `error` only says that nobody reads on: then there is nobody to tell.
pub fn is_closed(error: &Error) -> bool {
    error.kind() == Kind::Unwritable && error.to_string() == CLOSED
}

/// A kind of failure as documents spell it.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Usage => "usage",
        Kind::NotFound => "not_found",
        Kind::Denied => "denied",
        Kind::Invalid => "invalid",
        Kind::Network => "network",
        Kind::RemoteHost => "far_side",
        Kind::Unwritable => "unwritable",
        Kind::Partial => "some",
        Kind::Interrupted => "interrupted",
    }
}

/// JSON text with what a terminal would obey (it can stand only inside strings) written as `\u` escapes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match printable(c.encode_utf8(&mut [0; 4])) == "?" && c != '?' {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(safe, "\\u{unit:04x}");
            }),
            false => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shown_on_a_terminal_cannot_move_its_cursor() {
        let strange = "a\u{9b}2J\u{202e}b?";
        let text = escaped(&serde_json::to_string(strange).unwrap());
        assert_eq!(text, r#""a\u009b2J\u202eb?""#);
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), strange);
    }
}
