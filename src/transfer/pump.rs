//! The loop that reads, hashes and writes a blob.

use super::verified::longer_than_announced;
use super::{BlobWriter, Opener, TransferContext};
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use crate::source::Claim;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::thread;

/// Buffers that the hashing thread may be behind by.
const BUFFERS: usize = 4;
const MIN_BUFFER_BYTES: usize = 4096;

pub(super) type Shared = Arc<Vec<u8>>;
pub(super) type Hash<'h> = dyn FnMut(&Shared, Range<usize>) + 'h;

/// Reads from `at` to the end, writes, and hands every byte to `hash` once; returns the total size.
pub(super) fn pump(
    claim: &Claim,
    mut at: u64,
    open: &mut Opener<'_, '_>,
    writer: &mut dyn BlobWriter,
    hash: &mut Hash<'_>,
    context: &TransferContext<'_>,
) -> Result<u64> {
    let capacity = claim.size.map_or(context.buffer_bytes, |size| {
        context.buffer_bytes.min((size as usize).saturating_add(1)).max(MIN_BUFFER_BYTES)
    });
    let mut ring: Vec<Shared> = Vec::with_capacity(BUFFERS);
    let mut hashed = at;
    let mut reader = open(at)?;
    loop {
        let mut slot = free(&mut ring, capacity);
        let buffer = Arc::get_mut(&mut slot).expect("a free buffer has one owner");
        let (filled, failure) = fill(&mut reader, buffer, context)?;
        if let Some(size) = claim.size
            && at + filled as u64 > size
        {
            return Err(longer_than_announced(claim));
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

/// A buffer with one owner: one of the ring once it is free, or a new one while the ring is short.
fn free(ring: &mut Vec<Shared>, capacity: usize) -> Shared {
    loop {
        if let Some(at) = ring.iter().position(|slot| Arc::strong_count(slot) == 1) {
            return ring.swap_remove(at);
        }
        if ring.len() < BUFFERS {
            return Arc::new(vec![0; capacity]);
        }
        // The hashing thread is behind. Its channel already made this thread wait for most of it.
        thread::yield_now();
    }
}

/// Fills `buffer`; less only at the end of the reader, or with the error that ended it.
fn fill(reader: &mut dyn Read, buffer: &mut [u8], context: &TransferContext<'_>) -> Result<(usize, Option<Error>)> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => {
                filled += n;
                context.moved(n)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => context.moved(0)?,
            Err(error) => return Ok((filled, Some(Error::from(error)))),
        }
    }
    Ok((filled, None))
}

/// Runs `work` with a second thread that hashes; returns the digest and the result of `work`.
pub(super) fn hash_on_thread<T>(hasher: Hasher, work: impl FnOnce(&mut Hash<'_>) -> Result<T>) -> Result<(Digest, T)> {
    thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel::<(Shared, Range<usize>)>(BUFFERS - 2);
        let hashing = scope.spawn(move || {
            let mut hasher = hasher;
            for (buffer, range) in receive {
                hasher.update(&buffer[range]);
            }
            hasher.finish()
        });
        let done = work(&mut |buffer, range| {
            // It fails only after a panic of the hashing thread, which `join` reports.
            let _ = send.send((buffer.clone(), range));
        });
        drop(send);
        let digest = hashing.join().map_err(|_| Error::failed("the hashing thread panicked"))?;
        Ok((digest, done?))
    })
}
