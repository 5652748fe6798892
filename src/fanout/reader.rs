//! The thread of one shared read: from the store into the window, as long as the read has followers.

use super::CHUNK_BYTES;
use super::coordinator::{Coordinator, Key};
use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::source::Store;
use std::{
    io::{ErrorKind, Read},
    sync::Arc,
    thread,
};

/// Starts the read `key` of `blob`, from offset `from`.
pub(super) fn start(
    coordinator: &Arc<Coordinator>,
    store: &Arc<dyn Store>,
    key: Key,
    blob: &Descriptor,
    from: u64,
) -> Result<()> {
    let (coordinator, store, blob) = (coordinator.clone(), store.clone(), blob.clone());
    thread::Builder::new().name("reading".into()).spawn(move || {
        let ending = EndOnDrop { coordinator: &coordinator, key };
        let how = read(&coordinator, &*store, key, &blob, from);
        ending.coordinator.end_read(key, how);
    })?;
    Ok(())
}

fn read(coordinator: &Coordinator, store: &dyn Store, key: Key, blob: &Descriptor, from: u64) -> Result<()> {
    let mut reader = store.open(blob, from)?;
    while coordinator.may_read(key) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let filled = fill(&mut *reader, &mut chunk);
        let (n, failed) = match filled {
            Ok(n) => (n, None),
            Err((n, error)) => (n, Some(error)),
        };
        chunk.truncate(n);
        if n > 0 {
            chunk.shrink_to_fit();
            coordinator.push(key, chunk);
        }
        match failed {
            Some(error) => return Err(error),
            None if n < CHUNK_BYTES => break,
            None => {}
        }
    }
    Ok(())
}

/// Fills `chunk`; less only at the end of the reader, or with the error that ended it.
fn fill(reader: &mut dyn Read, chunk: &mut [u8]) -> Result<usize, (usize, Error)> {
    let mut filled = 0;
    while filled < chunk.len() {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((filled, Error::from(error))),
        }
    }
    Ok(filled)
}

/// Ends the read also after a panic.
struct EndOnDrop<'a> {
    coordinator: &'a Coordinator,
    key: Key,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.coordinator.end_read(self.key, Err(Error::failed("the thread that reads the source panicked")));
    }
}
