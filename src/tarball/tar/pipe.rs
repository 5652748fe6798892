//! A tar that is read once from a pipe, and the detection of content by its first bytes.

use super::decompress::ArchiveCompression;
use super::entries::{TarBytes, truncated};
use crate::error::{Error, Result};
use std::io::{self, Read};

/// The buffer for bytes that are skipped.
const SKIP_BUFFER_BYTES: usize = 64 << 10;

pub(crate) struct Pipe(pub Box<dyn Read + Send>);

impl TarBytes for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.0.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
    }

    fn skip(&mut self, mut bytes: u64) -> Result<()> {
        let mut scratch = vec![0; usize::try_from(bytes).unwrap_or(SKIP_BUFFER_BYTES).min(SKIP_BUFFER_BYTES)];
        while bytes > 0 {
            let wanted = usize::try_from(bytes).unwrap_or(SKIP_BUFFER_BYTES).min(scratch.len());
            match self.read(&mut scratch[..wanted])? {
                0 => return Err(truncated()),
                n => bytes -= n as u64,
            }
        }
        Ok(())
    }
}

impl Pipe {
    /// Reads to the end. Fails with `Invalid` after more than `most` bytes.
    pub fn drain(&mut self, most: u64) -> Result<()> {
        let mut scratch = vec![0; SKIP_BUFFER_BYTES];
        let mut passed = 0;
        loop {
            match self.read(&mut scratch)? {
                0 => return Ok(()),
                n => passed += n as u64,
            }
            if passed > most {
                return Err(Error::invalid(format!("the archive has more than {most} bytes behind its end mark")));
            }
        }
    }
}

/// Converts an error. Errors without a system error code come from a decompressor that found damage.
fn read_error(error: io::Error) -> Error {
    match Error::carried(error) {
        Ok(own) => own,
        Err(error) if error.raw_os_error().is_some() => Error::reading("it", error),
        Err(error) => Error::invalid(format!("it cannot be decompressed ({error}): it is damaged or truncated")),
    }
}

/// Whether an entry starts like a JSON object or list.
pub(crate) fn is_json(head: &[u8]) -> bool {
    head.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b'{' | b'['))
}

/// Whether an entry starts like a layer: a tar, an empty tar, or compressed data.
pub(crate) fn is_layer(head: &[u8]) -> bool {
    ArchiveCompression::sniff(head).is_some()
}
