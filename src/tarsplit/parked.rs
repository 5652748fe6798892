//! Readers of layers between two reads. A layer is read from its start only, but `imgmv serve` opens a blob again for each
//! buffer: the reader that stopped at that offset continues.

use super::LayerTar;
use crate::error::Result;
use crate::image::Digest;
use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum number of parked readers; each has one open file and about 200 kB of buffers.
const MAX_PARKED: usize = 16;

/// The readers of one store that were dropped before the end of their layers.
#[derive(Default)]
pub struct ParkedReaders {
    parked: Mutex<VecDeque<Position>>,
}

struct Position {
    diff_id: Digest,
    at: u64,
    tar: LayerTar<'static>,
}

impl ParkedReaders {
    /// Reads the layer `diff_id` from offset `from` on: with the reader that stopped there, else with the one that `open`
    /// opens at the start of the layer.
    ///
    /// # Errors
    /// Those of `open` and of [`LayerTar::skip`].
    pub fn read(
        &self,
        diff_id: Digest,
        from: u64,
        open: impl FnOnce() -> Result<LayerTar<'static>>,
    ) -> Result<Box<dyn Read + Send + '_>> {
        let parked = self.take(diff_id, from);
        let position = match parked {
            Some(position) => position,
            None => {
                let mut tar = open()?;
                tar.skip(from)?;
                Position { diff_id, at: from, tar }
            }
        };
        Ok(Box::new(ParkingReader { position: Some(position), readers: self }))
    }

    fn take(&self, diff_id: Digest, from: u64) -> Option<Position> {
        let mut parked = self.parked();
        let at = parked.iter().position(|position| position.diff_id == diff_id && position.at == from)?;
        parked.remove(at)
    }

    fn parked(&self) -> MutexGuard<'_, VecDeque<Position>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that is parked when it is dropped, unless it failed or reached the end.
struct ParkingReader<'a> {
    position: Option<Position>,
    readers: &'a ParkedReaders,
}

impl Read for ParkingReader<'_> {
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

impl Drop for ParkingReader<'_> {
    fn drop(&mut self) {
        let Some(position) = self.position.take() else { return };
        let mut parked = self.readers.parked();
        if parked.len() == MAX_PARKED {
            parked.pop_front();
        }
        parked.push_back(position);
    }
}
