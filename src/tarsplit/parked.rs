//! Readers of layers between two reads. A layer is read from its start only, but `imgmv serve` opens a blob again for each
//! buffer: the reader that stopped at that offset continues.

use super::LayerTar;
use crate::error::Result;
use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum memory of the parked readers together, in bytes.
const MAX_PARKED_BYTES: usize = 24 << 20;
/// The maximum number of parked readers: each has three open files.
const MAX_PARKED: usize = 100;
/// A parked reader that was not continued during this number of reads belongs to a client that is gone.
const STALE_READS: u64 = 1000;

/// The readers of one store that were dropped before the end of their layers. A layer is known by a `K`.
pub struct ParkedReaders<K>(Mutex<Parked<K>>);

/// The readers, those that waited for the longest time first.
struct Parked<K> {
    readers: VecDeque<Position<K>>,
    bytes: usize,
    /// The number of readers that were parked so far.
    reads: u64,
}

struct Position<K> {
    layer: K,
    at: u64,
    tar: LayerTar<'static>,
    /// When it was parked, as [`Parked::reads`] counts.
    parked_at: u64,
}

impl<K> Default for ParkedReaders<K> {
    fn default() -> Self {
        ParkedReaders(Mutex::new(Parked { readers: VecDeque::new(), bytes: 0, reads: 0 }))
    }
}

impl<K: Eq + Send> ParkedReaders<K> {
    /// Reads `layer` from offset `from` on: with the reader that stopped there, else with the one that `open` opens at
    /// the start of the layer.
    ///
    /// # Errors
    /// Those of `open` and of [`LayerTar::skip`].
    pub fn read(
        &self,
        layer: K,
        from: u64,
        open: impl FnOnce() -> Result<LayerTar<'static>>,
    ) -> Result<Box<dyn Read + Send + '_>> {
        let parked = self.parked().take(&layer, from);
        let position = match parked {
            Some(position) => position,
            None => {
                let mut tar = open()?;
                tar.skip(from)?;
                Position { layer, at: from, tar, parked_at: 0 }
            }
        };
        Ok(Box::new(ParkingReader { position: Some(position), readers: self }))
    }

    fn parked(&self) -> MutexGuard<'_, Parked<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq> Parked<K> {
    fn take(&mut self, layer: &K, at: u64) -> Option<Position<K>> {
        let found = self.readers.iter().position(|position| position.layer == *layer && position.at == at)?;
        let position = self.readers.remove(found)?;
        self.bytes -= position.tar.memory_bytes();
        Some(position)
    }

    /// Parks `position`, for which stale readers make room. Without room it is dropped: if it took the place of another
    /// reader that is in use, all of them would start again and again where there are more than fit.
    fn park(&mut self, position: Position<K>) {
        self.reads += 1;
        let position = Position { parked_at: self.reads, ..position };
        let bytes = position.tar.memory_bytes();
        while !self.has_room(bytes)
            && let Some(oldest) = self.readers.front()
            && self.reads - oldest.parked_at > STALE_READS
        {
            self.bytes -= oldest.tar.memory_bytes();
            self.readers.pop_front();
        }
        if self.has_room(bytes) {
            self.bytes += bytes;
            self.readers.push_back(position);
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= MAX_PARKED_BYTES && self.readers.len() < MAX_PARKED
    }
}

/// A reader that is parked when it is dropped, unless it failed or reached the end.
struct ParkingReader<'a, K: Eq + Send> {
    position: Option<Position<K>>,
    readers: &'a ParkedReaders<K>,
}

impl<K: Eq + Send> Read for ParkingReader<'_, K> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(position) = &mut self.position else { return Ok(0) };
        match position.tar.read(buffer) {
            Ok(read) if read > 0 || buffer.is_empty() => {
                position.at += read as u64;
                Ok(read)
            }
            ended => {
                self.position = None;
                ended
            }
        }
    }
}

impl<K: Eq + Send> Drop for ParkingReader<'_, K> {
    fn drop(&mut self) {
        if let Some(position) = self.position.take() {
            self.readers.parked().park(position);
        }
    }
}
