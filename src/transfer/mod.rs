//! One blob through: read, hash, write, check. The only maker of [`Verified`].

mod incoming;
mod recompress;
pub(crate) mod replay;
mod verified;
mod writer;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use crate::progress::{Event, Watch};
use crate::source::Claim;
use std::{
    io::Read,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering, mpsc},
    thread,
};

pub use incoming::IncomingBlob;
pub use recompress::{Recompress, measure_recompressed, transfer_recompressed};
pub use verified::Verified;
pub use writer::BlobWriter;

/// Bytes in one buffer. Large enough that system calls do not count, small enough for many lanes.
const BUFFER: usize = 256 << 10;
/// Bytes in one buffer each of all copies that run side by side.
const COMPANY_BUFFERS: usize = 2 << 20;
/// Buffers that a hashing thread may be behind by.
const BUFFERS: usize = 4;
/// A blob from this size on, in bytes, is hashed on a thread of its own while it is written.
const LARGE: u64 = 2 << 20;

/// What every byte loop of a run looks at and reports to.
pub struct TransferContext<'a> {
    pub watch: &'a dyn Watch,
    pub cancel: &'a Cancel,
    /// Raised when another lane has failed.
    pub stop: &'a AtomicBool,
    /// The blob's number in events.
    pub id: u64,
    /// Threads for recoding.
    pub threads: usize,
    /// Bytes in one buffer.
    pub buffer: usize,
    /// Bytes of what is packed on the way that are kept for a line that breaks.
    pub recent: usize,
}

/// Bytes in one buffer of each of `company` copies that run side by side.
pub fn buffer_in_company(company: usize) -> usize {
    (COMPANY_BUFFERS / company.max(1)).clamp(BUFFER / 8, BUFFER)
}

impl TransferContext<'_> {
    fn moved(&self, bytes: usize) -> Result<()> {
        self.cancel.check()?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        self.watch.event(Event::BlobMoved { id: self.id, bytes: bytes as u64 });
        Ok(())
    }
}

/// Opens the source's bytes from an offset on.
pub type Opener<'o, 'r> = dyn FnMut(u64) -> Result<Box<dyn Read + Send + 'r>> + 'o;

/// Moves one blob from `open` to `writer` as it is and commits it if it is what `claim` says.
///
/// Fails with `Invalid` on a wrong digest or size; then nothing is committed.
pub fn transfer(
    claim: &Claim,
    open: &mut Opener<'_, '_>,
    mut writer: Box<dyn BlobWriter + '_>,
    flow: &TransferContext<'_>,
) -> Result<Verified> {
    let algorithm = claim.digest.map_or_else(Default::default, |digest| digest.algorithm());
    let (from, hasher) = writer.start(Hasher::new(algorithm))?;
    let large = claim.size.is_none_or(|size| size.saturating_sub(from) >= LARGE);
    let (digest, size) = match large {
        true => hash_aside(hasher, |hash| pump(claim, from, open, &mut *writer, hash, flow))?,
        false => {
            let mut hasher = hasher;
            let size = pump(
                claim,
                from,
                open,
                &mut *writer,
                &mut |buffer: &Shared, range| hasher.update(&buffer[range]),
                flow,
            )?;
            (hasher.finish(), size)
        }
    };
    check(claim, digest, size)?;
    let verified = Verified { source: (digest, size), stored: (digest, size), raw: None, resumed: from };
    while let Err(error) = writer.finish(&verified) {
        let again = writer.recover(error)?;
        // These bytes were hashed already.
        pump(claim, again, open, &mut *writer, &mut |_, _| {}, flow)?;
    }
    writer.commit(&verified)?;
    Ok(verified)
}

type Shared = Arc<Vec<u8>>;
type Hash<'h> = dyn FnMut(&Shared, std::ops::Range<usize>) + 'h;

/// Reads to the end and writes, handing every byte to `hash` once; the total size.
fn pump(
    claim: &Claim,
    mut at: u64,
    open: &mut Opener<'_, '_>,
    writer: &mut dyn BlobWriter,
    hash: &mut Hash<'_>,
    flow: &TransferContext<'_>,
) -> Result<u64> {
    let capacity = claim.size.map_or(flow.buffer, |size| flow.buffer.min((size as usize).saturating_add(1)).max(4096));
    let mut ring: Vec<Shared> = Vec::with_capacity(BUFFERS);
    let mut hashed = at;
    let mut reader = open(at)?;
    loop {
        let mut slot = free(&mut ring, capacity);
        let buffer = Arc::get_mut(&mut slot).expect("a free buffer has one owner");
        let (filled, failure) = fill(&mut reader, buffer, flow)?;
        if let Some(size) = claim.size
            && at + filled as u64 > size
        {
            return Err(Error::invalid(format!("{} has more than the {size} bytes announced", named(claim))));
        }
        let new = filled - (hashed.saturating_sub(at) as usize).min(filled);
        if new > 0 {
            hash(&slot, filled - new..filled);
            hashed += new as u64;
        }
        match writer.write(&slot[..filled]) {
            Ok(()) => at += filled as u64,
            Err(error) => {
                at = writer.recover(error)?;
                reader = open(at)?;
                ring.push(slot);
                continue;
            }
        }
        ring.push(slot);
        match failure {
            Some(error) => return Err(error),
            None if filled < capacity => return Ok(at),
            None => {}
        }
    }
}

/// A buffer that nobody else holds: one of the ring once it is free, or a new one while the ring is short.
fn free(ring: &mut Vec<Shared>, capacity: usize) -> Shared {
    loop {
        if let Some(at) = ring.iter().position(|slot| Arc::strong_count(slot) == 1) {
            return ring.swap_remove(at);
        }
        if ring.len() < BUFFERS {
            return Arc::new(vec![0; capacity]);
        }
        // The hashing thread is behind; its channel has already made this thread wait for most of it.
        thread::yield_now();
    }
}

/// Fills `buffer` as far as the reader gives; short only at its end or with the error that ended it.
fn fill(reader: &mut dyn Read, buffer: &mut [u8], flow: &TransferContext<'_>) -> Result<(usize, Option<Error>)> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => {
                filled += n;
                flow.moved(n)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => flow.moved(0)?,
            Err(error) => return Ok((filled, Some(Error::from(error)))),
        }
    }
    Ok((filled, None))
}

/// Runs `work` with hashing on a thread of its own; the digest and what `work` gave.
fn hash_aside<T>(hasher: Hasher, work: impl FnOnce(&mut Hash<'_>) -> Result<T>) -> Result<(Digest, T)> {
    thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel::<(Shared, std::ops::Range<usize>)>(BUFFERS - 2);
        let side = scope.spawn(move || {
            let mut hasher = hasher;
            for (buffer, range) in receive {
                hasher.update(&buffer[range]);
            }
            hasher.finish()
        });
        let done = work(&mut |buffer, range| {
            // Fails only if the hashing thread has panicked, which `join` reports.
            let _ = send.send((buffer.clone(), range));
        });
        drop(send);
        let digest = side.join().map_err(|_| Error::failed("the hashing thread panicked"))?;
        Ok((digest, done?))
    })
}

fn check(claim: &Claim, digest: Digest, size: u64) -> Result<()> {
    if let Some(expected) = claim.size
        && expected != size
    {
        return Err(Error::invalid(format!(
            "{} has {size} bytes, announced were {expected}; it was not kept",
            named(claim)
        )));
    }
    match claim.digest {
        Some(expected) if expected != digest => {
            Err(Error::digest_mismatch(format!("blob {expected} does not match: got {digest}; it was not kept")))
        }
        _ => Ok(()),
    }
}

fn named(claim: &Claim) -> String {
    match claim.digest {
        Some(digest) => format!("blob {digest}"),
        None => "a blob".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::{io::Cursor, sync::Mutex};

    #[derive(Default)]
    struct Kept(Mutex<(Vec<u8>, Option<Verified>)>);
    struct Keep<'a>(&'a Kept, Option<u64>);
    impl BlobWriter for Keep<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<()> {
            let mut kept = self.0.0.lock().unwrap();
            if let Some(at) = self.1
                && kept.0.len() as u64 >= at
            {
                return Err(Error::network("cut"));
            }
            kept.0.extend_from_slice(bytes);
            Ok(())
        }
        fn recover(&mut self, _: Error) -> Result<u64> {
            let mut kept = self.0.0.lock().unwrap();
            let at = kept.0.len() as u64 - 1000;
            kept.0.truncate(at as usize);
            self.1 = None;
            Ok(at)
        }
        fn commit(self: Box<Self>, blob: &Verified) -> Result<()> {
            self.0.0.lock().unwrap().1 = Some(blob.clone());
            Ok(())
        }
    }

    fn run(bytes: &[u8], claim: &Claim, fail_at: Option<u64>) -> (Result<Verified>, Kept) {
        let kept = Kept::default();
        let (cancel, stop) = (Cancel::default(), AtomicBool::new(false));
        let flow = TransferContext {
            watch: &Silent,
            cancel: &cancel,
            stop: &stop,
            id: 0,
            threads: 1,
            buffer: BUFFER,
            recent: BUFFER,
        };
        let mut open = |from: u64| Ok(Box::new(Cursor::new(bytes[from as usize..].to_vec())) as Box<dyn Read + Send>);
        let done = transfer(claim, &mut open, Box::new(Keep(&kept, fail_at)), &flow);
        (done, kept)
    }

    fn claim(bytes: &[u8]) -> Claim {
        Claim { digest: Some(Digest::of(bytes)), size: Some(bytes.len() as u64) }
    }

    fn noise(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn what_arrives_is_what_left() {
        for size in [0, 1, 4095, BUFFER - 1, BUFFER, BUFFER + 1, 5 << 20] {
            let bytes = noise(size);
            let (done, kept) = run(&bytes, &claim(&bytes), None);
            assert_eq!(done.unwrap().stored(), (Digest::of(&bytes), size as u64));
            assert!(kept.0.into_inner().unwrap().0 == bytes);
        }
    }

    #[test]
    fn wrong_bytes_are_never_committed() {
        let bytes = noise(3 << 20);
        let mut other = bytes.clone();
        other[1 << 20] ^= 1;
        for (sent, claim) in [
            (&other[..], claim(&bytes)),
            (&bytes[..100], claim(&bytes)),
            (&bytes[..], claim(&bytes[..100])),
            (&bytes[..], Claim { size: Some(99), digest: None }),
        ] {
            let (done, kept) = run(sent, &claim, None);
            assert_eq!(done.unwrap_err().kind(), crate::Kind::Invalid);
            assert!(kept.0.into_inner().unwrap().1.is_none());
        }
    }

    #[test]
    fn a_writer_that_recovers_goes_on_from_its_offset() {
        let bytes = noise(6 << 20);
        let (done, kept) = run(&bytes, &claim(&bytes), Some(2 << 20));
        assert_eq!(done.unwrap().stored().0, Digest::of(&bytes));
        assert!(kept.0.into_inner().unwrap().0 == bytes);
    }
}
