//! Blobs read from containerd's content store: one streamed call from any offset, started again where it was cut.

use super::call::{Call, Messages, Scope, unary};
use super::connection::Connection;
use super::frames::decode;
use super::messages::{ContentRequest, InfoResponse, ReadRequest, ReadResponse};
use super::status::{Failure, code};
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher, MAX_MANIFEST_BYTES};
use crate::progress::{Event, Watch};
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Consecutive attempts without progress; a time without progress counts as several.
pub(super) const MAX_ATTEMPTS: u32 = 6;
/// The pause before the second attempt; it doubles for each later one.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Interval at which a pause checks for a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The largest message with bytes of a blob: containerd sends 1 MiB, and several are in memory for each blob.
const MAX_PART_BYTES: usize = 4 << 20;
/// The longest answer about one blob: its labels are in it.
const MAX_INFO_BYTES: usize = 4 << 20;

/// Attempts of one operation.
#[derive(Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// The operation made progress.
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// Waits before the next attempt of `what`, after `failure`.
    ///
    /// # Errors
    /// - `failure`, if it is not transient or no attempt is left.
    pub fn again(
        &mut self,
        connection: &Connection,
        watch: &dyn Watch,
        what: &str,
        failure: Failure,
    ) -> Result<(), Failure> {
        let is_stall = matches!(failure, Failure::Stalled(_));
        self.0 += if is_stall { MAX_ATTEMPTS / 2 } else { 1 };
        if !failure.is_transient() || self.0 >= MAX_ATTEMPTS {
            return Err(failure);
        }
        let after = RETRY_PAUSE * (1 << (self.0 - 1));
        watch.event(Event::Retry { what, why: &failure.reason(), after });
        if !matches!(failure, Failure::Status(_)) {
            connection.disconnect();
        }
        for _ in 0..after.as_millis() / POLL_INTERVAL.as_millis() {
            connection.limits().cancel.check()?;
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

/// The size of the blob `digest` in `namespace`, in bytes; `None` if it is not there.
pub(super) fn size(connection: &Arc<Connection>, scope: &Scope, digest: &Digest) -> Result<Option<u64>, Failure> {
    let request = ContentRequest { digest: digest.to_string() };
    let answer = match unary(connection, "containerd.services.content.v1.Content/Info", scope, &request, MAX_INFO_BYTES)
    {
        Ok(answer) => answer,
        Err(failure) if failure.is(code::NOT_FOUND) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let info = decode::<InfoResponse>(answer)?.info.unwrap_or_default();
    if info.digest != request.digest {
        let got = super::status::shortened(&info.digest);
        return Err(Failure::protocol(format!("answered about {got:?} instead of {digest}")));
    }
    match u64::try_from(info.size) {
        Ok(size) => Ok(Some(size)),
        Err(_) => Err(Failure::protocol(format!("reports a negative size of {digest}"))),
    }
}

/// Reads the small blob `digest` completely; `None` if it is not there. `size` is the announced size, where there is
/// one. The bytes are not verified.
pub(super) fn small(
    connection: &Arc<Connection>,
    scope: &Scope,
    digest: &Digest,
    size: Option<u64>,
    watch: &Arc<dyn Watch>,
) -> Result<Option<Vec<u8>>> {
    let mut reader = BlobReader::new(connection.clone(), scope.clone(), *digest, 0, size, watch.clone());
    match reader.open() {
        Ok(()) => {}
        Err(failure) if failure.is(code::NOT_FOUND) => return Ok(None),
        Err(failure) => return Err(failure.into_error(connection.name(), &reader.action())),
    }
    let mut bytes = Vec::new();
    reader.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_MANIFEST_BYTES {
        true => Err(Error::invalid(format!(
            "{}: the document {digest} has more than {MAX_MANIFEST_BYTES} bytes",
            connection.name()
        ))),
        false => Ok(Some(bytes)),
    }
}

/// Hashes all bytes of `reader` with the algorithm of `expected`.
pub(super) fn hash(reader: &mut impl Read, expected: &Digest) -> Result<Digest> {
    let mut hasher = Hasher::new(expected.algorithm());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The bytes of a blob from an offset on.
pub(super) struct BlobReader {
    connection: Arc<Connection>,
    scope: Scope,
    digest: Digest,
    /// The offset of the next byte.
    at: u64,
    /// The offset where the call started.
    started_at: u64,
    /// The announced size.
    size: Option<u64>,
    call: Option<Messages>,
    /// Received bytes that were not read yet.
    received: Bytes,
    is_at_end: bool,
    attempts: Attempts,
    watch: Arc<dyn Watch>,
}

impl BlobReader {
    /// Reads `digest` from offset `from`; `size` is the size that its descriptor announces.
    pub fn new(
        connection: Arc<Connection>,
        scope: Scope,
        digest: Digest,
        from: u64,
        size: Option<u64>,
        watch: Arc<dyn Watch>,
    ) -> BlobReader {
        let (call, received, is_at_end, attempts) = (None, Bytes::new(), false, Attempts::default());
        let (at, started_at) = (from, from);
        BlobReader { connection, scope, digest, at, started_at, size, call, received, is_at_end, attempts, watch }
    }

    /// Starts the call and waits for its first bytes, so that a missing blob is noticed here.
    pub fn open(&mut self) -> Result<(), Failure> {
        loop {
            match self.receive() {
                Ok(()) => return Ok(()),
                Err(failure) => self.prepare_retry(failure)?,
            }
        }
    }

    /// The operation for messages.
    pub fn action(&self) -> String {
        format!("reading blob {}", self.digest)
    }

    fn prepare_retry(&mut self, failure: Failure) -> Result<(), Failure> {
        self.call = None;
        let what = self.digest.short();
        self.attempts.again(&self.connection, &*self.watch, &what, failure)
    }

    /// Receives bytes, unless some are left or the end was reached.
    fn receive(&mut self) -> Result<(), Failure> {
        while self.received.is_empty() && !self.is_at_end {
            let mut call = match self.call.take() {
                Some(call) => call,
                None => self.start()?,
            };
            match call.next()? {
                Some(part) => {
                    self.received = self.check(decode(part)?)?;
                    self.call = Some(call);
                }
                None => self.is_at_end = true,
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Messages, Failure> {
        self.started_at = self.at;
        let offset = i64::try_from(self.at).map_err(|_| Failure::protocol("cannot read behind 8 EiB"))?;
        let method = "containerd.services.content.v1.Content/Read";
        let mut call = Call::start(&self.connection, method, &self.scope, MAX_PART_BYTES)?;
        call.send(&ReadRequest { digest: self.digest.to_string(), offset, size: 0 }, true)?;
        Ok(call.receive_ahead())
    }

    /// The bytes of `part`, if they are the next ones.
    fn check(&self, part: ReadResponse) -> Result<Bytes, Failure> {
        // The API counts offsets from the start of the blob, containerd counts them from the start of the call.
        let offset = u64::try_from(part.offset).ok();
        if offset != Some(self.at) && offset != Some(self.at - self.started_at) {
            let (offset, at, digest) = (part.offset, self.at, self.digest);
            return Err(Failure::protocol(format!("sent the bytes of {digest} at offset {offset} instead of {at}")));
        }
        if part.data.is_empty() {
            return Err(Failure::protocol(format!("sent a part of {} without bytes", self.digest)));
        }
        let end = self.at + part.data.len() as u64;
        match self.size {
            Some(size) if end > size => {
                let digest = self.digest;
                Err(Failure::protocol(format!("sent more than the {size} bytes announced of {digest}")))
            }
            _ => Ok(part.data),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Err(failure) = self.receive() {
            let action = self.action();
            self.prepare_retry(failure).map_err(|failure| failure.into_error(self.connection.name(), &action))?;
        }
        let n = self.received.len().min(buffer.len());
        self.received.copy_to_slice(&mut buffer[..n]);
        self.at += n as u64;
        if n > 0 {
            self.attempts.reset();
        }
        Ok(n)
    }
}
