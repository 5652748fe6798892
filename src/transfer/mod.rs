//! The transfer of one blob: read, hash, write, check, commit. The only maker of [`Verified`].

mod budget;
mod incoming;
mod pump;
mod recompress;
mod recovery;
pub(crate) mod replay;
mod slots;
mod verified;
mod writer;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Hasher;
use crate::progress::{Event, Watch};
use crate::source::Claim;
use pump::{Shared, hash_on_thread, pump};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

pub use budget::Budget;
pub use incoming::IncomingBlob;
pub use recompress::{Recompress, measure_recompressed, transfer_recompressed};
use recovery::LimitedWriter;
pub(crate) use slots::TransferSlot;
pub use slots::TransferSlots;
pub use verified::Verified;
use verified::check;
pub(crate) use verified::{longer_than_announced, not_announced};
pub use writer::BlobWriter;

/// A blob of at least this size is hashed on a second thread while it is written.
const HASH_THREAD_BYTES: u64 = 2 << 20;

/// The surroundings of one blob's transfer: its limits, and where it reports to.
pub struct TransferContext<'a> {
    /// The receiver of progress events.
    pub watch: &'a dyn Watch,
    /// The cancel flag of the run.
    pub cancel: &'a Cancel,
    /// Raised when another blob of the copy has failed.
    pub stop: &'a AtomicBool,
    /// The blob's number in events.
    pub id: u64,
    /// Threads for recompression.
    pub threads: usize,
    /// The size of one read buffer, in bytes.
    pub buffer_bytes: usize,
    /// The latest bytes that are stored for a writer that asks for them again; 0 where no writer does.
    pub replay_bytes: usize,
}

impl TransferContext<'_> {
    /// Reports `bytes`, and fails where the copy has to stop.
    fn moved(&self, bytes: usize) -> Result<()> {
        self.cancel.check()?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        self.watch.event(Event::BlobProgress { id: self.id, bytes: bytes as u64 });
        Ok(())
    }
}

/// Opens the source's bytes from an offset on.
pub type Opener<'o, 'r> = dyn FnMut(u64) -> Result<Box<dyn Read + Send + 'r>> + 'o;

/// Writes the blob of `open` to `writer` unchanged, and commits it if it is what `claim` says.
///
/// # Errors
/// - `Invalid`: the digest or the size is wrong; then nothing is committed.
/// - Those of the source, and those of the writer that it cannot recover from.
pub fn transfer(
    claim: &Claim,
    open: &mut Opener<'_, '_>,
    writer: Box<dyn BlobWriter + '_>,
    context: &TransferContext<'_>,
) -> Result<Verified> {
    let mut writer = LimitedWriter::new(writer, claim);
    let algorithm = claim.digest.map_or_else(Default::default, |digest| digest.algorithm());
    let (from, mut hasher) = writer.start(Hasher::new(algorithm))?;
    let (digest, size) = match claim.size.is_none_or(|size| size.saturating_sub(from) >= HASH_THREAD_BYTES) {
        true => hash_on_thread(hasher, |hash| pump(claim, from, open, &mut writer, hash, context))?,
        false => {
            let mut hash = |buffer: &Shared, range| hasher.update(&buffer[range]);
            let size = pump(claim, from, open, &mut writer, &mut hash, context)?;
            (hasher.finish(), size)
        }
    };
    check(claim, digest, size)?;
    let verified = Verified { source: (digest, size), stored: (digest, size), diff_id: None, resumed: from };
    while let Err(error) = writer.commit(&verified) {
        let again = writer.recover(error)?;
        // These bytes were hashed already.
        pump(claim, again, open, &mut writer, &mut |_, _| {}, context)?;
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::progress::Silent;
    use std::{io::Cursor, sync::Mutex};

    const BUFFER_BYTES: usize = 256 << 10;

    #[derive(Default)]
    struct Kept(Mutex<(Vec<u8>, Option<Verified>)>);
    struct Keep<'a>(&'a Kept, Option<u64>);
    impl BlobWriter for Keep<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<()> {
            let mut kept = self.0.0.lock().unwrap();
            if let Some(at) = self.1
                && kept.0.len() as u64 >= at
            {
                return Err(Error::network("cut"));
            }
            kept.0.extend_from_slice(bytes);
            Ok(())
        }
        fn recover(&mut self, _: Error) -> Result<u64> {
            let mut kept = self.0.0.lock().unwrap();
            let at = kept.0.len() as u64 - 1000;
            kept.0.truncate(at as usize);
            self.1 = None;
            Ok(at)
        }
        fn commit(&mut self, blob: &Verified) -> Result<()> {
            self.0.0.lock().unwrap().1 = Some(blob.clone());
            Ok(())
        }
    }

    fn run(bytes: &[u8], claim: &Claim, fail_at: Option<u64>) -> (Result<Verified>, Kept) {
        let kept = Kept::default();
        let done = run_with(bytes, claim, Box::new(Keep(&kept, fail_at)));
        (done, kept)
    }

    fn run_with(bytes: &[u8], claim: &Claim, writer: Box<dyn BlobWriter + '_>) -> Result<Verified> {
        let (cancel, stop) = (Cancel::default(), AtomicBool::new(false));
        let flow = TransferContext {
            watch: &Silent,
            cancel: &cancel,
            stop: &stop,
            id: 0,
            threads: 1,
            buffer_bytes: BUFFER_BYTES,
            replay_bytes: BUFFER_BYTES,
        };
        let mut open = |from: u64| Ok(Box::new(Cursor::new(bytes[from as usize..].to_vec())) as Box<dyn Read + Send>);
        transfer(claim, &mut open, writer, &flow)
    }

    fn claim(bytes: &[u8]) -> Claim {
        Claim { digest: Some(Digest::of(bytes)), size: Some(bytes.len() as u64) }
    }

    fn noise(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn what_arrives_is_what_left() {
        for size in [0, 1, 4095, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5 << 20] {
            let bytes = noise(size);
            let (done, kept) = run(&bytes, &claim(&bytes), None);
            assert_eq!(done.unwrap().stored(), (Digest::of(&bytes), size as u64));
            assert!(kept.0.into_inner().unwrap().0 == bytes);
        }
    }

    #[test]
    fn wrong_bytes_are_never_committed() {
        let bytes = noise(3 << 20);
        let mut other = bytes.clone();
        other[1 << 20] ^= 1;
        for (sent, claim) in [
            (&other[..], claim(&bytes)),
            (&bytes[..100], claim(&bytes)),
            (&bytes[..], claim(&bytes[..100])),
            (&bytes[..], Claim { size: Some(99), digest: None }),
        ] {
            let (done, kept) = run(sent, &claim, None);
            assert_eq!(done.unwrap_err().kind(), crate::Kind::Invalid);
            assert!(kept.0.into_inner().unwrap().1.is_none());
        }
    }

    /// Refuses bytes or the commit, and always resumes at `from`.
    struct Stubborn {
        refuses_bytes: bool,
        from: u64,
    }
    impl BlobWriter for Stubborn {
        fn write(&mut self, _: &[u8]) -> Result<()> {
            if self.refuses_bytes { Err(Error::network("cut")) } else { Ok(()) }
        }
        fn recover(&mut self, _: Error) -> Result<u64> {
            Ok(self.from)
        }
        fn commit(&mut self, _: &Verified) -> Result<()> {
            Err(Error::network("cut"))
        }
    }

    #[test]
    fn a_writer_that_always_recovers_ends_with_an_error_that_names_the_blob() {
        let bytes = noise(5000);
        for (refuses_bytes, from) in [(true, 0), (false, 0), (false, 5000)] {
            let error = run_with(&bytes, &claim(&bytes), Box::new(Stubborn { refuses_bytes, from })).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Network);
            let expected = format!("blob {}: resumed 10000 times without progress: cut", Digest::of(&bytes));
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_writer_that_recovers_goes_on_from_its_offset() {
        let bytes = noise(6 << 20);
        let (done, kept) = run(&bytes, &claim(&bytes), Some(2 << 20));
        assert_eq!(done.unwrap().stored().0, Digest::of(&bytes));
        assert!(kept.0.into_inner().unwrap().0 == bytes);
    }
}
