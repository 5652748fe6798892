//! The sums beside a partial: a checksum for every stretch that was written, so that what a crash or a bad disk did
//! to it is found, and what lies before that is kept.
//!
//! Checksums, not digests: they guard against accident, cost a tenth of a hash while writing, and nothing is believed
//! because of them. The whole blob is hashed whatever they say.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Hasher;
use flate2::Crc;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// In bytes: a stretch ends with the write that reaches this length. What a killed process wrote behind its last
/// stretch is lost, so it is short: as long as the engine's buffers.
const STRETCH: u64 = 256 << 10;
/// A stretch's end in the partial, and its CRC-32, both little-endian.
const RECORD: usize = 12;
const BUFFER: usize = 256 << 10;

pub(crate) struct Checkpoints {
    file: File,
    /// Where the last stretch written down ends.
    end: u64,
    /// Of what was written since.
    crc: Crc,
    since: u64,
    /// Writing down has failed: what follows could not be placed.
    broken: bool,
}

/// How much of a partial is right.
pub(crate) struct Found {
    /// Bytes from the start.
    pub right: u64,
    /// The hasher's state there.
    pub hasher: Hasher,
    /// Bytes behind that which had been written down but are not what was written.
    pub damaged: bool,
}

impl Checkpoints {
    pub fn new(file: File) -> Checkpoints {
        Checkpoints { file, end: 0, crc: Crc::new(), since: 0, broken: false }
    }

    /// Hashes the blob of `size` bytes that begins at `base` in `partial` as far as the sums say that it is right, and
    /// forgets the sums behind that.
    pub fn replay(
        &mut self,
        (partial, base): (&File, u64),
        size: u64,
        fresh: Hasher,
        cancel: &Cancel,
    ) -> Result<Found> {
        let reading = |e| Error::reading("what an earlier run left", e);
        let length = partial.metadata().map_err(reading)?.len().saturating_sub(base).min(size);
        let mut found = Found { right: 0, hasher: fresh, damaged: false };
        let mut records = 0;
        self.file.rewind().map_err(reading)?;
        let mut lines = BufReader::new(&self.file);
        let mut line = [0; RECORD];
        while lines.read_exact(&mut line).is_ok() {
            let (end, sum) = line.split_at(8);
            let end = u64::from_le_bytes(end.try_into().expect("split at eight"));
            let sum = u32::from_le_bytes(sum.try_into().expect("four are left"));
            found.damaged = end <= found.right || end > length;
            if found.damaged {
                break;
            }
            let (crc, hasher) = stretch(partial, base + found.right, base + end, found.hasher.clone(), cancel)?;
            found.damaged = crc != sum;
            if found.damaged {
                break;
            }
            (found.right, found.hasher) = (end, hasher);
            records += 1;
        }
        self.cut(found.right, records).map_err(|e| Error::writing("what an earlier run left", e))?;
        Ok(found)
    }

    /// Forgets all but the first `records`, which end at `end`.
    pub fn cut(&mut self, end: u64, records: u64) -> io::Result<()> {
        let length = records * RECORD as u64;
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        (self.end, self.crc, self.since, self.broken) = (end, Crc::new(), 0, false);
        Ok(())
    }

    /// Whether `bytes` more end a stretch: all of it has to be in the file then.
    pub fn end_with(&self, bytes: usize) -> bool {
        self.since + bytes as u64 >= STRETCH
    }

    /// `bytes` were written behind what was written before.
    pub fn add(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.since += bytes.len() as u64;
        if self.since >= STRETCH {
            self.write_down();
        }
    }

    /// Writes down what was written since the last stretch. A failure costs a later run some bytes, and is no more.
    pub fn write_down(&mut self) {
        if self.since == 0 || self.broken {
            return;
        }
        self.end += self.since;
        let mut line = [0; RECORD];
        line[..8].copy_from_slice(&self.end.to_le_bytes());
        line[8..].copy_from_slice(&self.crc.sum().to_le_bytes());
        self.broken = self.file.write_all(&line).is_err();
        (self.crc, self.since) = (Crc::new(), 0);
    }
}

/// Sum and hash of the bytes from `at` to `end`.
fn stretch(partial: &File, mut at: u64, end: u64, mut hasher: Hasher, cancel: &Cancel) -> Result<(u32, Hasher)> {
    let mut crc = Crc::new();
    let mut buffer = vec![0; BUFFER.min((end - at) as usize)];
    while at < end {
        cancel.check()?;
        let want = (end - at).min(buffer.len() as u64) as usize;
        let read = partial.read_at(&mut buffer[..want], at);
        let read = read.map_err(|e| Error::reading("what an earlier run left", e))?;
        if read == 0 {
            break;
        }
        crc.update(&buffer[..read]);
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    Ok((crc.sum(), hasher))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Algorithm, Digest};

    fn noise(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    /// A partial of `bytes`, written in pieces of 300 000, and its sums.
    fn written(bytes: &[u8]) -> (File, Checkpoints) {
        let mut partial = tempfile::tempfile().unwrap();
        let mut sums = Checkpoints::new(tempfile::tempfile().unwrap());
        for piece in bytes.chunks(300_000) {
            partial.write_all(piece).unwrap();
            sums.add(piece);
        }
        sums.write_down();
        (partial, sums)
    }

    fn replay(sums: &mut Checkpoints, partial: &File, size: usize) -> Found {
        sums.replay((partial, 0), size as u64, Hasher::new(Algorithm::Sha256), &Cancel::default()).unwrap()
    }

    #[test]
    fn what_was_written_is_found_right() {
        let bytes = noise(5_000_000);
        let (partial, mut sums) = written(&bytes);
        let found = replay(&mut sums, &partial, bytes.len());
        assert_eq!((found.right, found.damaged), (bytes.len() as u64, false));
        assert_eq!(found.hasher.finish(), Digest::of(&bytes));
    }

    #[test]
    fn damage_is_cut_back_to_the_last_good_stretch() {
        let bytes = noise(5_000_000);
        for (at, right) in [(0, 0), (1_199_999, 900_000), (1_200_000, 1_200_000), (4_999_999, 4_800_000)] {
            let (partial, mut sums) = written(&bytes);
            partial.write_all_at(&[!bytes[at]], at as u64).unwrap();
            let found = replay(&mut sums, &partial, bytes.len());
            assert_eq!((found.right, found.damaged), (right as u64, true), "{at}");
            assert_eq!(found.hasher.finish(), Digest::of(&bytes[..right]));
            // What is behind it is forgotten for good, and writing goes on from there.
            sums.add(&bytes[right..]);
            sums.write_down();
            partial.write_all_at(&bytes, 0).unwrap();
            assert_eq!(replay(&mut sums, &partial, bytes.len()).right, bytes.len() as u64);
        }
    }

    #[test]
    fn sums_that_say_more_than_there_is_are_not_believed() {
        let bytes = noise(2_500_000);
        let (partial, mut sums) = written(&bytes);
        partial.set_len(2_000_000).unwrap();
        assert_eq!(replay(&mut sums, &partial, bytes.len()).right, 1_800_000);
        let (partial, mut sums) = written(&bytes);
        assert_eq!(replay(&mut sums, &partial, 1_300_000).right, 1_200_000);
        sums.file.write_all(&[0xff; RECORD * 3 + 5]).unwrap();
        assert_eq!(replay(&mut sums, &partial, bytes.len()).right, 1_200_000);
    }
}
