//! Downloads a blob (distribution-spec, "Pulling blobs"). After a broken connection the download resumes at its offset
//! with `Range`, while retries are left; progress resets them.

use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::transport::registry::auth::token::Scope;
use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::http::retry::{PROGRESS_BYTES, RetryPolicy};
use crate::transport::registry::http::transport_error::{TransportError, from_body};
use crate::transport::registry::http::{Call, Response};
use std::io::{self, Read};
use std::ops::Range;
use ureq::http::{Method, header};

/// The buffer size for discarded bytes.
const DISCARD_BUFFER_BYTES: u64 = 64 << 10;

/// Reads one blob from an offset to its end. More bytes than announced are `Invalid` (marked as a digest mismatch), whatever
/// the lengths in the response.
pub struct BlobReader<'a> {
    client: &'a RegistryClient,
    repository: &'a str,
    blob: Descriptor,
    at: u64,
    /// The end of the requested range: the blob's end, unless the server supports ranges and a shorter one was requested.
    end: u64,
    body: Box<dyn Read + Send>,
    /// The number of body bytes to discard, since they were read before: the server does not support ranges.
    discard: u64,
    retries: RetryPolicy<'a>,
    /// The offset at which the current connection started.
    connection_start: u64,
    /// A response announced fewer bytes than the blob has.
    short: bool,
}

impl<'a> BlobReader<'a> {
    /// Requests `blob` from offset `from` (bytes) to its end.
    pub fn open(
        client: &'a RegistryClient,
        repository: &'a str,
        blob: &Descriptor,
        from: u64,
    ) -> Result<BlobReader<'a>> {
        BlobReader::open_range(client, repository, blob, from..blob.size)
    }

    /// Requests a range of `blob`. A server without ranges sends the complete blob: see [`BlobReader::end_offset`].
    pub fn open_range(
        client: &'a RegistryClient,
        repository: &'a str,
        blob: &Descriptor,
        range: Range<u64>,
    ) -> Result<BlobReader<'a>> {
        let (at, blob, retries) = (range.start, blob.clone(), client.retry_policy(0));
        let RangeBody { body, discard, end, short } = request(client, repository, &blob, range)?;
        Ok(BlobReader { client, repository, blob, at, end, body, discard, retries, connection_start: at, short })
    }

    /// The offset at which reading ends, in bytes.
    pub fn end_offset(&self) -> u64 {
        self.end
    }

    /// Requests the rest after the connection broke because of `why`.
    fn reconnect(&mut self, why: &str) -> Result<()> {
        self.client.cancel.check()?;
        if self.at - self.connection_start >= PROGRESS_BYTES {
            self.retries.reset();
        }
        let what = format!("blob {} of {}/{}", self.blob.digest.short(), self.client.host, self.repository);
        if !self.retries.may_retry() {
            return Err(self.retries.final_error(&what, why));
        }
        self.retries.wait(&what, why, None)?;
        let RangeBody { body, discard, end, short } =
            request(self.client, self.repository, &self.blob, self.at..self.end)?;
        if short && self.short {
            return Err(Error::invalid(format!(
                "blob {} at {} ends after {} of the {} bytes announced; the registry or a proxy truncates it",
                self.blob.digest, self.client.host, self.at, self.blob.size
            )));
        }
        (self.body, self.discard, self.end, self.short) = (body, discard, end, self.short || short);
        self.connection_start = self.at;
        Ok(())
    }
}

impl BlobReader<'_> {
    /// Reads and discards at most `bytes` bytes of the body.
    fn discard_some(&mut self, bytes: u64) -> io::Result<usize> {
        let mut discarded = vec![0; DISCARD_BUFFER_BYTES.min(bytes) as usize];
        self.body.read(&mut discarded)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self.discard {
                0 => self.body.read(buffer),
                bytes => self.discard_some(bytes),
            };
            let why = match read {
                Ok(0) if self.at < self.end && !buffer.is_empty() => "it ended early".to_owned(),
                Ok(n) if self.discard > 0 => {
                    self.discard -= n as u64;
                    continue;
                }
                Ok(n) => {
                    self.at += n as u64;
                    if self.at > self.end {
                        return Err(too_long(&self.blob, self.client).into());
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => match from_body(error) {
                    TransportError::Transient(why) | TransportError::Unreachable(why) => why,
                    fault => return Err(self.client.permanent_error(fault).into()),
                },
            };
            self.reconnect(&why)?;
        }
    }
}

/// The response to a request for a range of a blob.
struct RangeBody {
    body: Box<dyn Read + Send>,
    /// The number of body bytes before the range.
    discard: u64,
    /// The offset at which the range ends, in bytes.
    end: u64,
    /// The announced length of the body is too small: a truncated transfer that looks complete.
    short: bool,
}

/// Requests the bytes in `range`. If the server cannot send the rest of a blob, the complete blob is requested.
fn request(client: &RegistryClient, repository: &str, blob: &Descriptor, range: Range<u64>) -> Result<RangeBody> {
    let Range { start: from, end } = range;
    let size = blob.size;
    if from == end && from > 0 {
        return Ok(RangeBody { body: Box::new(io::empty()), discard: 0, end, short: false });
    }
    let header = match (from, end < size) {
        (0, false) => None,
        (_, false) => Some(format!("bytes={from}-")),
        (_, true) => Some(format!("bytes={from}-{}", end - 1)),
    };
    let mut response = get(client, repository, blob, header.as_deref())?;
    if response.status == 206
        && let Some((first, last)) = content_range(&response)
        && first == from
    {
        let short = response.length().is_some_and(|length| length < last.saturating_add(1).saturating_sub(first));
        // Some servers ignore the end of a range and send everything from its start.
        let end = last.saturating_add(1).clamp(end, size);
        return Ok(RangeBody { body: Box::new(response.into_reader()), discard: 0, end, short });
    }
    if end < size && (from > 0 || response.status != 200) {
        return Err(Error::failed(format!("{} does not support ranges", client.host)));
    }
    if from > 0 {
        client
            .watch
            .say(&format!("{} does not support ranges; downloading the blob again from its start", client.host));
    }
    if response.status != 200 {
        // The server sent another range, or refused the range.
        response = get(client, repository, blob, None)?;
    }
    match response.length() {
        _ if response.status != 200 => Err(Error::invalid(format!(
            "{}: the response has a range of blob {}, expected all of it",
            client.host, blob.digest
        ))),
        Some(length) if length > size => Err(too_long(blob, client)),
        // A proxy may have cached a truncated body; the rest is requested after this body.
        length => {
            let short = length.is_some_and(|length| length < size);
            Ok(RangeBody { body: Box::new(response.into_reader()), discard: from, end: size, short })
        }
    }
}

/// Sends `GET` for a blob. Returns a response of status 200, with `range` also of 206 or 416.
fn get(client: &RegistryClient, repository: &str, blob: &Descriptor, range: Option<&str>) -> Result<Response> {
    let digest = &blob.digest;
    let mut call = Call::new(Method::GET, client.url(&format!("{repository}/blobs/{digest}"))?);
    if let Some(range) = range {
        call = call.with(header::RANGE, range);
    }
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("blob {digest} in {repository}"));
    // The storage host may respond with 404 for an expired URL, too.
    let response = client.get(&call, &scope, &what, &[400, 401, 403, 404, 410])?;
    match response.status {
        206 | 416 if range.is_some() => Ok(response),
        // A response of the right length is accepted even if it looks like a web page: the blob may be one.
        200 if response.length() == Some(blob.size) => Ok(response),
        _ => client.expect(response, &[200], &scope, &what),
    }
}

/// The offsets of the first and the last byte, from `Content-Range: bytes 10-99/100` (RFC 9110, section 14.4).
fn content_range(response: &Response) -> Option<(u64, u64)> {
    let range = response.header("content-range")?.trim().strip_prefix("bytes")?.split('/').next()?;
    let (first, last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

/// A digest mismatch, so the blob is requested once more: a proxy may have sent another document.
fn too_long(blob: &Descriptor, client: &RegistryClient) -> Error {
    Error::digest_mismatch(format!(
        "blob {} at {} has more than the {} bytes announced",
        blob.digest, client.host, blob.size
    ))
}
