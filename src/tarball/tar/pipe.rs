//! Bytes that come one after the other, and what their beginning tells.

use super::decompress::Packing;
use super::entries::{TarBytes, cut};
use crate::error::{Error, Result};
use std::io::{self, Read};

/// Bytes passed over at once.
const SCRATCH: usize = 64 << 10;

pub(crate) struct Pipe(pub Box<dyn Read + Send>);

impl TarBytes for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.0.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    fn skip(&mut self, mut bytes: u64) -> Result<()> {
        let mut scratch = vec![0; usize::try_from(bytes).unwrap_or(SCRATCH).min(SCRATCH)];
        while bytes > 0 {
            let wanted = usize::try_from(bytes).unwrap_or(SCRATCH).min(scratch.len());
            match self.read(&mut scratch[..wanted])? {
                0 => return Err(cut()),
                n => bytes -= n as u64,
            }
        }
        Ok(())
    }
}

impl Pipe {
    /// Reads to the end, of at most `most` bytes.
    pub fn drain(&mut self, most: u64) -> Result<()> {
        let mut scratch = vec![0; SCRATCH];
        let mut passed = 0;
        loop {
            match self.read(&mut scratch)? {
                0 => return Ok(()),
                n => passed += n as u64,
            }
            if passed > most {
                return Err(Error::invalid(format!("the archive goes on for more than {most} bytes behind its end")));
            }
        }
    }
}

/// An error of the system is told as it is; any other is a packing's that found damage.
fn broken(error: io::Error) -> Error {
    match Error::carried(error) {
        Ok(own) => own,
        Err(error) if error.raw_os_error().is_some() => Error::reading("it", error),
        Err(error) => Error::invalid(format!("it cannot be unpacked ({error}); it is damaged or was cut short")),
    }
}

/// Whether an entry begins as a JSON object or list does.
pub(crate) fn is_json(head: &[u8]) -> bool {
    head.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b'{' | b'['))
}

/// Whether an entry begins as a layer does: a tar, an empty tar, or something packed.
pub(crate) fn is_layer(head: &[u8]) -> bool {
    Packing::sniff(head).is_some()
}
