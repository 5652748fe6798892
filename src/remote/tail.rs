//! The end of a program's standard error: bounded, and without terminal control sequences.

use crate::message::printable;
use std::{collections::VecDeque, io::Read};

/// Enough for a dozen lines, the last of which has the reason.
const MAX_TAIL_BYTES: usize = 8 << 10;

/// The last bytes of a stream.
#[derive(Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(MAX_TAIL_BYTES)..];
        let over = (self.0.len() + bytes.len()).saturating_sub(MAX_TAIL_BYTES);
        self.0.drain(..over.min(self.0.len()));
        self.0.extend(bytes);
    }

    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        sanitize(&String::from_utf8_lossy(&bytes))
    }
}

/// Reads `from` to its end and passes the bytes of each read to `keep`.
pub(super) fn read_all(mut from: impl Read, mut keep: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => keep(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Removes terminal sequences (ECMA-48 CSI and OSC) from `text`. A carriage return becomes a line feed; other control
/// characters become `?`.
pub(crate) fn sanitize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\u{1b}', Some('[')) => {
                rest.next();
                while rest.next_if(|c| !('\u{40}'..='\u{7e}').contains(c) && !c.is_control()).is_some() {}
                rest.next_if(|c| !c.is_control());
            }
            ('\u{1b}', Some(']')) => {
                while rest.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\n')).is_some() {}
                rest.next_if(|c| matches!(c, '\u{7}'));
            }
            ('\u{1b}', Some('\\')) => {
                rest.next();
            }
            ('\r', Some('\n')) => {}
            ('\r', _) => out.push('\n'),
            _ => out.push(c),
        }
    }
    printable(&out)
}

/// The last three nonempty lines, joined to one.
pub(super) fn last_lines(text: &str) -> String {
    const LINES: usize = 3;
    const MAX_CHARS: usize = 600;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(LINES)..].join("; ");
    let joined = joined.trim_end_matches('.');
    match joined.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &joined[..at]),
        None => joined.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_flood_is_kept() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 5000]);
        }
        tail.push(b"\nno space left on device\n");
        assert!(tail.0.len() <= MAX_TAIL_BYTES);
        assert!(tail.text().ends_with("no space left on device\n"));
        tail.push(&[b'y'; 3 * MAX_TAIL_BYTES]);
        assert_eq!(tail.text(), "y".repeat(MAX_TAIL_BYTES));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\x1b[31;1mred\x1b[0m \x1b]0;title\x07b\x1b[2J\x1bc\x08 10%\r20%\r\nend\u{202e}\x1b[";
        assert_eq!(sanitize(hostile), "ared b?c? 10%\n20%\nend?");
    }

    #[test]
    fn the_last_lines_become_one_clause() {
        assert_eq!(last_lines("one\ntwo\n\nthree  \nfour.\n"), "two; three; four");
        assert!(last_lines(&"z".repeat(5000)).chars().count() <= 601);
    }
}
