//! Standard output: only the answer of a run, as lines or as one JSON document.

use crate::message::{on_one_line, printable};
use crate::{Error, Kind, Result};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// The version of every JSON document. It increases when a key is renamed, removed or changes its meaning.
pub const VERSION: u32 = 2;
/// The error message after the reader of standard output has closed it.
const CLOSED: &str = "standard output was closed";

/// The writer of the answer.
pub struct Answer {
    json: bool,
    started: AtomicBool,
}

impl Answer {
    pub fn new(json: bool) -> Answer {
        Answer { json, started: AtomicBool::new(false) }
    }

    /// Whether the answer is one JSON document.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Reserves standard output for an archive: no error document is written to it.
    pub fn leave_to_archive(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Writes `text` as exactly one line, with control characters replaced.
    pub fn line(&self, text: &str) -> Result<()> {
        self.bytes(format!("{}\n", on_one_line(text)).as_bytes())
    }

    /// Writes `bytes` unchanged.
    pub fn bytes(&self, bytes: &[u8]) -> Result<()> {
        self.started.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Error::unwritable(CLOSED),
            _ => Error::writing("standard output", error),
        })
    }

    /// Writes the JSON document of this run.
    pub fn document(&self, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::failed(format!("cannot write the answer as JSON: {error}")))?;
        self.bytes(format!("{}\n", escaped(&text)).as_bytes())
    }

    /// Writes an error document, if the run failed before its answer. Write errors are ignored.
    pub fn failure(&self, error: &Error, status: u8) {
        if self.json && !self.started.load(Ordering::Relaxed) {
            let error = json!({ "kind": kind_word(error.kind()), "exit_status": status, "message": error.to_string() });
            let _ = self.document(&json!({ "version": VERSION, "error": error }));
        }
    }
}

/// Whether `error` only reports that the reader closed standard output. Such an error is not printed.
pub fn is_closed(error: &Error) -> bool {
    error.kind() == Kind::Unwritable && error.to_string() == CLOSED
}

/// The name of an error kind in JSON documents.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Usage => "usage",
        Kind::NotFound => "not_found",
        Kind::Denied => "denied",
        Kind::Invalid => "invalid",
        Kind::Network => "network",
        Kind::RemoteHost => "remote_host",
        Kind::Unwritable => "unwritable",
        Kind::Partial => "partial",
        Kind::Interrupted => "interrupted",
    }
}

/// Writes control characters of JSON text as `\u` escapes. They can occur only inside strings.
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
