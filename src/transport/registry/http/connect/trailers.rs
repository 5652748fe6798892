//! The trailer section of a chunked answer (RFC 9112, 7.1.2). ureq skips trailers without a limit, so they are bounded
//! here, where the bytes pass.

/// In bytes, of all trailers of one answer.
pub const MAX_TRAILER_BYTES: usize = 16 << 10;

/// In bytes, of the line end behind a chunk.
const LINE_END: u64 = 2;
const SIZE: Chunked = Chunked::Size { so_far: 0, ended: false };

/// Where an answer's bytes are in the chunked coding.
#[derive(Debug, Default, Clone, Copy)]
pub enum Chunked {
    /// The answer has no chunked body, or its head is not complete.
    #[default]
    Plain,
    /// A chunk's size as far as it is read; its digits may have ended.
    Size { so_far: u64, ended: bool },
    /// Bytes that are left of a chunk with its line end.
    Data(u64),
    /// Bytes of trailers so far.
    Trailers(usize),
}

impl Chunked {
    /// Reads an answer's head from the start of `input`, and what follows the head. `None` while it is not complete.
    pub fn from_head(input: &[u8]) -> Option<Chunked> {
        let end = head_end(input)?;
        let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
        let is_chunked =
            |line: &str| line.strip_prefix("transfer-encoding:").is_some_and(|value| value.contains("chunked"));
        let mut state = if head.lines().any(is_chunked) { SIZE } else { Chunked::Plain };
        state.advance(&input[end..]);
        Some(state)
    }

    /// Follows `bytes`, which come next.
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
                        (b'\n', _) => *self = Chunked::Data(so_far.saturating_add(LINE_END)),
                        (_, Some(digit)) => *so_far = so_far.saturating_mul(16).saturating_add(digit.into()),
                        _ => *ended = true,
                    }
                    bytes = &bytes[1..];
                }
            }
        }
    }

    /// Whether there are more trailers than are read.
    pub fn exceeds_limit(&self) -> bool {
        matches!(self, Chunked::Trailers(so_far) if *so_far > MAX_TRAILER_BYTES)
    }
}

/// Where the empty line behind a head ends; httparse takes bare line feeds too.
fn head_end(input: &[u8]) -> Option<usize> {
    let empty = |at: usize| match &input[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    };
    (0..input.len()).filter(|at| input[*at] == b'\n').find_map(empty)
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
        let mut plain = Chunked::from_head(b"HTTP/1.1 200 OK\nContent-Length: 3\n\n0\r\n").unwrap();
        plain.advance(&[b'0'; 2 * MAX_TRAILER_BYTES]);
        assert!(!plain.exceeds_limit());
        // A size that is none, or beyond all bounds, is ureq's to refuse.
        for odd in ["\r\n", "zz\r\n", "ffffffffffffffffffffff\r\n"] {
            assert!(!Chunked::from_head((HEAD.to_owned() + odd).as_bytes()).unwrap().exceeds_limit());
        }
    }
}
