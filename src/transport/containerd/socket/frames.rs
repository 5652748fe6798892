//! gRPC's framing of messages in a stream of bytes (gRPC over HTTP2, "Length-Prefixed-Message").

use super::status::Failure;
use crate::error::Error;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// The largest message that is accepted, and the largest that containerd accepts by default.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The flag and the length before each message.
const PREFIX_BYTES: usize = 5;
/// The most that is allocated before a message's bytes arrive.
const MAX_RESERVED_BYTES: usize = 2 << 20;

/// Received bytes, of which complete messages are taken.
pub(super) struct Frames {
    buffer: BytesMut,
    /// The largest message that is accepted, in bytes.
    max_bytes: usize,
}

impl Frames {
    /// For messages of at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Frames {
        Frames { buffer: BytesMut::new(), max_bytes }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether all received bytes were taken.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Discards the received bytes.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// The next complete message; `None` if more bytes are needed.
    ///
    /// # Errors
    /// - `Protocol`: the message is compressed, or too large.
    pub fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some((&[flag, length @ ..], _)) = self.buffer.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(Failure::protocol("sent a compressed message, which was not asked for"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            let most = self.max_bytes;
            return Err(Failure::protocol(format!("sent a message of {length} bytes; at most {most} are accepted")));
        }
        if self.buffer.len() - PREFIX_BYTES < length {
            let wanted = (PREFIX_BYTES + length).min(MAX_RESERVED_BYTES);
            self.buffer.reserve(wanted.saturating_sub(self.buffer.len()));
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Decodes a message.
pub(super) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Failure> {
    M::decode(bytes).map_err(|error| Failure::protocol(format!("sent a message that cannot be decoded ({error})")))
}

/// `message` with its length before it.
pub(super) fn encode(message: &impl Message) -> Result<Bytes, Failure> {
    let length = message.encoded_len();
    if length > MAX_MESSAGE_BYTES {
        let problem = format!("a message of {length} bytes is larger than containerd accepts ({MAX_MESSAGE_BYTES})");
        return Err(Failure::Other(Error::invalid(problem)));
    }
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut bytes).map_err(|error| Failure::Other(Error::failed(format!("internal error: {error}"))))?;
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_however_their_bytes_arrive() {
        let sent = [&b"\0\0\0\0\x03abc"[..], b"\0\0\0\0\0", b"\0\0\0\0\x01d"].concat();
        for size in 1..sent.len() {
            let (mut frames, mut taken) = (Frames::new(3), Vec::new());
            for part in sent.chunks(size) {
                frames.push(part);
                while let Some(message) = frames.next().unwrap() {
                    taken.push(message);
                }
            }
            assert_eq!(taken, [&b"abc"[..], b"", b"d"], "{size}");
            assert!(frames.is_empty());
        }
        let mut frames = Frames::new(2);
        frames.push(&sent);
        assert!(frames.next().unwrap_err().reason().contains("message of 3 bytes; at most 2"));
    }
}
