//! A pool of buffers for sending blobs, so that a buffer is not allocated and cleared for each read.

use hyper::body::Bytes;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The smallest buffer of a connection. A connection with this size does not read ahead.
pub const MIN_BUFFER_BYTES: usize = 16 << 10;

/// The maximum number of unused buffers in the pool.
const MAX_FREE_BUFFERS: usize = 16;

static FREE_BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A pooled buffer and the number of its valid bytes.
struct PooledBuffer(Vec<u8>, usize);

/// Calls `read` on a buffer of `want` bytes, and returns the bytes that it wrote; `read` returns their number.
pub fn fill(want: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
    let mut free = FREE_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    let fitting = free.iter().position(|buffer| buffer.len() >= want && buffer.len() / 2 <= want);
    let buffer = fitting.map(|at| free.swap_remove(at));
    drop(free);
    let mut pooled = PooledBuffer(buffer.unwrap_or_else(|| vec![0; want]), want);
    pooled.1 = read(&mut pooled.0[..want])?;
    Ok(Bytes::from_owner(pooled))
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut free = FREE_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MAX_FREE_BUFFERS {
            free.push(std::mem::take(&mut self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_used_again_shows_nothing_of_before() {
        let first = fill(64 << 10, |buffer| {
            buffer.fill(1);
            Ok(buffer.len())
        });
        drop(first.unwrap());
        let second = fill(40 << 10, |buffer| {
            buffer.fill(2);
            Ok(buffer.len() / 2)
        });
        let second = second.unwrap();
        assert!(second.len() == 20 << 10 && second.iter().all(|byte| *byte == 2));
        assert!(fill(10, |_| Err(io::Error::other("no"))).is_err());
    }
}
