//! A block of a layer with its buffers, which are reused from block to block.

/// A buffer that is reused; allocated on first use.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// Empties the buffer and returns at least `size` bytes to write to.
    pub fn writable(&mut self, size: usize) -> &mut [u8] {
        self.used = 0;
        if self.bytes.len() < size {
            // A new allocation, since growing would copy the old content.
            self.bytes = vec![0; size];
        }
        &mut self.bytes
    }

    /// Marks the first `used` bytes as the content.
    pub fn set_len(&mut self, used: usize) {
        self.used = used;
    }

    pub fn content(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// A block of uncompressed bytes and its compressed form.
#[derive(Default)]
pub struct Block {
    pub input: Buffer,
    pub output: Buffer,
}
