//! The latest bytes of a stream, stored so that they can be sent again after the connection broke. A pipe and a
//! recompressed layer cannot be read a second time.

use crate::error::{Error, Result};
use crate::transfer::BlobWriter;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

/// The latest bytes of a stream.
pub(crate) struct ReplayBuffer {
    bytes: VecDeque<u8>,
    /// The maximum of stored bytes, unless one piece has more; 0 stores nothing.
    limit: usize,
    /// The offset of their end in the stream.
    end: u64,
}

impl ReplayBuffer {
    pub fn new(limit: usize) -> ReplayBuffer {
        ReplayBuffer { bytes: VecDeque::new(), limit, end: 0 }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        if self.limit == 0 {
            return;
        }
        let limit = self.limit.max(bytes.len());
        let old = (self.bytes.len() + bytes.len()).saturating_sub(limit).min(self.bytes.len());
        self.bytes.drain(..old);
        self.bytes.extend(bytes);
    }

    /// The bytes from offset `from`; `Network` where they are not stored any more.
    fn since(&self, from: u64) -> Result<[&[u8]; 2]> {
        let back = self.end.saturating_sub(from);
        let at = usize::try_from(back).ok().and_then(|back| self.bytes.len().checked_sub(back));
        let Some(at) = at else {
            return Err(Error::network(format!(
                "the connection broke, and only the last {} bytes of a stream can be sent again; save it to a file first",
                self.limit
            )));
        };
        let (head, tail) = self.bytes.as_slices();
        Ok([&head[at.min(head.len())..], &tail[at.saturating_sub(head.len())..]])
    }

    /// Copies bytes from offset `from`; returns 0 where none were added yet.
    fn read(&self, from: u64, buffer: &mut [u8]) -> Result<usize> {
        let part = self.since(from)?.into_iter().find(|part| !part.is_empty()).unwrap_or_default();
        let n = part.len().min(buffer.len());
        buffer[..n].copy_from_slice(&part[..n]);
        Ok(n)
    }

    /// Writes the bytes from offset `from`, and earlier ones where the writer fails and recovers.
    pub fn write(&self, mut from: u64, writer: &mut dyn BlobWriter) -> Result<()> {
        loop {
            let [head, tail] = self.since(from)?;
            let mut parts = [head, tail].into_iter().filter(|part| !part.is_empty());
            match parts.try_for_each(|part| writer.write(part)) {
                Ok(()) => return Ok(()),
                Err(error) => from = writer.recover(error)?,
            }
        }
    }
}

/// A stream whose latest bytes can be read again.
pub(crate) struct Replay<'a>(Mutex<ReplayedSource<'a>>);

struct ReplayedSource<'a> {
    bytes: Box<dyn Read + Send + 'a>,
    latest: ReplayBuffer,
}

impl<'a> Replay<'a> {
    /// The stream `bytes`, of which the last `limit` bytes can be read again.
    pub fn new(bytes: Box<dyn Read + Send + 'a>, limit: usize) -> Replay<'a> {
        Replay(Mutex::new(ReplayedSource { bytes, latest: ReplayBuffer::new(limit) }))
    }

    /// The bytes from offset `from`. Unread bytes before it are skipped.
    pub fn read_from(&self, from: u64) -> Result<ReplayReader<'_, 'a>> {
        let mut source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = from.saturating_sub(source.latest.end);
        if unread > 0 {
            io::copy(&mut (&mut source.bytes).take(unread), &mut io::sink())?;
            source.latest = ReplayBuffer { end: from, ..ReplayBuffer::new(source.latest.limit) };
        }
        source.latest.since(from)?;
        Ok(ReplayReader { replay: self, at: from })
    }
}

/// A [`Replay`] from one offset.
pub(crate) struct ReplayReader<'r, 'a> {
    replay: &'r Replay<'a>,
    at: u64,
}

impl Read for ReplayReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut source = self.replay.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut n = source.latest.read(self.at, buffer)?;
        if n == 0 {
            n = source.bytes.read(buffer)?;
            source.latest.add(&buffer[..n]);
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8 << 20;

    fn noise(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn the_last_bytes_come_again_and_older_ones_do_not() {
        let bytes = noise(LIMIT + 1000);
        let replay = Replay::new(Box::new(&bytes[..]), LIMIT);
        let mut read = Vec::new();
        replay.read_from(0).unwrap().take(5000).read_to_end(&mut read).unwrap();
        replay.read_from(5000).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        let mut again = Vec::new();
        replay.read_from(1000).unwrap().read_to_end(&mut again).unwrap();
        assert!(again == bytes[1000..]);
        assert_eq!(replay.read_from(999).err().map(|error| error.kind()), Some(crate::Kind::Network));
    }

    #[test]
    fn nothing_is_kept_where_nothing_will_be_sent_again() {
        let bytes = noise(5000);
        let replay = Replay::new(Box::new(&bytes[..]), 0);
        let mut read = Vec::new();
        replay.read_from(0).unwrap().take(2000).read_to_end(&mut read).unwrap();
        replay.read_from(2000).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert!(replay.0.lock().unwrap().latest.bytes.is_empty());
        assert!(replay.read_from(1999).is_err());
    }

    #[test]
    fn what_an_earlier_run_left_passes_unread() {
        let bytes = noise(1000);
        let replay = Replay::new(Box::new(&bytes[..]), LIMIT);
        let mut read = Vec::new();
        replay.read_from(700).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, &bytes[700..]);
        assert!(replay.read_from(0).is_err());
    }
}
