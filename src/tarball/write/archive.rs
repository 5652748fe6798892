//! Writes the universal form in one pass: `oci-layout`, the blobs in the order they arrive, then `index.json` and
//! `manifest.json`, so that no loader accepts a truncated archive. Entries have no owner and no time: the same images
//! give the same bytes.

use super::blob::BlobEntry;
use super::index::ImageLists;
use super::resume::{PartialBlob, Resume, Resumed, scan};
use crate::error::{Error, Result};
use crate::image::{Digest, LayoutIndex, Manifest, Name, Platform};
use crate::sink::Begin;
use crate::source::Claim;
use crate::tarball::manifest_json;
use crate::tarball::read::contents::{INDEX, LAYOUT};
use crate::tarball::tar::header::HeaderKind;
use crate::tarball::tar::output::{TarOutput, TarWriter};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    sync::{Mutex, MutexGuard},
};

/// Writes an archive of the universal form to a file or a pipe.
pub struct ArchiveWriter {
    state: Mutex<ArchiveState>,
    /// The platform of the images in `manifest.json`, which cannot list indexes.
    platform: Platform,
}

pub(crate) struct ArchiveState {
    /// `None` once the archive is closed.
    pub tar: Option<TarWriter<'static>>,
    /// The blobs and manifests in the archive.
    pub blobs: HashSet<Digest>,
    pub lists: ImageLists,
    pub phase: Phase,
    pub resume: Option<Resume>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    BetweenEntries,
    InBlob,
    /// A blob in a pipe was started but not completed.
    Broken,
    /// An archive is copied in its own form.
    Relayed,
}

impl ArchiveWriter {
    /// Creates an archive in `out`. `label` is its name in messages. Loaders that do not support indexes find the images
    /// for `platform`.
    pub fn new(out: TarOutput<'static>, label: &str, platform: Platform) -> ArchiveWriter {
        let tar = Some(TarWriter::new(out, label));
        let (blobs, lists) = (HashSet::new(), ImageLists::default());
        ArchiveWriter {
            state: Mutex::new(ArchiveState { tar, blobs, lists, phase: Phase::Empty, resume: None }),
            platform,
        }
    }

    /// Creates an archive in a file that an earlier run may have started. Its content is not used before
    /// [`ArchiveWriter::resume`].
    pub(crate) fn resumable(file: File, resume: Resume, label: &str, platform: Platform) -> ArchiveWriter {
        let archive = ArchiveWriter::new(TarOutput::File(file), label, platform);
        archive.state().resume = Some(resume);
        archive
    }

    /// Continues the archive of an earlier run. Called at most once, before anything is written, and only if the source
    /// can read any blob. Returns `None` if there is nothing to resume.
    pub(crate) fn resume(&self) -> Result<Option<Resumed>> {
        let mut state = self.state();
        let ArchiveState { tar: Some(tar), resume: Some(resume), phase: Phase::Empty, .. } = &mut *state else {
            return Ok(None);
        };
        resume.repeatable = true;
        let Some(file) = tar.file().filter(|file| file.metadata().is_ok_and(|file| file.len() > 0)) else {
            return Ok(None);
        };
        let scan = scan(file, tar.label(), &resume.cancel)?;
        if scan.end == 0 {
            return Ok(None);
        }
        match &scan.partial {
            Some(_) => tar.seek(scan.end)?,
            None => tar.truncate(scan.end)?,
        }
        let blobs = scan.complete.len();
        resume.partial = scan.partial;
        resume.unused = scan.complete.clone();
        state.blobs = scan.complete;
        state.phase = Phase::BetweenEntries;
        Ok(Some(Resumed { blobs, bytes: scan.end, damaged: scan.damaged }))
    }

    /// Returns whether the archive has `digest`, and marks it as used.
    pub(crate) fn reuse(&self, digest: &Digest) -> bool {
        self.state().reuse(digest)
    }

    /// Returns the blob that must be written next to resume it.
    pub(crate) fn partial_blob(&self) -> Option<Digest> {
        self.state().resume.as_ref()?.partial.as_ref().map(|partial| partial.digest)
    }

    /// Flushes the archive and returns whether a later run can resume it.
    pub(crate) fn is_resumable(&self) -> bool {
        let mut state = self.state();
        let Some(resume) = state.resume.as_ref().filter(|resume| resume.repeatable) else { return false };
        let has_content = !state.blobs.is_empty() || resume.partial.is_some();
        has_content && state.tar().and_then(TarWriter::flush).is_ok()
    }

    /// As [`crate::sink::Sink::begin`]. Blobs are written one after another; in a pipe each needs digest and size.
    pub fn begin(&self, claim: &Claim) -> Result<Begin<'_>> {
        let mut state = self.state();
        if claim.digest.is_some_and(|digest| state.reuse(&digest)) {
            return Ok(Begin::Held);
        }
        if let Some(partial) = state.take_partial(claim) {
            state.phase = Phase::InBlob;
            let (named, start) = (Some((partial.digest, partial.size)), partial.header_at);
            return Ok(Begin::Write(Box::new(BlobEntry {
                archive: self,
                named,
                start,
                written: None,
                committed: false,
            })));
        }
        state.prepare_entry()?;
        let tar = state.tar()?;
        let start = tar.at();
        let named = match (claim.digest, claim.size) {
            (Some(digest), Some(size)) => Some((digest, size)),
            _ if tar.is_file() => None,
            _ => {
                return Err(Error::usage(
                    "an archive in a pipe, or one that is compressed, needs the digest and size of each layer in advance; write a plain .tar file",
                ));
            }
        };
        let (name, size) = named.map_or_else(|| ("-".to_owned(), 0), |(digest, size)| (digest.blob_path(), size));
        tar.write_header(&name, HeaderKind::File, size)?;
        state.phase = Phase::InBlob;
        if let Some(resume) = &mut state.resume {
            resume.checkpoints.truncate(0, 0)?;
        }
        Ok(Begin::Write(Box::new(BlobEntry { archive: self, named, start, written: Some(0), committed: false })))
    }

    /// As [`crate::sink::Sink::put_manifest`].
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut state = self.state();
        state.lists.put(manifest);
        if state.reuse(&manifest.digest()) {
            return Ok(());
        }
        state.prepare_entry()?;
        state.tar()?.write_entry(&manifest.digest().blob_path(), &manifest.bytes)?;
        state.blobs.insert(manifest.digest());
        Ok(())
    }

    /// As [`crate::sink::Sink::publish`]. [`ArchiveWriter::close`] writes the names.
    pub fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.state().lists.publish(name, root);
        Ok(())
    }

    /// Writes the lists and the end mark, and closes a pipe. Returns a file, not yet synced.
    pub fn close(&self) -> Result<Option<File>> {
        let mut state = self.state();
        if state.phase == Phase::Relayed {
            return state.take()?.close();
        }
        state.prepare_entry()?;
        let index = state.lists.index().bytes();
        let images = state.lists.manifest_json(&self.platform);
        state.remove_unused()?;
        let mut tar = state.take()?;
        tar.write_entry(INDEX, &index)?;
        if let Some(images) = images {
            tar.write_entry(manifest_json::FILE, &manifest_json::write(&images))?;
        }
        tar.finish()
    }

    /// Returns a raw writer for an archive in its own form; nothing else may be written then.
    pub fn relay(&self) -> Result<Box<dyn Write + Send + '_>> {
        let mut state = self.state();
        if state.phase != Phase::Empty {
            return Err(Error::usage(
                "an archive in docker's legacy form cannot be added to other images; save it to a file first",
            ));
        }
        state.phase = Phase::Relayed;
        Ok(Box::new(Raw(self)))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, ArchiveState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ArchiveState {
    /// Prepares the archive for the next entry: writes `oci-layout` first, and drops an unused partial blob.
    fn prepare_entry(&mut self) -> Result<()> {
        match self.phase {
            Phase::BetweenEntries => match self.resume.as_mut().and_then(|resume| resume.partial.take()) {
                Some(partial) => self.tar()?.truncate(partial.header_at),
                None => Ok(()),
            },
            Phase::Empty => {
                // The file may have content of an earlier run that cannot be used.
                if self.resume.is_some() {
                    self.tar()?.truncate(0)?;
                }
                self.tar()?.write_entry(LAYOUT, LayoutIndex::layout_file())?;
                self.phase = Phase::BetweenEntries;
                Ok(())
            }
            Phase::InBlob => Err(Error::failed("an archive takes one blob at a time")),
            Phase::Broken => Err(Error::failed("the archive ends inside a blob; no image in it can be loaded")),
            Phase::Relayed => Err(Error::usage(
                "an archive in docker's legacy form cannot be combined with other images; copy them separately",
            )),
        }
    }

    fn reuse(&mut self, digest: &Digest) -> bool {
        if let Some(resume) = &mut self.resume {
            resume.unused.remove(digest);
        }
        self.blobs.contains(digest)
    }

    /// Takes the partial blob if it is the claimed one.
    fn take_partial(&mut self, claim: &Claim) -> Option<PartialBlob> {
        let partial = &mut self.resume.as_mut().filter(|_| self.phase == Phase::BetweenEntries)?.partial;
        partial.take_if(|partial| claim.digest == Some(partial.digest) && claim.size == Some(partial.size))
    }

    /// Removes blobs that an earlier run wrote for other images.
    fn remove_unused(&mut self) -> Result<()> {
        let (Some(resume), Some(tar)) = (&self.resume, &mut self.tar) else { return Ok(()) };
        resume.remove_unused(tar)
    }

    pub fn tar(&mut self) -> Result<&mut TarWriter<'static>> {
        self.tar.as_mut().ok_or_else(closed)
    }

    fn take(&mut self) -> Result<TarWriter<'static>> {
        self.tar.take().ok_or_else(closed)
    }
}

pub(crate) fn closed() -> Error {
    Error::failed("the archive is already closed")
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
