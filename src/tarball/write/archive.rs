//! The universal form, written in one pass: `oci-layout`, blobs as they come, `index.json` and `manifest.json` last,
//! so that an archive that was cut short loads nowhere. No owners, no times: the same images give the same bytes.

use super::blob::Entry;
use super::index::Lists;
use super::resume;
use super::resume::Begun;
use crate::cancel::Cancel;
use crate::disk::checkpoints::Checkpoints;
use crate::error::{Error, Result};
use crate::image::{Digest, LayoutIndex, Manifest, Name, Platform};
use crate::sink::Begin;
use crate::source::Claim;
use crate::tarball::manifest_json;
use crate::tarball::read::contents::{INDEX, LAYOUT};
use crate::tarball::tar::header::Kind;
use crate::tarball::tar::output::{Out, Tar};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    sync::{Mutex, MutexGuard},
};

/// An archive of the universal form on its way out; what a sink over a file or a pipe is made of.
pub struct ArchiveWriter {
    state: Mutex<State>,
    /// Whose images `manifest.json`, which has no indexes, lists.
    platform: Platform,
}

pub(crate) struct State {
    /// Gone once the archive is closed.
    pub tar: Option<Tar<'static>>,
    pub held: HashSet<Digest>,
    pub lists: Lists,
    pub phase: Phase,
    pub resume: Option<Resume>,
}

/// What makes an archive that was cut one that can be gone on with.
pub(crate) struct Resume {
    pub(crate) sums: Checkpoints,
    /// The blob in which writing ended, if it did in one; it can only be gone on with while nothing follows it.
    pub(crate) begun: Option<Begun>,
    /// The source can be read again, so that a later run may go on.
    pub(crate) lasting: bool,
    /// Whole entries of an earlier run that nobody has asked for yet.
    unclaimed: HashSet<Digest>,
    pub(crate) cancel: Cancel,
}

impl Resume {
    /// With an empty or an earlier run's file of sums.
    pub fn new(sums: File, cancel: &Cancel) -> Resume {
        Resume {
            sums: Checkpoints::new(sums),
            begun: None,
            lasting: false,
            unclaimed: HashSet::new(),
            cancel: cancel.clone(),
        }
    }
}

/// What of an archive was there already.
#[derive(Debug, Default)]
pub(crate) struct TakenUp {
    pub blobs: usize,
    /// Of the archive, in bytes.
    pub bytes: u64,
    pub damaged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    Between,
    /// Inside a blob.
    Within,
    /// A blob was begun in a pipe and not ended.
    Broken,
    /// An archive passes in its own form.
    Relayed,
}

impl ArchiveWriter {
    /// An archive written to `out`, which messages call `label`. `platform` is the one whose images loaders find that
    /// know no indexes.
    pub fn new(out: Out<'static>, label: &str, platform: Platform) -> ArchiveWriter {
        let tar = Some(Tar::new(out, label));
        let state = State { tar, held: HashSet::new(), lists: Lists::default(), phase: Phase::Empty, resume: None };
        ArchiveWriter { state: Mutex::new(state), platform }
    }

    /// An archive in a file that may have been begun by an earlier run; nothing of that is used before
    /// [`ArchiveWriter::take_up`].
    pub(crate) fn resumable(file: File, resume: Resume, label: &str, platform: Platform) -> ArchiveWriter {
        let pack = ArchiveWriter::new(Out::File(file), label, platform);
        pack.state().resume = Some(resume);
        pack
    }

    /// Goes on behind what an earlier run left, once, before anything is written; only for a source whose blobs can be
    /// chosen. `None` where there is nothing to look at.
    pub(crate) fn take_up(&self) -> Result<Option<TakenUp>> {
        let mut state = self.state();
        let State { tar: Some(tar), resume: Some(resume), phase: Phase::Empty, .. } = &mut *state else {
            return Ok(None);
        };
        resume.lasting = true;
        let Some(file) = tar.file().filter(|file| file.metadata().is_ok_and(|file| file.len() > 0)) else {
            return Ok(None);
        };
        let left = resume::survey(file, tar.label(), &resume.cancel)?;
        if left.end == 0 {
            return Ok(None);
        }
        match &left.begun {
            Some(_) => tar.go_on(left.end)?,
            None => tar.cut(left.end)?,
        }
        let blobs = left.whole.len();
        resume.begun = left.begun;
        resume.unclaimed = left.whole.clone();
        state.held = left.whole;
        state.phase = Phase::Between;
        Ok(Some(TakenUp { blobs, bytes: left.end, damaged: left.damaged }))
    }

    /// Whether `digest` is there; then it is one of those that are wanted.
    pub(crate) fn claim(&self, digest: &Digest) -> bool {
        self.state().claim(digest)
    }

    /// The blob that has to come next if it is to be gone on with.
    pub(crate) fn begun(&self) -> Option<Digest> {
        self.state().resume.as_ref()?.begun.as_ref().map(|begun| begun.digest)
    }

    /// Whether a later run could go on with what is there. Hands on what was gathered.
    pub(crate) fn worth_keeping(&self) -> bool {
        let mut state = self.state();
        let Some(resume) = state.resume.as_ref().filter(|resume| resume.lasting) else { return false };
        let some = !state.held.is_empty() || resume.begun.is_some();
        some && state.tar().and_then(Tar::flush).is_ok()
    }

    /// As [`crate::sink::Sink::begin`]. One blob at a time; in a pipe it needs digest and size.
    pub fn begin(&self, claim: &Claim) -> Result<Begin<'_>> {
        let mut state = self.state();
        if claim.digest.is_some_and(|digest| state.claim(&digest)) {
            return Ok(Begin::Held);
        }
        if let Some(begun) = state.begun_as(claim) {
            state.phase = Phase::Within;
            let (named, start) = (Some((begun.digest, begun.size)), begun.from);
            return Ok(Begin::Write(Box::new(Entry { pack: self, named, start, written: None, ended: false })));
        }
        state.open()?;
        let tar = state.tar()?;
        let start = tar.at();
        let named = match (claim.digest, claim.size) {
            (Some(digest), Some(size)) => Some((digest, size)),
            _ if tar.is_file() => None,
            _ => {
                return Err(Error::usage(
                    "an archive in a pipe, or compressed as a whole, needs every layer's digest and size beforehand; write a plain .tar",
                ));
            }
        };
        let (name, size) = named.map_or_else(|| ("-".to_owned(), 0), |(digest, size)| (digest.blob_path(), size));
        tar.begin(&name, Kind::File, size)?;
        state.phase = Phase::Within;
        if let Some(resume) = &mut state.resume {
            resume.sums.truncate(0, 0)?;
        }
        Ok(Begin::Write(Box::new(Entry { pack: self, named, start, written: Some(0), ended: false })))
    }

    /// As [`crate::sink::Sink::put_manifest`].
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut state = self.state();
        state.lists.put(manifest);
        if state.claim(&manifest.digest()) {
            return Ok(());
        }
        state.open()?;
        state.tar()?.entry(&manifest.digest().blob_path(), &manifest.bytes)?;
        state.held.insert(manifest.digest());
        Ok(())
    }

    /// As [`crate::sink::Sink::publish`]. Nothing is written before [`ArchiveWriter::close`].
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
        state.drop_unclaimed()?;
        let mut tar = state.take()?;
        tar.entry(INDEX, &index)?;
        if let Some(saved) = saved {
            tar.entry(manifest_json::FILE, &manifest_json::write(&saved))?;
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

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Ready for the next entry.
    fn open(&mut self) -> Result<()> {
        match self.phase {
            Phase::Between => match self.resume.as_mut().and_then(|resume| resume.begun.take()) {
                Some(begun) => self.tar()?.cut(begun.from),
                None => Ok(()),
            },
            Phase::Empty => {
                // An earlier run's, of which nothing can be used.
                if self.resume.is_some() {
                    self.tar()?.cut(0)?;
                }
                self.tar()?.entry(LAYOUT, LayoutIndex::layout_file())?;
                self.phase = Phase::Between;
                Ok(())
            }
            Phase::Within => Err(Error::failed("an archive takes one blob after the other")),
            Phase::Broken => Err(Error::failed("the archive ended inside a blob; nothing in it can be loaded")),
            Phase::Relayed => Err(Error::usage("an archive passes there in its own form; copy the other images apart")),
        }
    }

    fn claim(&mut self, digest: &Digest) -> bool {
        if let Some(resume) = &mut self.resume {
            resume.unclaimed.remove(digest);
        }
        self.held.contains(digest)
    }

    /// The blob that was begun, if it is the one that is wanted now.
    fn begun_as(&mut self, claim: &Claim) -> Option<Begun> {
        let begun = &mut self.resume.as_mut().filter(|_| self.phase == Phase::Between)?.begun;
        begun.take_if(|begun| claim.digest == Some(begun.digest) && claim.size == Some(begun.size))
    }

    /// Takes out what an earlier run wrote for other images.
    fn drop_unclaimed(&mut self) -> Result<()> {
        let Some(resume) = self.resume.as_ref().filter(|resume| !resume.unclaimed.is_empty()) else { return Ok(()) };
        let tar = self.tar.as_mut().ok_or_else(closed)?;
        tar.flush()?;
        let file = tar.file().ok_or_else(closed)?;
        let gaps = resume::entries(file, &resume.unclaimed)?;
        let end = resume::close_gaps(file, &gaps, tar.at(), &resume.cancel)?;
        tar.cut(end)
    }

    pub fn tar(&mut self) -> Result<&mut Tar<'static>> {
        self.tar.as_mut().ok_or_else(closed)
    }

    fn take(&mut self) -> Result<Tar<'static>> {
        self.tar.take().ok_or_else(closed)
    }
}

pub(crate) fn closed() -> Error {
    Error::failed("the archive is closed already")
}

struct Raw<'p>(&'p ArchiveWriter);

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.state().tar()?.write(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.0.state().tar()?.flush()?)
    }
}
