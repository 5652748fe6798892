//! The progress that a connection owes: a far side that sends a byte now and then keeps every time-out of a single read
//! from ending, and holds its client for days.

use super::trailers::{Chunked, MAX_TRAILERS};
use crate::rate_limit::Limit;
use crate::transport::registry::http::transport_error::Fault;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// In bytes: what has to come in each time-out that is spent waiting for a body.
const FLOOR_BYTES: usize = 1 << 10;
/// Answers of status 1xx before the one that counts.
const MOST_INTERIM_ANSWERS: usize = 8;
/// So many connections may share one rate.
const SHARED_BY: u32 = 32;

/// What is asked of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The head of an answer has to be complete within this, from its first byte on.
    timeout: Duration,
    /// In bytes, in each `timeout` of waiting for a body.
    floor: usize,
}

impl Rules {
    /// A rate that is slower than the floor lowers it.
    pub fn new(timeout: Duration, limit: Option<&Limit>) -> Rules {
        let floor = limit.map_or(FLOOR_BYTES, |limit| limit.bytes_in(timeout / SHARED_BY).clamp(1, FLOOR_BYTES));
        Rules { timeout, floor }
    }
}

/// A connection that is given up when it crawls.
#[derive(Debug)]
pub struct Steady {
    line: Box<dyn Transport>,
    rules: Rules,
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

impl Steady {
    pub fn new(line: Box<dyn Transport>, rules: Rules) -> Steady {
        Steady { line, rules, head: Head::default(), body: Body::default(), chunked: Chunked::No }
    }

    /// What comes before the first byte has a limit of its own, in ureq's configuration.
    fn await_head(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        if let Some(since) = self.head.since {
            let left = self.rules.timeout.saturating_sub(since.elapsed());
            timeout.after = (*timeout.after).min(left).into();
            if left.is_zero() {
                return Err(self.crawls("the head of the answer is not complete"));
            }
        }
        match self.line.await_input(timeout) {
            Err(Error::Timeout(_)) if self.head.since.is_some() => {
                return Err(self.crawls("the head of the answer is not complete"));
            }
            Err(error) => return Err(error),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        // ureq has taken every whole answer out before it waits for more, so each is counted once.
        let input = self.line.buffers().input();
        let (interim, rest) = interim_answers(input);
        self.head.interim += interim;
        if self.head.interim > MOST_INTERIM_ANSWERS {
            let why = format!("more than {MOST_INTERIM_ANSWERS} answers of status 1xx, and none that counts");
            return Err(Fault::Broken(why).into());
        }
        if interim > 0 {
            self.head.since = None;
        }
        if !rest.is_empty() {
            self.head.since.get_or_insert_with(Instant::now);
        }
        self.chunked = Chunked::begin(rest).unwrap_or_default();
        Ok(true)
    }

    /// Counts only time that is spent waiting here: a reader that is slow itself is not the far side's fault.
    fn await_body(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.line.buffers().input().len();
        let begun = Instant::now();
        let more = self.line.await_input(timeout)?;
        self.body.waited += begun.elapsed();
        let new = &self.line.buffers().input()[before..];
        self.body.bytes += new.len();
        self.chunked.pass(new);
        if self.chunked.is_endless() {
            return Err(Fault::Broken(format!("more than {MAX_TRAILERS} bytes follow the body's last chunk")).into());
        }
        if self.body.bytes >= self.rules.floor {
            self.body = Body::default();
        } else if more && self.body.waited >= self.rules.timeout {
            return Err(self.crawls(&format!("fewer than {} bytes came", self.rules.floor)));
        }
        Ok(more)
    }

    fn crawls(&self, what: &str) -> Error {
        Fault::Broken(format!("{what} within {} seconds", self.rules.timeout.as_secs_f32())).into()
    }
}

/// How many whole answers of status 1xx `input` begins with, and what follows them.
fn interim_answers(mut input: &[u8]) -> (usize, &[u8]) {
    const END: &[u8] = b"\r\n\r\n";
    let mut count = 0;
    while let [b'H', b'T', b'T', b'P', b'/', _, b'.', _, b' ', b'1', ..] = input {
        let Some(at) = input.windows(END.len()).position(|window| window == END) else { break };
        input = &input[at + END.len()..];
        count += 1;
    }
    (count, input)
}

impl Transport for Steady {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.line.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        (self.head, self.body, self.chunked) = (Head::default(), Body::default(), Chunked::No);
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
        assert_eq!(interim_answers((early.clone() + last).as_bytes()), (4, last.as_bytes()));
        assert_eq!(interim_answers(early.as_bytes()), (4, &b""[..]));
        assert_eq!(interim_answers(b"HTTP/1.1 100 Cont"), (0, &b"HTTP/1.1 100 Cont"[..]));
    }

    #[test]
    fn a_slow_rate_lowers_the_floor() {
        let (cancel, timeout) = (Cancel::default(), Duration::from_secs(32));
        for (rate, floor) in [(None, 1024), (Some(1 << 20), 1024), (Some(100), 100), (Some(1), 1)] {
            let limit = rate.map(|rate| Limit::new(rate, &cancel));
            assert_eq!(Rules::new(timeout, limit.as_deref()).floor, floor, "{rate:?}");
        }
        assert_eq!(Rules::new(Duration::from_secs(1), Some(&Limit::new(1, &cancel))).floor, 1);
    }
}
