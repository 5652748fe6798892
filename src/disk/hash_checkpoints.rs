//! Saved states of a blob's hash, for a source that is remote too: a later run resumes without reading the sent bytes
//! again. They are stored in the user's cache.

use crate::image::{Algorithm, Hasher};

/// The distance of two checkpoints, in bytes: a later run reads at most this much again.
const CHECKPOINT_INTERVAL_BYTES: u64 = 4 << 20;
/// The maximum number per blob; very large blobs get a longer interval.
const MAX_CHECKPOINTS: u64 = 64;

/// An offset in bytes, and the hasher's state at it.
pub type HashCheckpoint = (u64, Vec<u8>);

/// Hashes a blob and records the hasher's state at intervals.
pub struct HashCheckpoints {
    hasher: Hasher,
    at: u64,
    interval: u64,
    /// In ascending order.
    checkpoints: Vec<HashCheckpoint>,
}

impl HashCheckpoints {
    /// For a blob of `size` bytes.
    pub fn new(algorithm: Algorithm, size: u64) -> HashCheckpoints {
        HashCheckpoints {
            hasher: Hasher::resumable(algorithm),
            at: 0,
            interval: CHECKPOINT_INTERVAL_BYTES.max(size / MAX_CHECKPOINTS),
            checkpoints: Vec::new(),
        }
    }

    /// Resumes at the last of `checkpoints` that is not beyond `offset`; returns its offset and hasher.
    pub fn resume(&mut self, algorithm: Algorithm, mut checkpoints: Vec<HashCheckpoint>, offset: u64) -> (u64, Hasher) {
        checkpoints.retain(|(at, _)| *at <= offset);
        let last = checkpoints.last().and_then(|(at, state)| Some((*at, Hasher::from_state(algorithm, state)?)));
        if let Some((at, hasher)) = last {
            (self.at, self.hasher, self.checkpoints) = (at, hasher, checkpoints);
        }
        (self.at, self.hasher.clone())
    }

    /// Hashes `bytes` at offset `from`; bytes hashed before are skipped. Returns whether it recorded a checkpoint.
    pub fn update(&mut self, from: u64, bytes: &[u8]) -> bool {
        let known = self.at.saturating_sub(from).min(bytes.len() as u64);
        self.hasher.update(&bytes[known as usize..]);
        self.at = self.at.max(from + bytes.len() as u64);
        let due = self.at >= self.checkpoints.last().map_or(0, |(at, _)| *at) + self.interval;
        if due {
            self.checkpoints.push((self.at, self.hasher.state().expect("made resumable")));
        }
        due
    }

    pub fn recorded(&self) -> &[HashCheckpoint] {
        &self.checkpoints
    }
}

/// Writes `OFFSET STATE`, in hexadecimal.
pub fn to_line((at, state): &HashCheckpoint) -> String {
    let hex: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{at:x} {hex}\n")
}

pub fn from_line(line: &str) -> Option<HashCheckpoint> {
    let (at, hex) = line.split_once(' ')?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let state = (0..hex.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?;
    Some((u64::from_str_radix(at, 16).ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn a_hash_resumes_at_the_last_checkpoint_that_the_registry_has() {
        let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
        let algorithm = Algorithm::Sha256;
        let mut checkpoints = HashCheckpoints::new(algorithm, bytes.len() as u64);
        let mut at = 0;
        for part in bytes.chunks(300_000) {
            checkpoints.update(at, part);
            at += part.len() as u64;
            // Sent again after a broken connection.
            checkpoints.update(at - 1000, &bytes[at as usize - 1000..at as usize]);
        }
        assert_eq!(checkpoints.recorded().len(), 4);
        let kept: Vec<HashCheckpoint> =
            checkpoints.recorded().iter().filter_map(|checkpoint| from_line(to_line(checkpoint).trim_end())).collect();
        let (from, hasher) = HashCheckpoints::new(algorithm, 0).resume(algorithm, kept, 13_000_000);
        assert!((8 << 20..=13_000_000).contains(&from), "{from}");
        assert_eq!(hasher.with(&bytes[from as usize..]).finish(), Digest::of(&bytes));
        // Without checkpoints, or with invalid ones, hashing starts at 0.
        for wrong in [vec![], vec![(5, vec![1, 2, 3])]] {
            let (from, hasher) = HashCheckpoints::new(algorithm, 0).resume(algorithm, wrong, 100);
            assert_eq!((from, hasher.finish()), (0, Digest::of(b"")));
        }
        assert!(from_line("12 0g").is_none() && from_line("12 012").is_none() && from_line("x").is_none());
    }
}
