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

/// The memory of a large blob that the store reads ahead, in bytes. Only one waits while another is written: a stream
/// that waits holds half of a connection's window, and two would stop the one that is written.
const READ_BY_STORE_BYTES: u64 = MAX_AHEAD_BYTES / 2;

type Reader<'s> = Box<dyn Read + Send + 's>;
type Open<'a, 's> = dyn Fn(&Descriptor) -> Result<Reader<'s>> + Sync + 'a;

/// The blobs of a store.
#[derive(Clone, Copy)]
pub(crate) struct Blobs<'a, 's> {
    /// Opens one.
    pub open: &'a Open<'a, 's>,
    /// The blobs that are read at the same time.
    pub readers: usize,
    /// Whether the store itself reads an open blob ahead.
    pub store_reads_ahead: bool,
}

/// A part of a blob from a reading thread: bytes, or all of it.
enum Piece<'s> {
    /// Empty at the end.
    Bytes(Vec<u8>),
    /// A blob that the store reads ahead.
    Blob(Reader<'s>),
}

type Sender<'s> = SyncSender<Result<Piece<'s>>>;

/// Calls `take` for each of `work` in order with its bytes, while other blobs are read ahead.
pub(crate) fn each<'s>(
    work: &[Work],
    blobs: Blobs<'_, 's>,
    stop: &AtomicBool,
    take: &mut dyn FnMut(&Work, PrefetchedBlob<'s>) -> Result<()>,
) -> Result<()> {
    let (senders, receivers): (Vec<_>, Vec<_>) = work.iter().map(|_| sync_channel(CHUNKS)).unzip();
    let senders: Vec<Mutex<Option<Sender<'s>>>> = senders.into_iter().map(|s| Mutex::new(Some(s))).collect();
    let (cursor, room) = (Mutex::new(Cursor::default()), Condvar::new());
    // Blobs are read in their order, so the one that `take` waits for is always being read.
    let reader = || {
        while let Some(at) = blobs.next(work, stop, &cursor, &room) {
            let sender = senders[at].lock().unwrap_or_else(|e| e.into_inner()).take();
            if let Some(sender) = sender
                && !stop.load(Ordering::Relaxed)
            {
                blobs.read(&work[at].blob, &sender);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..blobs.readers.min(work.len()) {
            scope.spawn(reader);
        }
        let done = work.iter().zip(receivers).try_for_each(|(work, receiver)| {
            take(work, PrefetchedBlob { receiver, current: Piece::Bytes(Vec::new()), at: 0, ended: false })?;
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

impl<'s> Blobs<'_, 's> {
    /// The next blob to read, once there is room for it.
    fn next(&self, work: &[Work], stop: &AtomicBool, cursor: &Mutex<Cursor>, room: &Condvar) -> Option<usize> {
        let mut cursor = cursor.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            if stop.load(Ordering::Relaxed) || cursor.next.max(cursor.written) >= work.len() {
                return None;
            }
            // A blob that the sink has is not read.
            cursor.next = cursor.next.max(cursor.written);
            let ahead = work[cursor.written..].iter().take(cursor.next + 1 - cursor.written);
            let memory: u64 = ahead.map(|work| self.memory_bytes(&work.blob)).sum();
            if cursor.next == cursor.written || memory <= MAX_AHEAD_BYTES {
                cursor.next += 1;
                return Some(cursor.next - 1);
            }
            cursor = room.wait(cursor).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Whether the store reads `blob` ahead. A small blob is read to its end here, so that its stream is not held.
    fn read_by_store(&self, blob: &Descriptor) -> bool {
        self.store_reads_ahead && blob.size > (CHUNKS * CHUNK_BYTES) as u64
    }

    /// The memory of one blob while it waits, in bytes.
    fn memory_bytes(&self, blob: &Descriptor) -> u64 {
        match self.read_by_store(blob) {
            true => READ_BY_STORE_BYTES,
            false => blob.size.clamp(1, ((CHUNKS + 2) * CHUNK_BYTES) as u64),
        }
    }

    fn read(&self, blob: &Descriptor, to: &Sender<'s>) {
        let mut reader = match (self.open)(blob) {
            Ok(reader) => reader,
            Err(error) => return drop(to.send(Err(error))),
        };
        if self.read_by_store(blob) {
            return drop(to.send(Ok(Piece::Blob(reader))));
        }
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES.min(blob.size as usize + 1));
            let done = (&mut reader).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
            let ended = chunk.len() < CHUNK_BYTES;
            // An empty chunk is the end; a closed channel means that the rest is not wanted.
            if !chunk.is_empty() && to.send(Ok(Piece::Bytes(chunk))).is_err() {
                return;
            }
            match done {
                Err(error) => return drop(to.send(Err(Error::from(error)))),
                Ok(_) if ended => return drop(to.send(Ok(Piece::Bytes(Vec::new())))),
                Ok(_) => {}
            }
        }
    }
}

/// A blob's bytes as the reading thread sends them.
pub(crate) struct PrefetchedBlob<'s> {
    receiver: Receiver<Result<Piece<'s>>>,
    current: Piece<'s>,
    /// The offset in the current bytes.
    at: usize,
    ended: bool,
}

impl Read for PrefetchedBlob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match &mut self.current {
                Piece::Blob(reader) => return reader.read(buffer),
                Piece::Bytes(chunk) if self.at < chunk.len() || self.ended => {
                    let n = buffer.len().min(chunk.len() - self.at);
                    buffer[..n].copy_from_slice(&chunk[self.at..self.at + n]);
                    self.at += n;
                    return Ok(n);
                }
                Piece::Bytes(_) => {}
            }
            match self.receiver.recv() {
                Ok(Ok(piece)) => {
                    self.ended = matches!(&piece, Piece::Bytes(chunk) if chunk.is_empty());
                    (self.current, self.at) = (piece, 0);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
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

    fn blobs<'a, 's>(open: &'a Open<'a, 's>, readers: usize) -> Blobs<'a, 's> {
        Blobs { open, readers, store_reads_ahead: false }
    }

    #[test]
    fn every_blob_comes_whole_and_in_order() {
        let work = work(20, CHUNK_BYTES);
        let mut sizes = Vec::new();
        each(&work, blobs(&open, 3), &AtomicBool::new(false), &mut |_, mut bytes| {
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
            for store_reads_ahead in [false, true] {
                let blobs = Blobs { store_reads_ahead, ..blobs(&open, 2) };
                let stop = AtomicBool::new(false);
                let failed = each(&work(1, 8 * CHUNK_BYTES), blobs, &stop, &mut |_, mut bytes| {
                    Ok(std::io::copy(&mut bytes, &mut std::io::sink()).map(|_| ())?)
                });
                assert!(failed.is_err(), "{given}");
            }
        }
    }

    /// A blob that knows which threads read it.
    struct OnThread<'a>(std::io::Take<std::io::Repeat>, &'a Mutex<Vec<thread::ThreadId>>);
    impl Read for OnThread<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1.lock().unwrap().push(thread::current().id());
            self.0.read(buffer)
        }
    }

    #[test]
    fn of_large_blobs_that_the_store_reads_one_waits_while_another_is_taken() {
        let large = CHUNKS * CHUNK_BYTES + 1;
        let (work, threads, opened) = (work(20, large), Mutex::default(), Mutex::new(0));
        let open = |blob: &Descriptor| {
            *opened.lock().unwrap() += 1;
            Ok(Box::new(OnThread(std::io::repeat(7).take(blob.size), &threads)) as Reader)
        };
        let blobs = Blobs { store_reads_ahead: true, ..blobs(&open, 8) };
        let (mut sizes, mut waiting) = (Vec::new(), 0);
        each(&work, blobs, &AtomicBool::new(false), &mut |_, mut bytes| {
            sizes.push(std::io::copy(&mut bytes, &mut std::io::sink()).unwrap());
            waiting = waiting.max(*opened.lock().unwrap() - sizes.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(sizes, work.iter().map(|work| work.blob.size).collect::<Vec<_>>());
        assert!(waiting <= 1, "{waiting} streams wait");
        assert!(threads.into_inner().unwrap().iter().all(|id| *id == thread::current().id()));
    }

    #[test]
    fn a_failure_ends_every_reader() {
        let work = work(20, 8 << 20);
        let mut taken = 0;
        let failed = each(&work, blobs(&open, 4), &AtomicBool::new(false), &mut |_, _| {
            taken += 1;
            if taken == 3 { Err(Error::failed("full")) } else { Ok(()) }
        });
        assert_eq!((failed.unwrap_err().to_string(), taken), ("full".to_owned(), 3));
    }
}
