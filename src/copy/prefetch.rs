//! Read-ahead from a remote store for a sink that takes one blob after the other: the next blobs are read into bounded
//! channels while one is written.

use super::Work;
use crate::error::{Error, Result};
use crate::image::Descriptor;
use std::{
    io::Read,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks in one blob's channel.
const CHUNKS: usize = 6;

/// The bytes that all blobs together may be ahead by.
const MAX_AHEAD_BYTES: u64 = 12 << 20;

type Chunk = Result<Vec<u8>>;
type Open<'a, 's> = dyn Fn(&Descriptor) -> Result<Box<dyn Read + Send + 's>> + Sync + 'a;

/// Calls `take` for each of `work` in order with its bytes, while up to `readers` blobs are read ahead.
pub(crate) fn each(
    work: &[Work],
    readers: usize,
    open: &Open<'_, '_>,
    stop: &AtomicBool,
    take: &mut dyn FnMut(&Work, PrefetchedBlob) -> Result<()>,
) -> Result<()> {
    let (senders, receivers): (Vec<_>, Vec<_>) = work.iter().map(|_| sync_channel::<Chunk>(CHUNKS)).unzip();
    let senders: Vec<Mutex<Option<SyncSender<Chunk>>>> = senders.into_iter().map(|s| Mutex::new(Some(s))).collect();
    let (cursor, room) = (Mutex::new(Cursor::default()), Condvar::new());
    // Blobs are read in their order, so the one that `take` waits for is always being read.
    let reader = || {
        while let Some(at) = next(work, stop, &cursor, &room) {
            let sender = senders[at].lock().unwrap_or_else(|e| e.into_inner()).take();
            if let Some(sender) = sender
                && !stop.load(Ordering::Relaxed)
            {
                read(&work[at].blob, open, &sender);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..readers.min(work.len()) {
            scope.spawn(reader);
        }
        let done = work.iter().zip(receivers).try_for_each(|(work, receiver)| {
            take(work, PrefetchedBlob { receiver, chunk: Vec::new(), at: 0, ended: false })?;
            cursor.lock().unwrap_or_else(|e| e.into_inner()).written += 1;
            room.notify_all();
            Ok(())
        });
        if done.is_err() {
            // A reader holds this lock until it waits for room, so none can miss the notification.
            let _cursor = cursor.lock().unwrap_or_else(|e| e.into_inner());
            stop.store(true, Ordering::Relaxed);
            room.notify_all();
        }
        done
    })
}

/// The next blob to read, and the number of blobs that were written; the blobs between them are in memory.
#[derive(Default)]
struct Cursor {
    next: usize,
    written: usize,
}

/// The next blob to read, once there is room for it.
fn next(work: &[Work], stop: &AtomicBool, cursor: &Mutex<Cursor>, room: &Condvar) -> Option<usize> {
    let mut cursor = cursor.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        if stop.load(Ordering::Relaxed) || cursor.next.max(cursor.written) >= work.len() {
            return None;
        }
        // A blob that the sink has is not read.
        cursor.next = cursor.next.max(cursor.written);
        let ahead = work[cursor.written..].iter().take(cursor.next + 1 - cursor.written);
        if cursor.next == cursor.written || ahead.map(memory_bytes).sum::<u64>() <= MAX_AHEAD_BYTES {
            cursor.next += 1;
            return Some(cursor.next - 1);
        }
        cursor = room.wait(cursor).unwrap_or_else(|e| e.into_inner());
    }
}

/// The memory of one blob while it waits, in bytes.
fn memory_bytes(work: &Work) -> u64 {
    work.blob.size.clamp(1, ((CHUNKS + 2) * CHUNK_BYTES) as u64)
}

fn read(blob: &Descriptor, open: &Open<'_, '_>, to: &SyncSender<Chunk>) {
    let mut reader = match open(blob) {
        Ok(reader) => reader,
        Err(error) => return drop(to.send(Err(error))),
    };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES.min(blob.size as usize + 1));
        let done = (&mut reader).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        let ended = chunk.len() < CHUNK_BYTES;
        // An empty chunk is the end; a closed channel means that the rest is not wanted.
        if !chunk.is_empty() && to.send(Ok(chunk)).is_err() {
            return;
        }
        match done {
            Err(error) => return drop(to.send(Err(Error::from(error)))),
            Ok(_) if ended => return drop(to.send(Ok(Vec::new()))),
            Ok(_) => {}
        }
    }
}

/// A blob's bytes as the reading thread sends them.
pub(crate) struct PrefetchedBlob {
    receiver: Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for PrefetchedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.chunk.len() && !self.ended {
            match self.receiver.recv() {
                Ok(Ok(chunk)) if chunk.is_empty() => self.ended = true,
                Ok(Ok(chunk)) => (self.chunk, self.at) = (chunk, 0),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Digest, media_type};

    fn work(count: usize, size: usize) -> Vec<Work> {
        let blob = |n: usize| Descriptor::new(media_type::OCTETS, Digest::of(&[n as u8]), (size + n) as u64);
        (0..count).map(|n| Work { blob: blob(n), recompress: None, expected: None }).collect()
    }

    fn open(blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::io::repeat(7).take(blob.size)))
    }

    #[test]
    fn every_blob_comes_whole_and_in_order() {
        let work = work(20, CHUNK_BYTES);
        let mut sizes = Vec::new();
        each(&work, 3, &open, &AtomicBool::new(false), &mut |_, mut bytes| {
            sizes.push(std::io::copy(&mut bytes, &mut std::io::sink()).unwrap());
            Ok(())
        })
        .unwrap();
        assert_eq!(sizes, work.iter().map(|work| work.blob.size).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_fails_is_no_end() {
        for given in [0, 5, CHUNK_BYTES, 3 * CHUNK_BYTES] {
            struct Failing;
            impl Read for Failing {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    Err(std::io::ErrorKind::ConnectionReset.into())
                }
            }
            let open = |_: &Descriptor| Ok(Box::new(std::io::repeat(7).take(given as u64).chain(Failing)) as _);
            let failed = each(&work(1, 8 * CHUNK_BYTES), 2, &open, &AtomicBool::new(false), &mut |_, mut bytes| {
                Ok(std::io::copy(&mut bytes, &mut std::io::sink()).map(|_| ())?)
            });
            assert!(failed.is_err(), "{given}");
        }
    }

    #[test]
    fn a_failure_ends_every_reader() {
        let work = work(20, 8 << 20);
        let mut taken = 0;
        let failed = each(&work, 4, &open, &AtomicBool::new(false), &mut |_, _| {
            taken += 1;
            if taken == 3 { Err(Error::failed("full")) } else { Ok(()) }
        });
        assert_eq!((failed.unwrap_err().to_string(), taken), ("full".to_owned(), 3));
    }
}
