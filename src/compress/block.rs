//! A piece of a layer on its way through, with the buffers it takes along from block to block.

/// Memory that is reused; allocated when it is first needed.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// All of it, at least `size` bytes; what is in it is forgotten.
    pub fn room(&mut self, size: usize) -> &mut [u8] {
        self.used = 0;
        if self.bytes.len() < size {
            // A new one: growing would copy what nobody needs.
            self.bytes = vec![0; size];
        }
        &mut self.bytes
    }

    /// Says that the first `used` bytes of the room have been written.
    pub fn wrote(&mut self, used: usize) {
        self.used = used;
    }

    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// A block of raw bytes, and what they are packed.
#[derive(Default)]
pub struct Block {
    pub raw: Buffer,
    pub packed: Buffer,
}

impl Block {
    pub fn raw(&self) -> &[u8] {
        self.raw.written()
    }

    pub fn packed(&self) -> &[u8] {
        self.packed.written()
    }
}
