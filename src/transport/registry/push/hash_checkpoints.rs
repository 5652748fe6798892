//! The state of a blob's hash at marks on its way up, for a source that is far away too: with it a later run goes on
//! without reading again what was sent. Kept in the user's cache, beside where the upload goes on.

use crate::image::{Algorithm, Hasher};

/// In bytes, between two marks: what a later run reads again at most.
const APART: u64 = 4 << 20;
/// Of one blob; those of very large ones are further apart.
const MOST: u64 = 64;

/// A position in bytes, and the hasher's state there.
pub type HashCheckpoint = (u64, Vec<u8>);

/// Hashes what passes, and marks its state every now and then.
pub struct HashCheckpoints {
    hasher: Hasher,
    at: u64,
    apart: u64,
    /// In their order.
    marks: Vec<HashCheckpoint>,
}

impl HashCheckpoints {
    /// Of a blob of `size` bytes.
    pub fn new(algorithm: Algorithm, size: u64) -> HashCheckpoints {
        HashCheckpoints {
            hasher: Hasher::resumable(algorithm),
            at: 0,
            apart: APART.max(size / MOST),
            marks: Vec::new(),
        }
    }

    /// Goes on at the last of `marks` that is not behind `offset`: where that is, and the hasher there.
    pub fn go_on(&mut self, algorithm: Algorithm, mut marks: Vec<HashCheckpoint>, offset: u64) -> (u64, Hasher) {
        marks.retain(|(at, _)| *at <= offset);
        let last = marks.last().and_then(|(at, state)| Some((*at, Hasher::from_state(algorithm, state)?)));
        if let Some((at, hasher)) = last {
            (self.at, self.hasher, self.marks) = (at, hasher, marks);
        }
        (self.at, self.hasher.clone())
    }

    /// `bytes` pass, from `from` on, perhaps again. Whether a mark was made.
    pub fn pass(&mut self, from: u64, bytes: &[u8]) -> bool {
        let known = self.at.saturating_sub(from).min(bytes.len() as u64);
        self.hasher.update(&bytes[known as usize..]);
        self.at = self.at.max(from + bytes.len() as u64);
        let made = self.at >= self.marks.last().map_or(0, |(at, _)| *at) + self.apart;
        if made {
            self.marks.push((self.at, self.hasher.state().expect("made resumable")));
        }
        made
    }

    pub fn all(&self) -> &[HashCheckpoint] {
        &self.marks
    }
}

/// `MARK STATE`, in hexadecimal.
pub fn line((at, state): &HashCheckpoint) -> String {
    let hex: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{at:x} {hex}\n")
}

pub fn parse(line: &str) -> Option<HashCheckpoint> {
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
    fn a_hash_goes_on_at_the_last_mark_that_the_registry_has() {
        let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
        let algorithm = Algorithm::Sha256;
        let mut marks = HashCheckpoints::new(algorithm, bytes.len() as u64);
        let mut at = 0;
        for piece in bytes.chunks(300_000) {
            marks.pass(at, piece);
            at += piece.len() as u64;
            // Sent again after a cut.
            marks.pass(at - 1000, &bytes[at as usize - 1000..at as usize]);
        }
        assert_eq!(marks.all().len(), 4);
        let kept: Vec<HashCheckpoint> = marks.all().iter().filter_map(|mark| parse(line(mark).trim_end())).collect();
        let (from, hasher) = HashCheckpoints::new(algorithm, 0).go_on(algorithm, kept, 13_000_000);
        assert!((8 << 20..=13_000_000).contains(&from), "{from}");
        assert_eq!(hasher.with(&bytes[from as usize..]).finish(), Digest::of(&bytes));
        // Without marks, or with such as nobody wrote, it begins anew.
        for wrong in [vec![], vec![(5, vec![1, 2, 3])]] {
            let (from, hasher) = HashCheckpoints::new(algorithm, 0).go_on(algorithm, wrong, 100);
            assert_eq!((from, hasher.finish()), (0, Digest::of(b"")));
        }
        assert!(parse("12 0g").is_none() && parse("12 012").is_none() && parse("x").is_none());
    }
}
