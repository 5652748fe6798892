//! Content digests (image-spec, descriptor.md "Digests"): sha256 and sha512, and their hasher.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;
use std::{fmt, str::FromStr};

/// A hash algorithm that the image-spec registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the default.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Returns the prefix of digests: `sha256` or `sha512`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Returns the length of a digest in hexadecimal characters.
    pub fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// A digest of a registered algorithm. Its text is always `sha256:` or `sha512:` and lower-case hexadecimal characters
/// of the right number, so it is safe as a path component.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// The 32 bytes of a SHA-256 hash.
    Sha256([u8; 32]),
    /// The 64 bytes of a SHA-512 hash.
    Sha512([u8; 64]),
}

impl Digest {
    /// Computes the sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Hasher::default().with(bytes).finish()
    }

    /// Returns the hash algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the hexadecimal part.
    pub fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the algorithm and the first twelve characters, for messages.
    pub fn short(&self) -> String {
        format!("{}:{}", self.algorithm().name(), &self.hex()[..12])
    }

    /// Returns the blob's path in an OCI layout: `blobs/sha256/<hex>` (image-layout.md).
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm().name(), self.hex())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let wrong = |why: &str| Error::invalid(format!("{:?} is not a digest: {why}", shorten(text)));
        let (name, hex) = text.split_once(':').ok_or_else(|| wrong("expected sha256:<64 hexadecimal characters>"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(wrong("only sha256 and sha512 are supported")),
        };
        if hex.len() != algorithm.hex_len() {
            let expected = algorithm.hex_len();
            return Err(wrong(&format!("expected {expected} hexadecimal characters, found {}", hex.len())));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong("expected lower-case hexadecimal"));
        }
        let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("checked to be hexadecimal");
        Ok(match algorithm {
            Algorithm::Sha256 => Digest::Sha256(std::array::from_fn(byte)),
            Algorithm::Sha512 => Digest::Sha512(std::array::from_fn(byte)),
        })
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest step by step.
#[derive(Clone)]
pub struct Hasher(RunningHash);

#[derive(Clone)]
enum RunningHash {
    Sha256(sha2::Sha256),
    /// Used on processors without SHA-256 instructions, where it is twice as fast. Its state cannot be saved.
    Sha256InAssembly(ring::digest::Context),
    Sha512(sha2::Sha512),
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher::new(Algorithm::Sha256)
    }
}

impl Hasher {
    /// Creates the fastest hasher for this processor, which may not have a [`Hasher::state`].
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 if !has_sha_instructions() => {
                Hasher(RunningHash::Sha256InAssembly(ring::digest::Context::new(&ring::digest::SHA256)))
            }
            _ => Hasher::resumable(algorithm),
        }
    }

    /// Creates a hasher that has a [`Hasher::state`].
    pub fn resumable(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => RunningHash::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => RunningHash::Sha512(sha2::Sha512::new()),
        })
    }

    /// Hashes further bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            RunningHash::Sha256(state) => state.update(bytes),
            RunningHash::Sha256InAssembly(state) => state.update(bytes),
            RunningHash::Sha512(state) => state.update(bytes),
        }
    }

    /// Hashes further bytes, and returns the hasher.
    pub fn with(mut self, bytes: &[u8]) -> Hasher {
        self.update(bytes);
        self
    }

    /// Returns the state for [`Hasher::from_state`]; `None` if the hasher is not [`Hasher::resumable`].
    pub fn state(&self) -> Option<Vec<u8>> {
        match &self.0 {
            RunningHash::Sha256(state) => Some(state.serialize().to_vec()),
            RunningHash::Sha256InAssembly(_) => None,
            RunningHash::Sha512(state) => Some(state.serialize().to_vec()),
        }
    }

    /// Restores a hasher; `None` if `state` is not one of `algorithm`. The state must come from a file that only this
    /// user can write.
    pub fn from_state(algorithm: Algorithm, state: &[u8]) -> Option<Hasher> {
        Some(Hasher(match algorithm {
            Algorithm::Sha256 => RunningHash::Sha256(sha2::Sha256::deserialize(state.try_into().ok()?).ok()?),
            Algorithm::Sha512 => RunningHash::Sha512(sha2::Sha512::deserialize(state.try_into().ok()?).ok()?),
        }))
    }

    /// Returns the digest of all bytes.
    pub fn finish(self) -> Digest {
        match self.0 {
            RunningHash::Sha256(state) => Digest::Sha256(state.finalize().into()),
            RunningHash::Sha256InAssembly(state) => {
                Digest::Sha256(state.finish().as_ref().try_into().expect("a SHA-256 digest has 32 bytes"))
            }
            RunningHash::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_sha_instructions() -> bool {
    std::is_x86_feature_detected!("sha")
}

/// On other architectures sha2 is always used.
#[cfg(not(target_arch = "x86_64"))]
fn has_sha_instructions() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_survives_its_text() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        let long = Hasher::new(Algorithm::Sha512).with(b"x").finish();
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
    }

    #[test]
    fn both_hashers_of_sha256_agree_at_every_length_of_a_block() {
        let bytes: Vec<u8> = (0..400_u32).map(|n| (n * 7 + n / 64) as u8).collect();
        for length in 0..bytes.len() {
            let (first, rest) = bytes[..length].split_at(length / 3);
            let assembly = Hasher(RunningHash::Sha256InAssembly(ring::digest::Context::new(&ring::digest::SHA256)));
            let resumable = Hasher::resumable(Algorithm::Sha256).with(first);
            let resumed = Hasher::from_state(Algorithm::Sha256, &resumable.state().unwrap()).unwrap();
            let expected = Digest::Sha256(sha2::Sha256::digest(&bytes[..length]).into());
            assert_eq!(assembly.with(first).with(rest).finish(), expected, "{length}");
            assert_eq!(resumed.with(rest).finish(), expected, "{length}");
        }
    }

    #[test]
    fn what_could_be_a_path_is_no_digest() {
        let upper = EMPTY.to_uppercase();
        for text in ["", "sha256:", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper[..]] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
