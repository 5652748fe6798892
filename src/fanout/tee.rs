//! A stream for several readers, which are at most one window apart. A slow reader delays the others; a reader that
//! takes nothing is removed and fails.

use super::coordinator::Chunk;
use super::{CHUNK_BYTES, FanoutLimits};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// A waiting thread checks this often whether it is to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Splits `bytes` for `readers` readers, each of which has to be read to its end or dropped.
pub fn split(
    bytes: Box<dyn Read + Send>,
    readers: usize,
    limits: &FanoutLimits,
    cancel: &Cancel,
) -> Result<Vec<TeeReader>> {
    let now = Instant::now();
    let reader = || TeeSide { at: 0, state: ReaderState::Reading, last_read: now };
    let state = TeeState { readers: (0..readers).map(|_| reader()).collect(), ..TeeState::default() };
    let tee = Arc::new(Tee {
        state: Mutex::new(state),
        fresh: Condvar::new(),
        room: Condvar::new(),
        limits: limits.clone(),
        cancel: cancel.clone(),
    });
    let pumped = tee.clone();
    thread::Builder::new().name("reading".into()).spawn(move || {
        // The reader (perhaps a running command) is dropped before its end is reported.
        let how = pumped.pump(bytes);
        pumped.end_input(how);
    })?;
    Ok((0..readers).map(|own| TeeReader { tee: tee.clone(), own, at: 0, chunk: None }).collect())
}

struct Tee {
    state: Mutex<TeeState>,
    fresh: Condvar,
    room: Condvar,
    limits: FanoutLimits,
    cancel: Cancel,
}

#[derive(Default)]
struct TeeState {
    readers: Vec<TeeSide>,
    chunks: VecDeque<Chunk>,
    /// The offsets of the window.
    start: u64,
    end: u64,
    ended: Option<Result<()>>,
}

struct TeeSide {
    at: u64,
    state: ReaderState,
    /// The time when it last took bytes, or when the first wait for it started.
    last_read: Instant,
}

#[derive(PartialEq, Eq)]
enum ReaderState {
    Reading,
    Gone,
    TooSlow,
}

impl TeeState {
    fn reading(&mut self) -> impl Iterator<Item = &mut TeeSide> {
        self.readers.iter_mut().filter(|reader| reader.state == ReaderState::Reading)
    }

    fn drop_unused(&mut self) {
        let slowest = self.reading().map(|reader| reader.at).min().unwrap_or(self.end);
        while let Some(oldest) = self.chunks.front().map(|chunk| chunk.len() as u64)
            && self.start + oldest <= slowest
        {
            self.chunks.pop_front();
            self.start += oldest;
        }
    }
}

impl Tee {
    fn state(&self) -> MutexGuard<'_, TeeState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn pump(&self, mut bytes: Box<dyn Read + Send>) -> Result<()> {
        while self.may_read()? {
            let mut chunk = vec![0; CHUNK_BYTES];
            let n = match bytes.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::from(error)),
            };
            chunk.truncate(n);
            chunk.shrink_to_fit();
            let mut state = self.state();
            state.end += n as u64;
            state.chunks.push_back(Arc::new(chunk));
            self.fresh.notify_all();
        }
        Ok(())
    }

    /// Waits for room in the window. False when no reader is left.
    fn may_read(&self) -> Result<bool> {
        let mut state = self.state();
        let mut waiting = false;
        loop {
            self.cancel.check()?;
            state.drop_unused();
            if state.reading().next().is_none() {
                return Ok(false);
            }
            if state.end - state.start < self.limits.window_bytes as u64 {
                return Ok(true);
            }
            let (now, start) = (Instant::now(), state.start);
            let oldest = start + state.chunks.front().map_or(0, |chunk| chunk.len() as u64);
            for reader in state.reading().filter(|reader| reader.at < oldest) {
                if !waiting {
                    reader.last_read = now;
                } else if now.duration_since(reader.last_read) > self.limits.stall_timeout {
                    reader.state = ReaderState::TooSlow;
                }
            }
            waiting = true;
            state = self.room.wait_timeout(state, POLL_INTERVAL).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn end_input(&self, how: Result<()>) {
        self.state().ended = Some(how);
        self.fresh.notify_all();
    }

    /// The chunk at offset `at` for the reader `own`, and its offset; `None` at the end.
    fn take(&self, own: usize, at: u64) -> Result<Option<(Chunk, u64)>> {
        let mut state = self.state();
        loop {
            self.cancel.check()?;
            let reader = &mut state.readers[own];
            if reader.state == ReaderState::TooSlow {
                let seconds = self.limits.stall_timeout.as_secs();
                return Err(Error::failed(format!(
                    "the destination took no data for {seconds} seconds while the others waited, and a pipe cannot be \
                     read again; copy to it from a file"
                )));
            }
            (reader.at, reader.last_read) = (at, Instant::now());
            state.drop_unused();
            self.room.notify_all();
            if at < state.end {
                let mut from = state.start;
                for chunk in &state.chunks {
                    let next = from + chunk.len() as u64;
                    if at < next {
                        return Ok(Some((chunk.clone(), from)));
                    }
                    from = next;
                }
            }
            if let Some(ended) = &state.ended {
                return ended.clone().map(|()| None);
            }
            state = self.fresh.wait_timeout(state, POLL_INTERVAL).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

/// One reader of the stream. A dropped reader does not delay the others any more.
pub struct TeeReader {
    tee: Arc<Tee>,
    own: usize,
    at: u64,
    chunk: Option<(Chunk, u64)>,
}

impl Read for TeeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((chunk, from)) = &self.chunk
                && let Some(left) = chunk.get((self.at - from) as usize..).filter(|left| !left.is_empty())
            {
                let n = left.len().min(buffer.len());
                buffer[..n].copy_from_slice(&left[..n]);
                self.at += n as u64;
                return Ok(n);
            }
            self.chunk = self.tee.take(self.own, self.at)?;
            if self.chunk.is_none() {
                return Ok(0);
            }
        }
    }
}

impl Drop for TeeReader {
    fn drop(&mut self) {
        self.tee.state().readers[self.own].state = ReaderState::Gone;
        self.tee.room.notify_all();
    }
}
