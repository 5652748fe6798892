//! What passes once, for several who each read it to its end. They are only ever a window apart: who is slow holds the
//! others up, and who takes nothing at all is left out and fails.

use super::coordinator::Chunk;
use super::{CHUNK, Limits};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// How often who waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// `bytes` as many times as there are to be readers, all of which have to be read or dropped.
pub fn split(bytes: Box<dyn Read + Send>, readers: usize, limits: &Limits, cancel: &Cancel) -> Result<Vec<End>> {
    let now = Instant::now();
    let reader = || Reader { at: 0, is: Is::Reading, took: now };
    let state = State { readers: (0..readers).map(|_| reader()).collect(), ..State::default() };
    let tape = Arc::new(Tee {
        state: Mutex::new(state),
        fresh: Condvar::new(),
        room: Condvar::new(),
        limits: limits.clone(),
        cancel: cancel.clone(),
    });
    let pumped = tape.clone();
    thread::Builder::new().name("reading".into()).spawn(move || {
        // What is left of the reader (a command that runs) ends before its end is told.
        let how = pumped.pump(bytes);
        pumped.end(how);
    })?;
    Ok((0..readers).map(|own| End { tape: tape.clone(), own, at: 0, chunk: None }).collect())
}

struct Tee {
    state: Mutex<State>,
    fresh: Condvar,
    room: Condvar,
    limits: Limits,
    cancel: Cancel,
}

#[derive(Default)]
struct State {
    readers: Vec<Reader>,
    chunks: VecDeque<Chunk>,
    /// What is held: from here to there.
    start: u64,
    end: u64,
    ended: Option<Result<()>>,
}

struct Reader {
    at: u64,
    is: Is,
    /// When it last took something, or was first waited for.
    took: Instant,
}

#[derive(PartialEq, Eq)]
enum Is {
    Reading,
    Gone,
    TooSlow,
}

impl State {
    fn reading(&mut self) -> impl Iterator<Item = &mut Reader> {
        self.readers.iter_mut().filter(|reader| reader.is == Is::Reading)
    }

    fn tidy(&mut self) {
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
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn pump(&self, mut bytes: Box<dyn Read + Send>) -> Result<()> {
        while self.may_read()? {
            let mut chunk = vec![0; CHUNK];
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

    /// Waits for room. False when nobody reads any more.
    fn may_read(&self) -> Result<bool> {
        let mut state = self.state();
        let mut waiting = false;
        loop {
            self.cancel.check()?;
            state.tidy();
            if state.reading().next().is_none() {
                return Ok(false);
            }
            if state.end - state.start < self.limits.window as u64 {
                return Ok(true);
            }
            let (now, start) = (Instant::now(), state.start);
            let oldest = start + state.chunks.front().map_or(0, |chunk| chunk.len() as u64);
            for reader in state.reading().filter(|reader| reader.at < oldest) {
                if !waiting {
                    reader.took = now;
                } else if now.duration_since(reader.took) > self.limits.silence {
                    reader.is = Is::TooSlow;
                }
            }
            waiting = true;
            state = self.room.wait_timeout(state, LOOK).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn end(&self, how: Result<()>) {
        self.state().ended = Some(how);
        self.fresh.notify_all();
    }

    /// The chunk at `at` for the reader `own`, and where it begins; none at the end.
    fn take(&self, own: usize, at: u64) -> Result<Option<(Chunk, u64)>> {
        let mut state = self.state();
        loop {
            self.cancel.check()?;
            let reader = &mut state.readers[own];
            if reader.is == Is::TooSlow {
                let seconds = self.limits.silence.as_secs();
                return Err(Error::failed(format!(
                    "it took nothing for {seconds} seconds while the other destinations waited for it, and what comes \
                     through a pipe cannot be read again; copy to it from a file"
                )));
            }
            (reader.at, reader.took) = (at, Instant::now());
            state.tidy();
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
            state = self.fresh.wait_timeout(state, LOOK).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

/// One reader's way to bytes that pass once. Dropped, it holds nobody up any more.
pub struct End {
    tape: Arc<Tee>,
    own: usize,
    at: u64,
    chunk: Option<(Chunk, u64)>,
}

impl Read for End {
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
            self.chunk = self.tape.take(self.own, self.at)?;
            if self.chunk.is_none() {
                return Ok(0);
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.tape.state().readers[self.own].is = Is::Gone;
        self.tape.room.notify_all();
    }
}
