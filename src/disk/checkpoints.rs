//! Checkpoints of a partial file: a checksum for each segment that was written. They show what a crash or a bad disk
//! damaged, so that the bytes before the damage can be used.
//!
//! A checksum detects accidents and costs a tenth of a digest while writing. It is never trusted as proof: the complete
//! blob is hashed in any case.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use flate2::Crc;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// The minimum length of a segment: the write that reaches it ends the segment. A killed process loses its last,
/// unfinished segment, so the length is only that of one buffer of the copy.
const SEGMENT_BYTES: u64 = 256 << 10;
/// One record: the end of the segment in the partial file (8 bytes) and its CRC-32 (4 bytes), both little-endian.
const RECORD_BYTES: usize = 12;
const BUFFER_BYTES: usize = 256 << 10;
/// The subject of messages about the partial file.
const SUBJECT: &str = "the partial file of an earlier run";

pub(crate) struct Checkpoints {
    file: File,
    /// The end of the last recorded segment.
    end: u64,
    /// The checksum of the `pending` bytes behind `end`.
    crc: Crc,
    pending: u64,
    /// A record could not be written, so later records would be at a wrong offset.
    broken: bool,
}

/// The part of a partial file that matches its checkpoints.
pub(crate) struct ValidPrefix {
    /// Its length.
    pub bytes: u64,
    /// The state of the hasher behind it.
    pub hasher: Hasher,
    /// Whether recorded bytes behind it are missing or differ.
    pub damaged: bool,
}

impl ValidPrefix {
    /// The message about a damaged partial file of the blob `digest`.
    pub fn damage_message(&self, digest: &Digest, size: u64) -> String {
        format!("the partial file of blob {digest} is damaged; resuming at {} of {size} bytes", self.bytes)
    }
}

impl Checkpoints {
    pub fn new(file: File) -> Checkpoints {
        Checkpoints { file, end: 0, crc: Crc::new(), pending: 0, broken: false }
    }

    /// Hashes the blob of `size` bytes that starts at `base` in `partial`, as far as it matches the checkpoints, and
    /// removes the checkpoints behind that.
    pub fn verify(
        &mut self,
        (partial, base): (&File, u64),
        size: u64,
        fresh: Hasher,
        cancel: &Cancel,
    ) -> Result<ValidPrefix> {
        let reading = |e| Error::reading(SUBJECT, e);
        let length = partial.metadata().map_err(reading)?.len().saturating_sub(base).min(size);
        let mut valid = ValidPrefix { bytes: 0, hasher: fresh, damaged: false };
        let mut records = 0;
        self.file.rewind().map_err(reading)?;
        let mut reader = BufReader::new(&self.file);
        let mut record = [0; RECORD_BYTES];
        while reader.read_exact(&mut record).is_ok() {
            let (end, sum) = record.split_at(8);
            let end = u64::from_le_bytes(end.try_into().expect("8 bytes"));
            let sum = u32::from_le_bytes(sum.try_into().expect("4 bytes"));
            valid.damaged = end <= valid.bytes || end > length;
            if valid.damaged {
                break;
            }
            let (crc, hasher) = read_segment(partial, base + valid.bytes, base + end, valid.hasher.clone(), cancel)?;
            valid.damaged = crc != sum;
            if valid.damaged {
                break;
            }
            (valid.bytes, valid.hasher) = (end, hasher);
            records += 1;
        }
        self.truncate(valid.bytes, records).map_err(|e| Error::writing(SUBJECT, e))?;
        Ok(valid)
    }

    /// Removes all but the first `records`, which end at `end`.
    pub fn truncate(&mut self, end: u64, records: u64) -> io::Result<()> {
        let length = records * RECORD_BYTES as u64;
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        (self.end, self.crc, self.pending, self.broken) = (end, Crc::new(), 0, false);
        Ok(())
    }

    /// Whether another `bytes` complete a segment; the caller then flushes the partial file before [`Self::add`].
    pub fn completes_segment(&self, bytes: usize) -> bool {
        self.pending + bytes as u64 >= SEGMENT_BYTES
    }

    /// Adds `bytes`, which were written behind the previous ones.
    pub fn add(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.pending += bytes.len() as u64;
        if self.pending >= SEGMENT_BYTES {
            self.flush();
        }
    }

    /// Records the pending bytes as a segment. A failure is not an error: the next run copies some bytes again.
    pub fn flush(&mut self) {
        if self.pending == 0 || self.broken {
            return;
        }
        self.end += self.pending;
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&self.end.to_le_bytes());
        record[8..].copy_from_slice(&self.crc.sum().to_le_bytes());
        self.broken = self.file.write_all(&record).is_err();
        (self.crc, self.pending) = (Crc::new(), 0);
    }
}

/// Returns the checksum of the bytes from `at` to `end`, and `hasher` updated with them.
fn read_segment(partial: &File, mut at: u64, end: u64, mut hasher: Hasher, cancel: &Cancel) -> Result<(u32, Hasher)> {
    let mut crc = Crc::new();
    let mut buffer = vec![0; BUFFER_BYTES.min((end - at) as usize)];
    while at < end {
        cancel.check()?;
        let want = (end - at).min(buffer.len() as u64) as usize;
        let read = partial.read_at(&mut buffer[..want], at);
        let read = read.map_err(|e| Error::reading(SUBJECT, e))?;
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
    use crate::image::Algorithm;

    fn noise(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    /// A partial file of `bytes`, written in pieces of 300 000, and its checkpoints.
    fn written(bytes: &[u8]) -> (File, Checkpoints) {
        let mut partial = tempfile::tempfile().unwrap();
        let mut sums = Checkpoints::new(tempfile::tempfile().unwrap());
        for piece in bytes.chunks(300_000) {
            partial.write_all(piece).unwrap();
            sums.add(piece);
        }
        sums.flush();
        (partial, sums)
    }

    fn verify(sums: &mut Checkpoints, partial: &File, size: usize) -> ValidPrefix {
        sums.verify((partial, 0), size as u64, Hasher::new(Algorithm::Sha256), &Cancel::default()).unwrap()
    }

    #[test]
    fn what_was_written_is_found_right() {
        let bytes = noise(5_000_000);
        let (partial, mut sums) = written(&bytes);
        let found = verify(&mut sums, &partial, bytes.len());
        assert_eq!((found.bytes, found.damaged), (bytes.len() as u64, false));
        assert_eq!(found.hasher.finish(), Digest::of(&bytes));
    }

    #[test]
    fn damage_is_cut_back_to_the_last_good_stretch() {
        let bytes = noise(5_000_000);
        for (at, right) in [(0, 0), (1_199_999, 900_000), (1_200_000, 1_200_000), (4_999_999, 4_800_000)] {
            let (partial, mut sums) = written(&bytes);
            partial.write_all_at(&[!bytes[at]], at as u64).unwrap();
            let found = verify(&mut sums, &partial, bytes.len());
            assert_eq!((found.bytes, found.damaged), (right as u64, true), "{at}");
            assert_eq!(found.hasher.finish(), Digest::of(&bytes[..right]));
            // Later checkpoints are removed, and writing continues from the last valid one.
            sums.add(&bytes[right..]);
            sums.flush();
            partial.write_all_at(&bytes, 0).unwrap();
            assert_eq!(verify(&mut sums, &partial, bytes.len()).bytes, bytes.len() as u64);
        }
    }

    #[test]
    fn sums_that_say_more_than_there_is_are_not_believed() {
        let bytes = noise(2_500_000);
        let (partial, mut sums) = written(&bytes);
        partial.set_len(2_000_000).unwrap();
        assert_eq!(verify(&mut sums, &partial, bytes.len()).bytes, 1_800_000);
        let (partial, mut sums) = written(&bytes);
        assert_eq!(verify(&mut sums, &partial, 1_300_000).bytes, 1_200_000);
        sums.file.write_all(&[0xff; RECORD_BYTES * 3 + 5]).unwrap();
        assert_eq!(verify(&mut sums, &partial, bytes.len()).bytes, 1_200_000);
    }
}
