//! A blob on its way from a registry (distribution-spec, "Pulling blobs"): a connection that breaks is taken up where
//! it was, with `Range`, while tries are left and bytes come in.

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

/// In bytes, of what is read and not used.
const UNUSED: u64 = 64 << 10;

/// Reads one blob from an offset to its end. Believes nothing of lengths: more than announced is `Invalid`.
pub struct BlobReader<'a> {
    wire: &'a RegistryClient,
    repository: &'a str,
    blob: Descriptor,
    at: u64,
    /// Where what was asked for ends: the blob's end, unless the server keeps to ranges and was asked for less.
    end: u64,
    body: Box<dyn Read + Send>,
    /// Bytes of the body in hand that were read before and pass unused: its server knows no ranges.
    again: u64,
    tries: RetryPolicy<'a>,
    /// Where the connection in hand began.
    began: u64,
    /// An answer has announced fewer bytes than it should have had.
    short: bool,
}

impl<'a> BlobReader<'a> {
    /// Asks for `blob` from offset `from` (in bytes) on.
    pub fn open(wire: &'a RegistryClient, repository: &'a str, blob: &Descriptor, from: u64) -> Result<BlobReader<'a>> {
        BlobReader::open_part(wire, repository, blob, from..blob.size)
    }

    /// Asks for a part of `blob`. A server that knows no ranges sends all from its start on: see [`BlobReader::end`].
    pub fn open_part(
        wire: &'a RegistryClient,
        repository: &'a str,
        blob: &Descriptor,
        part: Range<u64>,
    ) -> Result<BlobReader<'a>> {
        let (at, blob, tries) = (part.start, blob.clone(), wire.retry_policy(0));
        let Part { body, again, end, short } = body(wire, repository, &blob, part)?;
        Ok(BlobReader { wire, repository, blob, at, end, body, again, tries, began: at, short })
    }

    /// Where reading ends, in bytes from the blob's start.
    pub fn end(&self) -> u64 {
        self.end
    }

    fn take_up(&mut self, why: &str) -> Result<()> {
        self.wire.cancel.check()?;
        if self.at - self.began >= PROGRESS_BYTES {
            self.tries.reset();
        }
        let what = format!("blob {} of {}/{}", self.blob.digest.short(), self.wire.host, self.repository);
        if !self.tries.may_retry() {
            return Err(self.tries.final_error(&what, why));
        }
        self.tries.wait(&what, why, None)?;
        let Part { body, again, end, short } = body(self.wire, self.repository, &self.blob, self.at..self.end)?;
        if short && self.short {
            return Err(Error::invalid(format!(
                "blob {} at {} ends after {} of the {} bytes announced; the registry, or a proxy before it, cuts it",
                self.blob.digest, self.wire.host, self.at, self.blob.size
            )));
        }
        (self.body, self.again, self.end, self.short) = (body, again, end, self.short || short);
        self.began = self.at;
        Ok(())
    }
}

impl BlobReader<'_> {
    /// Reads some of the `again` bytes that nobody needs.
    fn pass(&mut self, again: u64) -> io::Result<usize> {
        let mut unused = vec![0; UNUSED.min(again) as usize];
        self.body.read(&mut unused)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self.again {
                0 => self.body.read(buffer),
                again => self.pass(again),
            };
            let why = match read {
                Ok(0) if self.at < self.end && !buffer.is_empty() => "it ended early".to_owned(),
                Ok(n) if self.again > 0 => {
                    self.again -= n as u64;
                    continue;
                }
                Ok(n) => {
                    self.at += n as u64;
                    if self.at > self.end {
                        return Err(longer(&self.blob, self.wire).into());
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => match from_body(error) {
                    TransportError::Transient(why) | TransportError::Unreachable(why) => why,
                    fault => return Err(self.wire.permanent_error(fault).into()),
                },
            };
            self.take_up(&why)?;
        }
    }
}

/// What was answered to a question for a part of a blob.
struct Part {
    body: Box<dyn Read + Send>,
    /// Bytes before the part, in the body all the same.
    again: u64,
    /// Where the part ends, in bytes from the blob's start.
    end: u64,
    /// The body ends before, by its announced length: a broken transfer that looks whole.
    short: bool,
}

/// Asks for `part`. Where all that is left of a blob cannot be had, the whole of it is asked for.
fn body(wire: &RegistryClient, repository: &str, blob: &Descriptor, part: Range<u64>) -> Result<Part> {
    let Range { start: from, end } = part;
    let size = blob.size;
    if from == end && from > 0 {
        return Ok(Part { body: Box::new(io::empty()), again: 0, end, short: false });
    }
    let range = match (from, end < size) {
        (0, false) => None,
        (_, false) => Some(format!("bytes={from}-")),
        (_, true) => Some(format!("bytes={from}-{}", end - 1)),
    };
    let mut answer = ask(wire, repository, blob, range.as_deref())?;
    if answer.status == 206
        && let Some((first, last)) = part_of(&answer)
        && first == from
    {
        let short = answer.length().is_some_and(|length| length < last.saturating_add(1).saturating_sub(first));
        // Some servers know no ends, and send all from there on.
        let end = last.saturating_add(1).clamp(end, size);
        return Ok(Part { body: Box::new(answer.into_reader()), again: 0, end, short });
    }
    if end < size && (from > 0 || answer.status != 200) {
        return Err(Error::failed(format!("{} does not keep to ranges", wire.host)));
    }
    if from > 0 {
        wire.watch.say(&format!("{} cannot continue in the middle of a blob; reading it from its start", wire.host));
    }
    if answer.status != 200 {
        // Another part than was asked for, or none.
        answer = ask(wire, repository, blob, None)?;
    }
    match answer.length() {
        _ if answer.status != 200 => Err(Error::invalid(format!(
            "{} answers with a part of blob {} although it was asked for all of it",
            wire.host, blob.digest
        ))),
        Some(length) if length > size => Err(longer(blob, wire)),
        // A proxy may have kept a body that broke off: the rest is asked for when this has come.
        length => {
            let short = length.is_some_and(|length| length < size);
            Ok(Part { body: Box::new(answer.into_reader()), again: from, end: size, short })
        }
    }
}

/// An answer of status 200, or to a question for a `range` also 206 or 416.
fn ask(wire: &RegistryClient, repository: &str, blob: &Descriptor, range: Option<&str>) -> Result<Response> {
    let digest = &blob.digest;
    let mut call = Call::new(Method::GET, wire.url(&format!("{repository}/blobs/{digest}"))?);
    if let Some(range) = range {
        call = call.with(header::RANGE, range);
    }
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("blob {digest} in {repository}"));
    // Storage that has no such blob may have been asked too late, too.
    let answer = wire.get(&call, &scope, &what, &[400, 401, 403, 404, 410])?;
    match answer.status {
        206 | 416 if range.is_some() => Ok(answer),
        // Of the right length it may be a blob that is a web page.
        200 if answer.length() == Some(blob.size) => Ok(answer),
        _ => wire.expect(answer, &[200], &scope, &what),
    }
}

/// The first and the last byte's position by `Content-Range: bytes 10-99/100` (RFC 9110, section 14.4).
fn part_of(answer: &Response) -> Option<(u64, u64)> {
    let range = answer.header("content-range")?.trim().strip_prefix("bytes")?.split('/').next()?;
    let (first, last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

/// Worth a second look: a proxy may have answered with something else.
fn longer(blob: &Descriptor, wire: &RegistryClient) -> Error {
    Error::digest_mismatch(format!(
        "blob {} at {} has more than the {} bytes announced",
        blob.digest, wire.host, blob.size
    ))
}
