//! The universal form, written in one pass: `oci-layout`, blobs as they come, `index.json` and `manifest.json` last,
//! so that an archive that was cut short loads nowhere. No owners, no times: the same images give the same bytes.

use super::contents::{INDEX, LAYOUT};
use super::header::Kind;
use super::lists::Lists;
use super::out::{Out, Tar};
use super::saved;
use crate::error::{Error, Result};
use crate::image::{Digest, LayoutIndex, Manifest, Name, Platform};
use crate::sink::{Begin, BlobWriter, Verified};
use crate::source::Claim;
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    sync::{Mutex, MutexGuard},
};

/// An archive of the universal form on its way out; what a sink over a file or a pipe is made of.
pub struct Pack {
    state: Mutex<State>,
    /// Whose images `manifest.json`, which has no indexes, lists.
    platform: Platform,
}

struct State {
    /// Gone once the archive is closed.
    tar: Option<Tar<'static>>,
    held: HashSet<Digest>,
    lists: Lists,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty,
    Between,
    /// Inside a blob.
    Within,
    /// A blob was begun in a pipe and not ended.
    Broken,
    /// An archive passes in its own form.
    Relayed,
}

impl Pack {
    /// An archive written to `out`, which messages call `label`. `platform` is the one whose images loaders find that
    /// know no indexes.
    pub fn new(out: Out<'static>, label: &str, platform: Platform) -> Pack {
        let tar = Some(Tar::new(out, label));
        let state = State { tar, held: HashSet::new(), lists: Lists::default(), phase: Phase::Empty };
        Pack { state: Mutex::new(state), platform }
    }

    /// As [`crate::sink::Sink::begin`]. One blob at a time; in a pipe it needs digest and size.
    pub fn begin(&self, claim: &Claim) -> Result<Begin<'_>> {
        let mut state = self.state();
        if claim.digest.is_some_and(|digest| state.held.contains(&digest)) {
            return Ok(Begin::Held);
        }
        state.open()?;
        let tar = state.tar()?;
        let start = tar.at();
        let named = match (claim.digest, claim.size) {
            (Some(digest), Some(size)) => Some((digest, size)),
            _ if tar.is_file() => None,
            _ => {
                return Err(Error::usage(
                    "an archive in a pipe needs every layer's digest and size beforehand; write it to a file",
                ));
            }
        };
        let (name, size) = named.map_or_else(|| ("-".to_owned(), 0), |(digest, size)| (digest.blob_path(), size));
        tar.begin(&name, Kind::File, size)?;
        state.phase = Phase::Within;
        Ok(Begin::Write(Box::new(Entry { pack: self, named, start, written: 0, ended: false })))
    }

    /// As [`crate::sink::Sink::put_manifest`].
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut state = self.state();
        state.lists.put(manifest);
        if state.held.contains(&manifest.digest()) {
            return Ok(());
        }
        state.open()?;
        state.tar()?.entry(&manifest.digest().blob_path(), &manifest.bytes)?;
        state.held.insert(manifest.digest());
        Ok(())
    }

    /// As [`crate::sink::Sink::publish`]. Nothing is written before [`Pack::close`].
    pub fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.state().lists.publish(name, root);
        Ok(())
    }

    /// Writes the lists and the end mark. A pipe is closed, a file given back, not yet synced.
    pub fn close(&self) -> Result<Option<File>> {
        let mut state = self.state();
        if state.phase == Phase::Relayed {
            return state.take()?.close();
        }
        state.open()?;
        let index = state.lists.index().bytes();
        let saved = state.lists.saved(&self.platform);
        let mut tar = state.take()?;
        tar.entry(INDEX, &index)?;
        if let Some(saved) = saved {
            tar.entry(saved::FILE, &saved::write(&saved))?;
        }
        tar.finish()
    }

    /// The raw way in, for an archive that passes in its own form; nothing else may be written then.
    pub fn relay(&self) -> Result<Box<dyn Write + Send + '_>> {
        let mut state = self.state();
        if state.phase != Phase::Empty {
            return Err(Error::usage(
                "an archive of docker's old form cannot pass into an archive that was begun; save it to a file first",
            ));
        }
        state.phase = Phase::Relayed;
        Ok(Box::new(Raw(self)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Ready for the next entry.
    fn open(&mut self) -> Result<()> {
        match self.phase {
            Phase::Between => Ok(()),
            Phase::Empty => {
                self.tar()?.entry(LAYOUT, LayoutIndex::layout_file())?;
                self.phase = Phase::Between;
                Ok(())
            }
            Phase::Within => Err(Error::failed("an archive takes one blob after the other")),
            Phase::Broken => Err(Error::failed("the archive ended inside a blob; nothing in it can be loaded")),
            Phase::Relayed => Err(Error::usage("an archive passes there in its own form; copy the other images apart")),
        }
    }

    fn tar(&mut self) -> Result<&mut Tar<'static>> {
        self.tar.as_mut().ok_or_else(|| Error::failed("the archive is closed already"))
    }

    fn take(&mut self) -> Result<Tar<'static>> {
        self.tar.take().ok_or_else(|| Error::failed("the archive is closed already"))
    }
}

/// One blob's entry.
struct Entry<'p> {
    pack: &'p Pack,
    /// Digest and size, where they were known beforehand.
    named: Option<(Digest, u64)>,
    /// Where its header is.
    start: u64,
    written: u64,
    ended: bool,
}

impl BlobWriter for Entry<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.named.is_some_and(|(_, size)| self.written > size) {
            return Err(Error::invalid("a blob has more bytes than were announced"));
        }
        self.pack.state().tar()?.write(bytes)
    }

    fn commit(mut self: Box<Self>, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        if self.written != size || self.named.is_some_and(|named| named != (digest, size)) {
            return Err(Error::failed(format!("blob {digest} is not the one that was begun")));
        }
        let mut state = self.pack.state();
        if self.named.is_none() && state.held.contains(&digest) {
            let start = self.start;
            state.tar()?.cut(start)?;
        } else {
            let tar = state.tar()?;
            tar.end(size)?;
            if self.named.is_none() {
                tar.settle(self.start, &digest.blob_path(), size)?;
            }
            state.held.insert(digest);
        }
        state.phase = Phase::Between;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Entry<'_> {
    /// What was not committed is taken back from a file; a pipe's archive never ends then.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.pack.state();
        let start = self.start;
        let taken_back = state.tar().and_then(|tar| tar.cut(start));
        state.phase = if taken_back.is_ok() { Phase::Between } else { Phase::Broken };
    }
}

struct Raw<'p>(&'p Pack);

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.state().tar()?.write(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.0.state().tar()?.flush()?)
    }
}
