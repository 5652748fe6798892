//! The trailer section of a chunked response (RFC 9112, section 7.1.2). ureq skips trailers without a limit, so their
//! size is limited here.

/// The limit on all trailers of one response.
pub const MAX_TRAILER_BYTES: usize = 16 << 10;

/// The line end after a chunk.
const LINE_END_BYTES: u64 = 2;
const SIZE: Chunked = Chunked::Size { so_far: 0, ended: false };

/// The position in a response's body.
#[derive(Debug, Clone, Copy)]
pub enum Chunked {
    /// The response has no chunked body.
    Plain,
    /// In a chunk's size: its value so far, and whether its digits have ended.
    Size { so_far: u64, ended: bool },
    /// In a chunk: the bytes left, with its line end.
    Data(u64),
    /// In the trailers: their bytes so far.
    Trailers(usize),
}

impl Chunked {
    /// Reads a response's head at the start of `input` and the part of its body that follows. Returns `None` while the
    /// head is incomplete.
    pub fn from_head(input: &[u8]) -> Option<Chunked> {
        let end = head_end(input)?;
        let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
        let is_chunked =
            |line: &str| line.strip_prefix("transfer-encoding:").is_some_and(|value| value.contains("chunked"));
        let mut state = if head.lines().any(is_chunked) { SIZE } else { Chunked::Plain };
        state.advance(&input[end..]);
        Some(state)
    }

    /// Moves past the next `bytes`.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self {
                Chunked::Plain => return,
                Chunked::Trailers(so_far) => {
                    *so_far += bytes.len();
                    return;
                }
                Chunked::Data(left) => {
                    let n = (*left).min(bytes.len() as u64);
                    bytes = &bytes[n as usize..];
                    *left -= n;
                    if *left == 0 {
                        *self = SIZE;
                    }
                }
                Chunked::Size { so_far, ended } => {
                    match (bytes[0], char::from(bytes[0]).to_digit(16).filter(|_| !*ended)) {
                        (b'\n', _) if *so_far == 0 => *self = Chunked::Trailers(0),
                        (b'\n', _) => *self = Chunked::Data(so_far.saturating_add(LINE_END_BYTES)),
                        (_, Some(digit)) => *so_far = so_far.saturating_mul(16).saturating_add(digit.into()),
                        _ => *ended = true,
                    }
                    bytes = &bytes[1..];
                }
            }
        }
    }

    /// Whether the trailers are larger than [`MAX_TRAILER_BYTES`].
    pub fn exceeds_limit(&self) -> bool {
        matches!(self, Chunked::Trailers(so_far) if *so_far > MAX_TRAILER_BYTES)
    }
}

/// The end of the empty line after a head. Like httparse, skips empty lines before the head and accepts bare line
/// feeds.
pub fn head_end(input: &[u8]) -> Option<usize> {
    let start = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let empty = |at: usize| match &input[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    };
    (start..input.len()).filter(|at| input[*at] == b'\n').find_map(empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";

    #[test]
    fn trailers_are_counted_wherever_the_bytes_are_cut() {
        let body = "5;x=0\r\nhello\r\nA\r\n0123456789\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..body.len() {
            let mut state = Chunked::from_head((HEAD.to_owned() + &body[..cut]).as_bytes()).unwrap();
            state.advance(&body.as_bytes()[cut..]);
            assert!(matches!(state, Chunked::Trailers(8)), "{cut}: {state:?}");
            assert!(!state.exceeds_limit());
            state.advance(&[b'x'; MAX_TRAILER_BYTES]);
            assert!(state.exceeds_limit());
        }
    }

    #[test]
    fn only_a_chunked_body_has_trailers() {
        assert!(Chunked::from_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n").is_none());
        assert!(matches!(Chunked::from_head(format!("\r\n\n{HEAD}").as_bytes()), Some(Chunked::Size { .. })));
        let mut plain = Chunked::from_head(b"HTTP/1.1 200 OK\nContent-Length: 3\n\n0\r\n").unwrap();
        plain.advance(&[b'0'; 2 * MAX_TRAILER_BYTES]);
        assert!(!plain.exceeds_limit());
        // ureq refuses an invalid or too large chunk size.
        for odd in ["\r\n", "zz\r\n", "ffffffffffffffffffffff\r\n"] {
            assert!(!Chunked::from_head((HEAD.to_owned() + odd).as_bytes()).unwrap().exceeds_limit());
        }
    }
}
