//! The memory and the threads that one copy may use.

/// In bytes: large enough that system calls do not count, small enough for many blobs at the same time.
const BUFFER_BYTES: usize = 256 << 10;
/// One buffer of each copy, together.
const SHARED_BUFFERS_BYTES: usize = 2 << 20;
/// More than the buffers between here and a registry have: a retry goes back at most this far.
const REPLAY_BYTES: usize = 8 << 20;
/// Blobs of all copies together.
const SHARED_BLOBS: usize = 12;

/// One copy's part of the process's memory and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Copies that run at the same time, this one among them; at least 1.
    pub copies: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { copies: 1 }
    }
}

impl Budget {
    /// Whether other copies run at the same time.
    pub(crate) fn is_shared(self) -> bool {
        self.copies > 1
    }

    /// The size of one buffer, in bytes.
    pub fn buffer_bytes(self) -> usize {
        (SHARED_BUFFERS_BYTES / self.copies.max(1)).clamp(BUFFER_BYTES / 8, BUFFER_BYTES)
    }

    /// The latest bytes of a stream that are stored for a retry.
    pub fn replay_bytes(self) -> usize {
        REPLAY_BYTES / self.copies.max(1)
    }

    /// This copy's part of `cores`.
    pub(crate) fn threads(self, cores: usize) -> usize {
        (cores / self.copies.max(1)).max(1)
    }

    /// The number of blobs that this copy may transfer at the same time.
    pub(crate) fn parallel_blobs(self) -> usize {
        match self.copies {
            0 | 1 => usize::MAX,
            copies => (SHARED_BLOBS / copies).max(1),
        }
    }
}
