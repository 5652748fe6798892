//! The writer that enters its blob in the book of the registry's blobs.

use super::book::{BlobBook, Reservation};
use crate::error::{Error, Result};
use crate::image::Hasher;
use crate::transfer::{BlobWriter, Verified};
use std::sync::Arc;

/// A writer whose blob gets into the book.
pub struct BookedUpload<'a> {
    writer: Box<dyn BlobWriter + 'a>,
    book: Arc<BlobBook>,
    repository: Arc<str>,
    /// `None` for a blob whose digest is known only at its end.
    reservation: Option<Reservation>,
}

impl<'a> BookedUpload<'a> {
    /// Writes with `writer`.
    pub fn new(
        writer: Box<dyn BlobWriter + 'a>,
        book: Arc<BlobBook>,
        repository: Arc<str>,
        reservation: Option<Reservation>,
    ) -> BookedUpload<'a> {
        BookedUpload { writer, book, repository, reservation }
    }
}

impl BlobWriter for BookedUpload<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        self.writer.start(fresh)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.reservation.iter().for_each(Reservation::progressed);
        self.writer.write(bytes)
    }

    fn recover(&mut self, error: Error) -> Result<u64> {
        self.writer.recover(error)
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.writer.commit(blob)?;
        let (digest, size) = blob.stored();
        self.book.record(&digest, Some(size), &self.repository);
        self.reservation = None;
        Ok(())
    }
}
