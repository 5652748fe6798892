//! Reads the body of a response within a limit of bytes and of time.

use super::transport_error::{TransportError, from_body};
use crate::error::{Error, Result};
use crate::rate_limit::{Limit, Limited};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bytes that share one limit of time.
const MAX_PART_BYTES: u64 = 4 << 20;

/// The body of a response. Its errors carry an [`Error`]: `Network` for a broken or slow body, `Invalid` for a body that
/// is too long.
pub struct BodyReader<R> {
    inner: Limited<R>,
    /// The subject of errors.
    subject: String,
    max_bytes: u64,
    received_bytes: u64,
    part: Part,
}

/// The current part of the body: a slow server must not hold a reader for ever.
struct Part {
    max_bytes: u64,
    max_time: Duration,
    bytes: u64,
    /// The time that the reads took.
    time: Duration,
}

impl<R: Read> BodyReader<R> {
    /// Reads at most `max_bytes` from `body`. Each part of 4 MiB must arrive within `max_time`, and the time that
    /// `limit` needs for it.
    pub fn new(
        body: R,
        subject: String,
        max_bytes: u64,
        max_time: Duration,
        limit: Option<&Arc<Limit>>,
    ) -> BodyReader<R> {
        let part_bytes = max_bytes.min(MAX_PART_BYTES);
        let limited = limit.map_or(Duration::ZERO, |rate| rate.duration_of(part_bytes));
        let part = Part { max_bytes: part_bytes, max_time: max_time + limited, bytes: 0, time: Duration::ZERO };
        BodyReader { inner: Limited::new(body, limit), subject, max_bytes, received_bytes: 0, part }
    }

    /// Fails if a body of `length` bytes is too long.
    pub fn check_length(&self, length: u64) -> Result<()> {
        match length > self.max_bytes {
            true => Err(Error::invalid(format!("{} is larger than {} bytes", self.subject, self.max_bytes))),
            false => Ok(()),
        }
    }
}

impl<R: Read> Read for BodyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        let n = self.inner.read(buffer).map_err(|error| match from_body(error) {
            TransportError::Permanent(error) => error,
            fault => Error::network(format!("{}: {fault}", self.subject)),
        })?;
        self.received_bytes += n as u64;
        self.check_length(self.received_bytes)?;
        self.part.bytes += n as u64;
        self.part.time += started.elapsed();
        if n > 0 && self.part.time > self.part.max_time {
            return Err(Error::network(format!("{} arrives too slowly", self.subject)).into());
        }
        if self.part.bytes >= self.part.max_bytes {
            (self.part.bytes, self.part.time) = (0, Duration::ZERO);
        }
        Ok(n)
    }
}
