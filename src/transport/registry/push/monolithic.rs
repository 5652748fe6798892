//! The writer for small blobs: the bytes are collected, verified, then sent in one request.

use super::session::Session;
use super::streamed::StreamedUpload;
use super::target::{MAX_MONOLITHIC_BYTES, Target};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;

const PIECE_BYTES: usize = 64 << 10;

/// Collects a small blob and sends it after verification.
pub struct MonolithicUpload {
    target: Target,
    session: Option<Session>,
    /// The digest and the size that were announced.
    announced: (Digest, u64),
    bytes: Vec<u8>,
}

impl MonolithicUpload {
    pub fn new(target: Target, session: Option<Session>, announced: (Digest, u64)) -> MonolithicUpload {
        MonolithicUpload { target, session, announced, bytes: Vec::new() }
    }
}

impl BlobWriter for MonolithicUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if (self.bytes.len() + bytes.len()) as u64 > self.announced.1 {
            return Err(Error::invalid("a blob has more bytes than were announced"));
        }
        // Not before the first bytes: many blobs may wait for them.
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(self.announced.1.min(MAX_MONOLITHIC_BYTES) as usize);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        if blob.stored() != self.announced || self.bytes.len() as u64 != self.announced.1 {
            return Err(Error::failed(format!("blob {} is not the blob that was announced", blob.stored().0)));
        }
        let mut writer = StreamedUpload::new(self.target.clone(), self.session.take(), Some(blob.stored()));
        let mut from = 0;
        loop {
            // The upload copies each piece.
            let mut pieces = self.bytes[from..].chunks(PIECE_BYTES);
            let sent = pieces.try_for_each(|piece| writer.write(piece)).and_then(|()| writer.commit(blob));
            match sent {
                Ok(()) => return Ok(()),
                Err(error) => from = writer.recover(error)? as usize,
            }
        }
    }
}
