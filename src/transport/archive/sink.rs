//! An archive as a destination: a file that appears when it is complete, or a pipe.

use super::partial;
use super::partial::PartialArchive;
use crate::cancel::Cancel;
use crate::compress::threads_per_layer;
use crate::disk::PARTIAL_LIFETIME;
use crate::error::{Error, Result};
use crate::image::{Coding, Manifest, Name, Platform};
use crate::progress::{Silent, Watch};
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use crate::tarball::{ArchiveWriter, Compressed, Resume, TarOutput};
use std::{
    fs::{self, File, Permissions},
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempPath;

/// ext4's magic number (statfs(2)).
const EXT4: rustix::fs::FsWord = 0xef53;
/// The requested buffer size of a pipe, if the system allows it.
const PIPE_BYTES: usize = 1 << 20;

/// Writes an archive that is a docker-save archive and an OCI layout in one.
pub struct ArchiveSink {
    writer: ArchiveWriter,
    /// The unfinished file, and its final path.
    target: Mutex<Option<(Unfinished, PathBuf)>>,
    kind: ArchiveKind,
    /// Whether the partial archive is kept for the next run if the copy fails.
    keep: AtomicBool,
    watch: Arc<dyn Watch>,
}

enum Unfinished {
    PartialArchive(PartialArchive),
    /// Used if the partial file cannot be opened or locked.
    Temporary(TempPath),
}

/// How partial archives of earlier runs are resumed and removed.
#[derive(Clone)]
pub struct ResumeOptions {
    /// The time that they are kept.
    pub lifetime: Duration,
    /// Cancels reading them.
    pub cancel: Cancel,
}

impl Default for ResumeOptions {
    fn default() -> Self {
        ResumeOptions { lifetime: PARTIAL_LIFETIME, cancel: Cancel::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArchiveKind {
    File,
    /// Not seekable: a pipe, or a compressed file.
    Pipe,
}

impl ArchiveSink {
    /// An archive at `path`, with the default [`ResumeOptions`] and without messages.
    pub fn to_file(path: &Path) -> Result<ArchiveSink> {
        Self::to_file_after(path, &ResumeOptions::default(), Arc::new(Silent))
    }

    /// An archive at `path`. An existing file is replaced when the copy is finished, and unchanged until then; a named
    /// pipe or a device is written directly. An interrupted copy to `path` resumes with its correct bytes, if the same
    /// blobs are copied; a copy from a stream starts again.
    ///
    /// Fails with `Unwritable`.
    pub fn to_file_after(path: &Path, before: &ResumeOptions, watch: Arc<dyn Watch>) -> Result<ArchiveSink> {
        let shown = path.display().to_string();
        let writing = |e| Error::writing(&shown, e);
        let path = match ArchiveTarget::at(path)? {
            ArchiveTarget::File(path) => path,
            ArchiveTarget::Device(device) => return Ok(Self::to_writer(Box::new(device), &shown)),
        };
        let keep = !before.lifetime.is_zero();
        let (writer, unfinished) = match PartialArchive::open_or_create(&path).map_err(writing)? {
            Some((partial, file, sums)) => {
                let resume = Resume::new(sums, &before.cancel, watch.clone());
                (ArchiveWriter::resumable(file, resume, &shown, Platform::host()), Unfinished::PartialArchive(partial))
            }
            None => {
                let (file, temporary) = temporary_for(&path).map_err(writing)?;
                (ArchiveWriter::new(TarOutput::File(file), &shown, Platform::host()), Unfinished::Temporary(temporary))
            }
        };
        if let Ok(directory) = partial::directory_of(&path) {
            partial::remove_expired(&directory, before.lifetime);
        }
        Ok(ArchiveSink {
            writer,
            target: Mutex::new(Some((unfinished, path))),
            kind: ArchiveKind::File,
            keep: keep.into(),
            watch,
        })
    }

    /// A compressed archive at `path`. The file appears when it is complete; an interrupted copy cannot resume. `level`
    /// is one of [`crate::compress::levels`]; `None`: the default.
    ///
    /// Fails with `Unwritable`, and with `Usage` for an unsupported level.
    pub fn to_compressed(path: &Path, coding: Coding, level: Option<i32>) -> Result<ArchiveSink> {
        let shown = path.display().to_string();
        let compressed = |file| Compressed::new(file, &shown, coding, level, threads_per_layer());
        let (compressed, target) = match ArchiveTarget::at(path)? {
            ArchiveTarget::Device(device) => (compressed(device)?, None),
            ArchiveTarget::File(path) => {
                let (file, temporary) = temporary_for(&path).map_err(|e| Error::writing(&shown, e))?;
                (compressed(file)?, Some((Unfinished::Temporary(temporary), path)))
            }
        };
        let writer = ArchiveWriter::new(TarOutput::Compressed(compressed), &shown, Platform::host());
        let (kind, watch) = (ArchiveKind::Pipe, Arc::new(Silent));
        Ok(ArchiveSink { writer, target: Mutex::new(target), kind, keep: false.into(), watch })
    }

    /// An archive on standard output.
    ///
    /// Fails with `Usage` if standard output is a terminal.
    pub fn to_stdout() -> Result<ArchiveSink> {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::usage("standard output is a terminal; redirect the archive to a file or a program"));
        }
        let own = stdout.as_fd().try_clone_to_owned().map_err(|e| Error::writing("standard output", e))?;
        // Fails if it is not a pipe; then the size is not needed.
        let _ = rustix::pipe::fcntl_setpipe_size(&own, PIPE_BYTES);
        Ok(Self::to_writer(Box::new(File::from(own)), "standard output"))
    }

    /// An archive written to `pipe`; `label` is its name in messages.
    pub fn to_writer(pipe: Box<dyn Write + Send>, label: &str) -> ArchiveSink {
        let writer = ArchiveWriter::new(TarOutput::Pipe(pipe), label, Platform::host());
        ArchiveSink {
            writer,
            target: Mutex::default(),
            kind: ArchiveKind::Pipe,
            keep: false.into(),
            watch: Arc::new(Silent),
        }
    }

    fn target(&self) -> MutexGuard<'_, Option<(Unfinished, PathBuf)>> {
        self.target.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The file at the destination path.
enum ArchiveTarget {
    /// A regular or missing file. A symbolic link is resolved, so that the link itself stays.
    File(PathBuf),
    /// A named pipe or a device, written directly.
    Device(File),
}

impl ArchiveTarget {
    fn at(path: &Path) -> Result<ArchiveTarget> {
        let shown = path.display();
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                Err(Error::usage(format!("{shown} is a directory; write an OCI layout as oci:{shown}")))
            }
            Ok(found) if !found.is_file() => {
                let device = File::options().write(true).open(&path).map_err(|e| Error::writing(shown, e))?;
                Ok(ArchiveTarget::Device(device))
            }
            Ok(_) | Err(_) => Ok(ArchiveTarget::File(path)),
        }
    }
}

/// Creates a temporary file in the directory of `path`, with a name that is not an archive's; it is removed on drop.
pub(crate) fn temporary_for(path: &Path) -> io::Result<(File, TempPath)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.permissions(Permissions::from_mode(0o666));
    let (file, path) = builder.prefix(&partial::stem(&name.to_string_lossy())).tempfile_in(directory)?.into_parts();
    // The lock protects the file from a sweep, which needs the lock too.
    let _ = file.try_lock();
    Ok((file, path))
}

/// Renames the temporary `file` to `path`.
pub(crate) fn persist(file: File, temporary: TempPath, path: &Path) -> Result<()> {
    sync_and_rename(&file, path, || temporary.persist(path).map_err(|e| e.error))
}

/// Syncs `file` to the disk and renames it to `path`, so that a crash loses neither this archive nor the one it
/// replaces.
fn sync_and_rename(file: &File, path: &Path, rename: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let writing = |e| Error::writing(path.display(), e);
    let existing = fs::metadata(path).ok();
    if let Some(existing) = &existing {
        file.set_permissions(existing.permissions()).map_err(writing)?;
    }
    // On a rename over an existing file, ext4 itself writes the data first (ext4(5), auto_da_alloc), faster than a
    // sync.
    let ext4 = rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == EXT4);
    if existing.is_none() || !ext4 {
        file.sync_all().map_err(writing)?;
    }
    rename().map_err(writing)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The rename is visible; without this sync a power failure could undo it.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

impl Sink for ArchiveSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: Shape::Whole,
            order: Order::Sequential,
            large_uploads: None,
            compress: None,
            unsupported: &[],
            unnamed_blobs: self.kind == ArchiveKind::File,
            unnamed_images: true,
            needs_replay: false,
            referrers: true,
        }
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let Upcoming::Blobs { mut blobs, .. } = upcoming else { return Ok(Missing::default()) };
        if let Some(found) = self.writer.resume()? {
            let partial = if self.writer.partial_blob().is_some() { ", and a part of another blob" } else { "" };
            let damage = if found.damaged { "; the bytes after them are damaged and not used" } else { "" };
            let (blobs, are) = match found.blobs {
                1 => ("1 blob or manifest".to_owned(), "is"),
                count => (format!("{count} blobs and manifests"), "are"),
            };
            self.watch.say(&format!(
                "resuming an interrupted archive: {blobs} ({} bytes) {are} complete{partial}{damage}",
                found.bytes
            ));
        }
        blobs.retain(|blob| !self.writer.reuse(&blob.digest));
        Ok(Missing { blobs, resume_first: self.writer.partial_blob() })
    }

    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        self.writer.begin(claim)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.writer.put_manifest(manifest)
    }

    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.writer.publish(name, root)
    }

    fn finish(&self) -> Result<Finish> {
        let file = self.writer.close()?;
        match (file, self.target().take()) {
            (Some(file), Some((Unfinished::PartialArchive(partial), path))) => {
                sync_and_rename(&file, &path, || partial.persist(&path))?
            }
            (Some(file), Some((Unfinished::Temporary(temporary), path))) => persist(file, temporary, &path)?,
            _ => {}
        }
        Ok(Finish::Done)
    }

    fn aborted(&self, why: &Error) {
        // The source itself is invalid (the bytes were not altered by the connection), so no later copy can resume.
        if why.kind() == crate::Kind::Invalid && !why.is_digest_mismatch() {
            self.keep.store(false, Ordering::Relaxed);
        }
    }

    fn raw_archive(&self) -> Result<Option<Box<dyn Write + Send + '_>>> {
        (self.kind == ArchiveKind::Pipe).then(|| self.writer.relay()).transpose()
    }
}

impl Drop for ArchiveSink {
    /// Keeps the partial archive if the next run can resume it.
    fn drop(&mut self) {
        if let Some((Unfinished::PartialArchive(partial), _)) = self.target().take()
            && !(self.keep.load(Ordering::Relaxed) && self.writer.is_resumable())
        {
            partial.discard();
        }
    }
}
