//! Read-ahead for a sink that takes blobs in one order from a store that is far away: several are opened and read
//! into bounded channels while the one before them is written.

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

/// Bytes in a chunk, and chunks that one blob may be ahead by.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 6;

/// In bytes: what all blobs together may be ahead by.
const ROOM: u64 = 12 << 20;

type Chunk = Result<Vec<u8>>;
type Open<'a, 's> = dyn Fn(&Descriptor) -> Result<Box<dyn Read + Send + 's>> + Sync + 'a;

/// Calls `take` for each of `work` in order with its bytes, while up to `readers` blobs are read ahead.
pub(crate) fn each(
    work: &[Work],
    readers: usize,
    open: &Open<'_, '_>,
    stop: &AtomicBool,
    take: &mut dyn FnMut(&Work, Ahead) -> Result<()>,
) -> Result<()> {
    let (senders, receivers): (Vec<_>, Vec<_>) = work.iter().map(|_| sync_channel::<Chunk>(CHUNKS)).unzip();
    let senders: Vec<Mutex<Option<SyncSender<Chunk>>>> = senders.into_iter().map(|s| Mutex::new(Some(s))).collect();
    let (turn, room) = (Mutex::new(PrefetchTurn::default()), Condvar::new());
    // Blobs are taken up in their order, so the one that `take` waits for is always being read.
    let reader = || {
        while let Some(at) = next(work, stop, &turn, &room) {
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
            take(work, Ahead { receiver, chunk: Vec::new(), at: 0, ended: false })?;
            turn.lock().unwrap_or_else(|e| e.into_inner()).passed += 1;
            room.notify_all();
            Ok(())
        });
        if done.is_err() {
            // Whoever waits for room holds the turn until it does: none can miss this.
            let _turn = turn.lock().unwrap_or_else(|e| e.into_inner());
            stop.store(true, Ordering::Relaxed);
            room.notify_all();
        }
        done
    })
}

/// Which blob is to be read next, and how many have been taken: those between them are held.
#[derive(Default)]
struct PrefetchTurn {
    next: usize,
    passed: usize,
}

/// The next blob to read, once there is room for it.
fn next(work: &[Work], stop: &AtomicBool, turn: &Mutex<PrefetchTurn>, room: &Condvar) -> Option<usize> {
    let mut turn = turn.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        if stop.load(Ordering::Relaxed) || turn.next.max(turn.passed) >= work.len() {
            return None;
        }
        // What was there already has passed unread.
        turn.next = turn.next.max(turn.passed);
        let ahead = work[turn.passed..].iter().take(turn.next + 1 - turn.passed);
        if turn.next == turn.passed || ahead.map(held).sum::<u64>() <= ROOM {
            turn.next += 1;
            return Some(turn.next - 1);
        }
        turn = room.wait(turn).unwrap_or_else(|e| e.into_inner());
    }
}

/// In bytes: what one blob may hold while it waits.
fn held(work: &Work) -> u64 {
    work.blob.size.clamp(1, ((CHUNKS + 2) * CHUNK) as u64)
}

fn read(blob: &Descriptor, open: &Open<'_, '_>, to: &SyncSender<Chunk>) {
    let mut reader = match open(blob) {
        Ok(reader) => reader,
        Err(error) => return drop(to.send(Err(error))),
    };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK.min(blob.size as usize + 1));
        let done = (&mut reader).take(CHUNK as u64).read_to_end(&mut chunk);
        let ended = chunk.len() < CHUNK;
        // An empty chunk is the end; a closed channel means that nobody wants the rest.
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

/// A blob's bytes as they come from the reading thread.
pub(crate) struct Ahead {
    receiver: Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Ahead {
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
        (0..count).map(|n| Work { blob: blob(n), recode: None, expected: None }).collect()
    }

    fn open(blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::io::repeat(7).take(blob.size)))
    }

    #[test]
    fn every_blob_comes_whole_and_in_order() {
        let work = work(20, CHUNK);
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
        for given in [0, 5, CHUNK, 3 * CHUNK] {
            struct Failing;
            impl Read for Failing {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    Err(std::io::ErrorKind::ConnectionReset.into())
                }
            }
            let open = |_: &Descriptor| Ok(Box::new(std::io::repeat(7).take(given as u64).chain(Failing)) as _);
            let failed = each(&work(1, 8 * CHUNK), 2, &open, &AtomicBool::new(false), &mut |_, mut bytes| {
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
