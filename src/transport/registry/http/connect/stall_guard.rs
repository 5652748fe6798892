//! The minimum progress of a connection. A remote host that sends a byte now and then restarts every read time-out, and
//! would block its client for days.

use super::trailers::{Chunked, MAX_TRAILER_BYTES, head_end};
use crate::rate_limit::Limit;
use crate::transport::registry::http::transport_error::TransportError;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// The bytes of a body that must arrive in each time-out spent waiting for them.
const MIN_BODY_BYTES: usize = 1 << 10;
/// The limit on responses of status 1xx before the final one.
const MAX_INTERIM_RESPONSES: usize = 8;
/// The number of connections that may share one `--limit-rate`.
const MAX_SHARING_CONNECTIONS: u32 = 32;

/// The progress that is required of a connection.
#[derive(Debug, Clone, Copy)]
pub struct StallRules {
    /// The limit on the time from the first byte of a response's head to its last.
    timeout: Duration,
    /// The bytes that must arrive in each `timeout` spent waiting for a body.
    min_bytes: usize,
}

impl StallRules {
    /// A rate limit that is slower than the minimum lowers the minimum.
    pub fn new(timeout: Duration, limit: Option<&Limit>) -> StallRules {
        let min_bytes = limit
            .map_or(MIN_BODY_BYTES, |limit| limit.bytes_in(timeout / MAX_SHARING_CONNECTIONS).clamp(1, MIN_BODY_BYTES));
        StallRules { timeout, min_bytes }
    }
}

/// A connection that fails when the remote host sends too slowly.
#[derive(Debug)]
pub struct StallGuard {
    connection: Box<dyn Transport>,
    rules: StallRules,
    head: HeadProgress,
    body: BodyProgress,
    /// The position in the response's body; `None` until its head is complete.
    chunked: Option<Chunked>,
}

/// The response head that is awaited.
#[derive(Debug, Default)]
struct HeadProgress {
    since: Option<Instant>,
    /// The number of 1xx responses so far.
    interim: usize,
}

/// The progress since the minimum was last reached.
#[derive(Debug, Default)]
struct BodyProgress {
    waited: Duration,
    bytes: usize,
}

impl StallGuard {
    pub fn new(connection: Box<dyn Transport>, rules: StallRules) -> StallGuard {
        StallGuard { connection, rules, head: HeadProgress::default(), body: BodyProgress::default(), chunked: None }
    }

    /// Waits for a response's head. ureq's configuration limits the time before its first byte.
    fn await_head(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        if let Some(since) = self.head.since {
            let left = self.rules.timeout.saturating_sub(since.elapsed());
            timeout.after = (*timeout.after).min(left).into();
            if left.is_zero() {
                return Err(self.stalled("the response head is not complete"));
            }
        }
        match self.connection.await_input(timeout) {
            Err(Error::Timeout(_)) if self.head.since.is_some() => {
                return Err(self.stalled("the response head is not complete"));
            }
            Err(error) => return Err(error),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        // ureq consumes every complete response before it waits for more, so each is counted once.
        let input = self.connection.buffers().input();
        let (interim, rest) = interim_responses(input);
        self.head.interim += interim;
        if self.head.interim > MAX_INTERIM_RESPONSES {
            let why = format!("more than {MAX_INTERIM_RESPONSES} responses of status 1xx, and no final response");
            return Err(TransportError::Transient(why).into());
        }
        if interim > 0 {
            self.head.since = None;
        }
        if !rest.is_empty() {
            self.head.since.get_or_insert_with(Instant::now);
        }
        self.chunked = Chunked::from_head(rest);
        Ok(true)
    }

    /// Waits for a body, or for `100 Continue`. Counts only the time spent waiting: a slow reader is not the remote
    /// host's fault.
    fn await_body(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.connection.buffers().input().len();
        let started = Instant::now();
        let more = self.connection.await_input(timeout)?;
        self.body.waited += started.elapsed();
        let input = self.connection.buffers().input();
        self.body.bytes += input.len() - before;
        match &mut self.chunked {
            Some(chunked) => chunked.advance(&input[before..]),
            // A final response may arrive in place of `100 Continue`, or in the same read.
            None => self.chunked = early_response(input),
        }
        if self.chunked.is_some_and(|chunked| chunked.exceeds_limit()) {
            return Err(TransportError::Transient(format!(
                "the response has more than {MAX_TRAILER_BYTES} bytes of trailers"
            ))
            .into());
        }
        if self.body.bytes >= self.rules.min_bytes {
            self.body = BodyProgress::default();
        } else if more && self.body.waited >= self.rules.timeout {
            return Err(self.stalled(&format!("fewer than {} bytes arrived", self.rules.min_bytes)));
        }
        Ok(more)
    }

    fn stalled(&self, what: &str) -> Error {
        TransportError::Transient(format!("{what} within {} seconds", self.rules.timeout.as_secs_f32())).into()
    }
}

/// The number of complete 1xx responses at the start of `input`, and the bytes after them.
fn interim_responses(mut input: &[u8]) -> (usize, &[u8]) {
    let mut count = 0;
    while let [b'H', b'T', b'T', b'P', b'/', _, b'.', _, b' ', b'1', ..] = input.trim_ascii_start() {
        let Some(end) = head_end(input) else { break };
        input = &input[end..];
        count += 1;
    }
    (count, input)
}

/// The position in the body of the final response in `input`, if its head is complete.
fn early_response(input: &[u8]) -> Option<Chunked> {
    Chunked::from_head(interim_responses(input).1)
}

impl Transport for StallGuard {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        (self.head, self.body) = (HeadProgress::default(), BodyProgress::default());
        self.chunked = early_response(self.connection.buffers().input());
        self.connection.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // Only the wait for a final response has this reason: `Http` sets that time-out, and none for a complete body.
        match timeout.reason {
            Timeout::RecvResponse => self.await_head(timeout),
            _ => self.await_body(timeout),
        }
    }

    fn is_open(&mut self) -> bool {
        self.connection.is_open()
    }

    fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use std::collections::VecDeque;
    use ureq::unversioned::transport::LazyBuffers;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// A connection whose reads return `reads`, one after the other.
    #[derive(Debug)]
    struct Scripted {
        buffers: LazyBuffers,
        reads: VecDeque<Vec<u8>>,
    }

    impl Transport for Scripted {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), Error> {
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
            let Some(read) = self.reads.pop_front() else { return Ok(false) };
            self.buffers.input_append_buf()[..read.len()].copy_from_slice(&read);
            self.buffers.input_appended(read.len());
            Ok(true)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    fn within(reason: Timeout) -> NextTimeout {
        NextTimeout { after: TIMEOUT.into(), reason, ..NextTimeout::default() }
    }

    #[test]
    fn trailers_of_a_response_that_precedes_the_body_are_limited() {
        const REFUSAL: &str = "HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n";
        for (interim, sends_body) in
            [("", false), ("HTTP/1.1 100 Continue\r\n\r\n", true), ("HTTP/1.1 100 Continue\n\n", true)]
        {
            let first = [interim, REFUSAL].concat().into_bytes();
            let trailers = b"a: b\r\n".repeat(1000);
            let reads = [first].into_iter().chain(std::iter::repeat_n(trailers.clone(), 3)).collect();
            let connection = Scripted { buffers: LazyBuffers::new(8 << 10, 8 << 10), reads };
            let mut guard = StallGuard::new(Box::new(connection), StallRules::new(TIMEOUT, None));
            guard.transmit_output(0, within(Timeout::SendRequest)).unwrap();
            guard.await_input(within(Timeout::Await100)).unwrap();
            guard.buffers().input_consume(interim.len());
            if sends_body {
                guard.transmit_output(0, within(Timeout::SendBody)).unwrap();
            }
            // ureq reads the response from its buffer, without another wait.
            guard.buffers().input_consume(REFUSAL.len());
            for _ in 0..2 {
                assert!(guard.await_input(within(Timeout::RecvBody)).unwrap());
                guard.buffers().input_consume(trailers.len());
            }
            let error = guard.await_input(within(Timeout::RecvBody)).unwrap_err();
            assert!(error.to_string().contains("bytes of trailers"), "{interim:?}: {error}");
        }
    }

    #[test]
    fn interim_responses_are_counted_and_the_final_one_is_left() {
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
