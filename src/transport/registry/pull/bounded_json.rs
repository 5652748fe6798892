//! Limits what a JSON parser buffers while it reads a stream: one string, and one byte a level of nesting.

use std::io::{self, Read};

/// In the document's own form, with its escapes.
const MAX_STRING_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 4 << 20;

/// Passes a JSON document on. Fails with `InvalidData` at a string or a depth that a parser must not buffer.
pub struct BoundedJson<R> {
    inner: R,
    depth: usize,
    /// The bytes of the string so far; `None` between strings.
    string_bytes: Option<usize>,
    is_escaped: bool,
}

impl<R: Read> BoundedJson<R> {
    pub fn new(inner: R) -> BoundedJson<R> {
        BoundedJson { inner, depth: 0, string_bytes: None, is_escaped: false }
    }

    /// Follows one byte of the document. The parser refuses a document that is not JSON.
    fn follow(&mut self, byte: u8) {
        match (&mut self.string_bytes, byte) {
            (Some(_), b'"') if !self.is_escaped => self.string_bytes = None,
            (Some(bytes), byte) => {
                *bytes += 1;
                self.is_escaped = byte == b'\\' && !self.is_escaped;
            }
            (None, b'"') => self.string_bytes = Some(0),
            (None, b'[' | b'{') => self.depth += 1,
            (None, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
            (None, _) => {}
        }
    }
}

impl<R: Read> Read for BoundedJson<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        for byte in buffer.iter().take(n) {
            self.follow(*byte);
            if self.depth > MAX_DEPTH || self.string_bytes.is_some_and(|bytes| bytes > MAX_STRING_BYTES) {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(document: &str) -> bool {
        let mut bytes = Vec::new();
        let read = BoundedJson::new(document.as_bytes()).read_to_end(&mut bytes);
        if let Err(error) = &read {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        read.is_ok_and(|_| bytes == document.as_bytes())
    }

    #[test]
    fn a_long_string_and_a_deep_document_do_not_pass() {
        let short = "a".repeat(MAX_STRING_BYTES);
        let cases = [
            (format!(r#"["{short}","{short}"]"#), true),
            (format!(r#"["{short}a"]"#), false),
            // Escapes neither end a string nor begin one.
            (format!(r#"["\\",{}""]"#, " ".repeat(MAX_STRING_BYTES + 1)), true),
            (format!(r#"["\"{short}"]"#), false),
            (format!("[{}]", " ".repeat(MAX_STRING_BYTES + 1)), true),
            ("[".repeat(MAX_DEPTH), true),
            ("[".repeat(MAX_DEPTH + 1), false),
            ("[]".repeat(MAX_DEPTH + 1), true),
            (format!(r#"["{}"]"#, "[{".repeat(100)), true),
        ];
        for (document, expected) in cases {
            let shown: String = document.chars().take(8).collect();
            assert_eq!(passes(&document), expected, "{shown}, {} bytes", document.len());
        }
    }
}
