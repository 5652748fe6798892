//! The thread of one reading: from the store into the window, as long as somebody follows.

use super::CHUNK;
use super::coordinator::{Coordinator, Key};
use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::source::Store;
use std::{
    io::{ErrorKind, Read},
    sync::Arc,
    thread,
};

/// Starts the reading `key`, of `blob` from `from` on.
pub(super) fn start(
    desk: &Arc<Coordinator>,
    store: &Arc<dyn Store>,
    key: Key,
    blob: &Descriptor,
    from: u64,
) -> Result<()> {
    let (desk, store, blob) = (desk.clone(), store.clone(), blob.clone());
    thread::Builder::new().name("reading".into()).spawn(move || {
        let ending = Ending { desk: &desk, key };
        let how = read(&desk, &*store, key, &blob, from);
        ending.desk.end(key, how);
    })?;
    Ok(())
}

fn read(desk: &Coordinator, store: &dyn Store, key: Key, blob: &Descriptor, from: u64) -> Result<()> {
    let mut reader = store.open(blob, from)?;
    while desk.may_read(key) {
        let mut chunk = vec![0; CHUNK];
        let filled = fill(&mut *reader, &mut chunk);
        let (n, failed) = match filled {
            Ok(n) => (n, None),
            Err((n, error)) => (n, Some(error)),
        };
        chunk.truncate(n);
        if n > 0 {
            chunk.shrink_to_fit();
            desk.push(key, chunk);
        }
        match failed {
            Some(error) => return Err(error),
            None if n < CHUNK => break,
            None => {}
        }
    }
    Ok(())
}

/// Fills `chunk`; short only at the end, or with the error that came then.
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

/// Tells the followers also where the thread panics.
struct Ending<'a> {
    desk: &'a Coordinator,
    key: Key,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.desk.end(self.key, Err(Error::failed("the thread that reads the source has failed")));
    }
}
