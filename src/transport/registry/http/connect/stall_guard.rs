//! The progress that a connection owes: a far side that sends a byte now and then keeps every time-out of a single read
//! from ending, and holds its client for days.

use super::trailers::{Chunked, MAX_TRAILER_BYTES};
use crate::rate_limit::Limit;
use crate::transport::registry::http::transport_error::TransportError;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// In bytes: what has to come in each time-out that is spent waiting for a body.
const MIN_BYTES: usize = 1 << 10;
/// Answers of status 1xx before the one that counts.
const MAX_INTERIM_RESPONSES: usize = 8;
/// So many connections may share one rate.
const MAX_SHARING_CONNECTIONS: u32 = 32;

/// What is asked of a connection.
#[derive(Debug, Clone, Copy)]
pub struct StallRules {
    /// The head of an answer has to be complete within this, from its first byte on.
    timeout: Duration,
    /// In bytes, in each `timeout` of waiting for a body.
    min_bytes: usize,
}

impl StallRules {
    /// A rate that is slower than the floor lowers it.
    pub fn new(timeout: Duration, limit: Option<&Limit>) -> StallRules {
        let min_bytes =
            limit.map_or(MIN_BYTES, |limit| limit.bytes_in(timeout / MAX_SHARING_CONNECTIONS).clamp(1, MIN_BYTES));
        StallRules { timeout, min_bytes }
    }
}

/// A connection that is given up when it crawls.
#[derive(Debug)]
pub struct StallGuard {
    line: Box<dyn Transport>,
    rules: StallRules,
    head: Head,
    body: Body,
    chunked: Chunked,
}

/// Of the answer that is awaited.
#[derive(Debug, Default)]
struct Head {
    since: Option<Instant>,
    interim: usize,
}

/// Since the last time that enough had come.
#[derive(Debug, Default)]
struct Body {
    waited: Duration,
    bytes: usize,
}

impl StallGuard {
    pub fn new(line: Box<dyn Transport>, rules: StallRules) -> StallGuard {
        StallGuard { line, rules, head: Head::default(), body: Body::default(), chunked: Chunked::Plain }
    }

    /// What comes before the first byte has a limit of its own, in ureq's configuration.
    fn await_head(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        if let Some(since) = self.head.since {
            let left = self.rules.timeout.saturating_sub(since.elapsed());
            timeout.after = (*timeout.after).min(left).into();
            if left.is_zero() {
                return Err(self.stalled("the head of the answer is not complete"));
            }
        }
        match self.line.await_input(timeout) {
            Err(Error::Timeout(_)) if self.head.since.is_some() => {
                return Err(self.stalled("the head of the answer is not complete"));
            }
            Err(error) => return Err(error),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        // ureq has taken every whole answer out before it waits for more, so each is counted once.
        let input = self.line.buffers().input();
        let (interim, rest) = interim_responses(input);
        self.head.interim += interim;
        if self.head.interim > MAX_INTERIM_RESPONSES {
            let why = format!("more than {MAX_INTERIM_RESPONSES} answers of status 1xx, and none that counts");
            return Err(TransportError::Transient(why).into());
        }
        if interim > 0 {
            self.head.since = None;
        }
        if !rest.is_empty() {
            self.head.since.get_or_insert_with(Instant::now);
        }
        self.chunked = Chunked::from_head(rest).unwrap_or_default();
        Ok(true)
    }

    /// Counts only time that is spent waiting here: a reader that is slow itself is not the far side's fault.
    fn await_body(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.line.buffers().input().len();
        let started = Instant::now();
        let more = self.line.await_input(timeout)?;
        self.body.waited += started.elapsed();
        let new = &self.line.buffers().input()[before..];
        self.body.bytes += new.len();
        self.chunked.advance(new);
        if self.chunked.exceeds_limit() {
            return Err(TransportError::Transient(format!(
                "more than {MAX_TRAILER_BYTES} bytes follow the body's last chunk"
            ))
            .into());
        }
        if self.body.bytes >= self.rules.min_bytes {
            self.body = Body::default();
        } else if more && self.body.waited >= self.rules.timeout {
            return Err(self.stalled(&format!("fewer than {} bytes came", self.rules.min_bytes)));
        }
        Ok(more)
    }

    fn stalled(&self, what: &str) -> Error {
        TransportError::Transient(format!("{what} within {} seconds", self.rules.timeout.as_secs_f32())).into()
    }
}

/// How many whole answers of status 1xx `input` begins with, and what follows them.
fn interim_responses(mut input: &[u8]) -> (usize, &[u8]) {
    const END: &[u8] = b"\r\n\r\n";
    let mut count = 0;
    while let [b'H', b'T', b'T', b'P', b'/', _, b'.', _, b' ', b'1', ..] = input {
        let Some(at) = input.windows(END.len()).position(|window| window == END) else { break };
        input = &input[at + END.len()..];
        count += 1;
    }
    (count, input)
}

impl Transport for StallGuard {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.line.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        (self.head, self.body, self.chunked) = (Head::default(), Body::default(), Chunked::Plain);
        self.line.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // Only the wait for an answer has this reason: `Http` sets that time-out, and none for a body as a whole.
        match timeout.reason {
            Timeout::RecvResponse => self.await_head(timeout),
            _ => self.await_body(timeout),
        }
    }

    fn is_open(&mut self) -> bool {
        self.line.is_open()
    }

    fn is_tls(&self) -> bool {
        self.line.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;

    #[test]
    fn interim_answers_are_counted_and_the_one_that_counts_is_left() {
        let early = "HTTP/1.1 100 Continue\r\n\r\n".repeat(3) + "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nA: b\r\n\r\nHTTP/1.1 100";
        assert_eq!(interim_responses((early.clone() + last).as_bytes()), (4, last.as_bytes()));
        assert_eq!(interim_responses(early.as_bytes()), (4, &b""[..]));
        assert_eq!(interim_responses(b"HTTP/1.1 100 Cont"), (0, &b"HTTP/1.1 100 Cont"[..]));
    }

    #[test]
    fn a_slow_rate_lowers_the_floor() {
        let (cancel, timeout) = (Cancel::default(), Duration::from_secs(32));
        for (rate, min_bytes) in [(None, 1024), (Some(1 << 20), 1024), (Some(100), 100), (Some(1), 1)] {
            let limit = rate.map(|rate| Limit::new(rate, &cancel));
            assert_eq!(StallRules::new(timeout, limit.as_deref()).min_bytes, min_bytes, "{rate:?}");
        }
        assert_eq!(StallRules::new(Duration::from_secs(1), Some(&Limit::new(1, &cancel))).min_bytes, 1);
    }
}
