//! A blob on its way from a registry (distribution-spec, "Pulling blobs"): a connection that breaks is taken up where
//! it was, with `Range`, while tries are left and bytes come in.

use super::fault::{Fault, of_body};
use super::http::{Answer, Call, Payload};
use super::retry::{PROGRESS, Tries};
use super::token::Scope;
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::image::Descriptor;
use std::io::{self, Read};
use std::ops::Range;
use ureq::http::{Method, header};

/// Reads one blob from an offset to its end. Believes nothing of lengths: more than announced is `Invalid`.
pub struct BlobReader<'a> {
    wire: &'a Wire,
    repository: &'a str,
    blob: Descriptor,
    at: u64,
    /// Where what was asked for ends: the blob's end, unless the server keeps to ranges and was asked for less.
    end: u64,
    body: Box<dyn Read + Send>,
    tries: Tries<'a>,
    /// Where the connection in hand began.
    began: u64,
}

impl<'a> BlobReader<'a> {
    /// Asks for `blob` from offset `from` (in bytes) on.
    pub fn open(wire: &'a Wire, repository: &'a str, blob: &Descriptor, from: u64) -> Result<BlobReader<'a>> {
        BlobReader::open_part(wire, repository, blob, from..blob.size)
    }

    /// Asks for a part of `blob`. A server that knows no ranges sends all from its start on: see [`BlobReader::end`].
    pub fn open_part(
        wire: &'a Wire,
        repository: &'a str,
        blob: &Descriptor,
        part: Range<u64>,
    ) -> Result<BlobReader<'a>> {
        let (at, blob, tries) = (part.start, blob.clone(), wire.tries(0));
        let (body, end) = body(wire, repository, &blob, part)?;
        Ok(BlobReader { wire, repository, blob, at, end, body, tries, began: at })
    }

    /// Where reading ends, in bytes from the blob's start.
    pub fn end(&self) -> u64 {
        self.end
    }

    fn take_up(&mut self, why: &str) -> Result<()> {
        self.wire.cancel.check()?;
        if self.at - self.began >= PROGRESS {
            self.tries.refill();
        }
        let what = format!("blob {} of {}/{}", self.blob.digest.short(), self.wire.host, self.repository);
        if !self.tries.left() {
            return Err(self.tries.give_up(&what, why));
        }
        self.tries.wait(&what, why, None)?;
        let (body, end) = body(self.wire, self.repository, &self.blob, self.at..self.end)?;
        (self.body, self.end) = (body, end);
        self.began = self.at;
        Ok(())
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let why = match self.body.read(buffer) {
                Ok(0) if self.at < self.end && !buffer.is_empty() => "it ended early".to_owned(),
                Ok(n) => {
                    self.at += n as u64;
                    if self.at > self.end {
                        return Err(longer(&self.blob, self.wire).into());
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => match of_body(error) {
                    Fault::Broken(why) | Fault::Unreachable(why) => why,
                    fault => return Err(self.wire.lasting(fault).into()),
                },
            };
            self.take_up(&why)?;
        }
    }
}

/// A body that begins where `part` does, and where it ends.
fn body(wire: &Wire, repository: &str, blob: &Descriptor, part: Range<u64>) -> Result<(Box<dyn Read + Send>, u64)> {
    let Range { start: from, end } = part;
    if from == end && from > 0 {
        return Ok((Box::new(io::empty()), end));
    }
    let ranged = from > 0 || end < blob.size;
    let digest = &blob.digest;
    let mut call = Call::new(Method::GET, wire.url(&format!("{repository}/blobs/{digest}"))?);
    if ranged {
        let last = if end < blob.size { (end - 1).to_string() } else { String::new() };
        call = call.with(header::RANGE, &format!("bytes={from}-{last}"));
    }
    let (scope, what) = (Scope::Pull(repository.to_owned()), format!("blob {digest} in {repository}"));
    let answer = wire.send(&call, Payload::Nothing, &scope, &what)?;
    let answer = match answer.status {
        206 | 416 if ranged => answer,
        _ => wire.expect(answer, &[200], &scope, &what)?,
    };
    let size = blob.size;
    match answer.status {
        206 if part_of(&answer).is_some_and(|(first, _)| first == from) => {
            // Some servers know no ends, and send all from there on.
            let end = part_of(&answer).map_or(end, |(_, last)| last.saturating_add(1).clamp(end, size));
            Ok((Box::new(answer.into_reader()), end))
        }
        206 => {
            Err(Error::invalid(format!("{} answers with another part of blob {digest} than was asked for", wire.host)))
        }
        416 => Err(Error::invalid(format!("{} has less of blob {digest} than the {size} bytes announced", wire.host))),
        _ if answer.length().is_some_and(|length| length > size) => Err(longer(blob, wire)),
        _ if answer.length().is_some_and(|length| length < size) => {
            let found = answer.length().unwrap_or_default();
            Err(Error::invalid(format!("blob {digest} at {} has {found} bytes, announced were {size}", wire.host)))
        }
        _ if end < size && from > 0 => Err(Error::failed(format!("{} does not keep to ranges", wire.host))),
        _ => Ok((skipped(answer, from, wire)?, size)),
    }
}

/// For a server that ignores `Range`: what was read before is read again, and dropped.
fn skipped(answer: Answer, from: u64, wire: &Wire) -> Result<Box<dyn Read + Send>> {
    let mut reader = answer.into_reader();
    if from > 0 {
        wire.watch.say(&format!("{} cannot continue in the middle of a blob; reading it from its start", wire.host));
        let passed = io::copy(&mut (&mut reader).take(from), &mut io::sink()).map_err(|e| wire.lasting(of_body(e)))?;
        if passed < from {
            return Err(Error::network(format!("{} ended a blob early", wire.host)));
        }
    }
    Ok(Box::new(reader))
}

/// The first and the last byte's position by `Content-Range: bytes 10-99/100` (RFC 9110, section 14.4).
fn part_of(answer: &Answer) -> Option<(u64, u64)> {
    let range = answer.header("content-range")?.trim().strip_prefix("bytes")?.split('/').next()?;
    let (first, last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

fn longer(blob: &Descriptor, wire: &Wire) -> Error {
    Error::invalid(format!("blob {} at {} has more than the {} bytes announced", blob.digest, wire.host, blob.size))
}
