//! An archive as a destination: a file that appears whole at the end, or a pipe.

use super::partial;
use super::partial::Partial;
use crate::cancel::Cancel;
use crate::compress::threads_per_layer;
use crate::error::{Error, Result};
use crate::image::{Coding, Manifest, Name, Platform};
use crate::progress::{Silent, Watch};
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use crate::tarball::{ArchiveWriter, Compressed, Output, Resume};
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
/// What a pipe may hold, in bytes, where the system lets it be changed.
const PIPE: usize = 1 << 20;

/// Writes the universal form.
pub struct ArchiveSink {
    pack: ArchiveWriter,
    /// The file on its way, and the name it is to have.
    target: Mutex<Option<(OnItsWay, PathBuf)>>,
    kind: Kind,
    /// Whether what is there when a copy fails is kept for the next one.
    keep: AtomicBool,
    watch: Arc<dyn Watch>,
}

enum OnItsWay {
    Partial(Partial),
    /// Where a partial cannot be had.
    Temporary(TempPath),
}

/// What becomes of the archives that runs before this one left unfinished.
#[derive(Clone)]
pub struct Leavings {
    /// How long they are kept.
    pub life: Duration,
    /// Stops going through them.
    pub cancel: Cancel,
}

impl Default for Leavings {
    fn default() -> Self {
        Leavings { life: Duration::from_secs(7 * 24 * 60 * 60), cancel: Cancel::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    /// Nothing in it can be gone back to: a pipe, a compressed file.
    Pipe,
}

impl ArchiveSink {
    /// An archive at `path`, with the usual [`Leavings`] and without a word.
    pub fn to_file(path: &Path) -> Result<ArchiveSink> {
        Self::to_file_after(path, &Leavings::default(), Arc::new(Silent))
    }

    /// An archive at `path`. A file that is there is replaced whole when the copy is finished, and untouched until
    /// then; what is there and no file (a named pipe, a device) is written to. What a copy that did not end left for
    /// `path` is gone on with, as far as it is right and the same blobs are wanted; a copy from a stream begins anew.
    ///
    /// Fails with `Unwritable`.
    pub fn to_file_after(path: &Path, before: &Leavings, watch: Arc<dyn Watch>) -> Result<ArchiveSink> {
        let shown = path.display().to_string();
        let writing = |e| Error::writing(&shown, e);
        let path = match Target::at(path)? {
            Target::File(path) => path,
            Target::Device(device) => return Ok(Self::to_writer(Box::new(device), &shown)),
        };
        let keep = !before.life.is_zero();
        let (pack, on_its_way) = match Partial::take_up(&path).map_err(writing)? {
            Some((partial, file, sums)) => {
                let resume = Resume::new(sums, &before.cancel);
                (ArchiveWriter::resumable(file, resume, &shown, Platform::host()), OnItsWay::Partial(partial))
            }
            None => {
                let (file, temporary) = beside(&path).map_err(writing)?;
                (ArchiveWriter::new(Output::File(file), &shown, Platform::host()), OnItsWay::Temporary(temporary))
            }
        };
        if let Ok(folder) = partial::folder(&path) {
            partial::sweep(&folder, before.life);
        }
        Ok(ArchiveSink {
            pack,
            target: Mutex::new(Some((on_its_way, path))),
            kind: Kind::File,
            keep: keep.into(),
            watch,
        })
    }

    /// An archive at `path` that is compressed as a whole. It appears whole at the end as any other, but what a copy
    /// that did not end left is of no use to the next one, which begins anew. `level` is one of
    /// [`crate::compress::levels`]; none: the default.
    ///
    /// Fails with `Unwritable`, and with `Usage` for a level that there is not.
    pub fn to_compressed(path: &Path, coding: Coding, level: Option<i32>) -> Result<ArchiveSink> {
        let shown = path.display().to_string();
        let compressed = |file| Compressed::new(file, &shown, coding, level, threads_per_layer());
        let (compressed, target) = match Target::at(path)? {
            Target::Device(device) => (compressed(device)?, None),
            Target::File(path) => {
                let (file, temporary) = beside(&path).map_err(|e| Error::writing(&shown, e))?;
                (compressed(file)?, Some((OnItsWay::Temporary(temporary), path)))
            }
        };
        let pack = ArchiveWriter::new(Output::Compressed(compressed), &shown, Platform::host());
        let (kind, watch) = (Kind::Pipe, Arc::new(Silent));
        Ok(ArchiveSink { pack, target: Mutex::new(target), kind, keep: false.into(), watch })
    }

    /// An archive on standard output, which must not be a terminal (`Usage`).
    pub fn to_stdout() -> Result<ArchiveSink> {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::usage("standard output is a terminal; redirect the archive to a file or a program"));
        }
        let own = stdout.as_fd().try_clone_to_owned().map_err(|e| Error::writing("standard output", e))?;
        // Fails where it is no pipe, and then does not matter.
        let _ = rustix::pipe::fcntl_setpipe_size(&own, PIPE);
        Ok(Self::to_writer(Box::new(File::from(own)), "standard output"))
    }

    /// An archive into `pipe`, which messages call `label`.
    pub fn to_writer(pipe: Box<dyn Write + Send>, label: &str) -> ArchiveSink {
        let pack = ArchiveWriter::new(Output::Pipe(pipe), label, Platform::host());
        ArchiveSink { pack, target: Mutex::default(), kind: Kind::Pipe, keep: false.into(), watch: Arc::new(Silent) }
    }

    fn target(&self) -> MutexGuard<'_, Option<(OnItsWay, PathBuf)>> {
        self.target.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What is at a path that an archive is to be written to.
enum Target {
    /// A file, or nothing yet; what a link leads to, so that the link stays.
    File(PathBuf),
    /// A named pipe, a device: written to as it is.
    Device(File),
}

impl Target {
    fn at(path: &Path) -> Result<Target> {
        let shown = path.display();
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => {
                Err(Error::usage(format!("{shown} is a directory; an OCI layout is written oci:{shown}")))
            }
            Ok(there) if !there.is_file() => {
                let device = File::options().write(true).open(&path).map_err(|e| Error::writing(shown, e))?;
                Ok(Target::Device(device))
            }
            Ok(_) | Err(_) => Ok(Target::File(path)),
        }
    }
}

/// A new file beside `path`, under a name that nobody takes for an archive; gone when it is dropped.
pub(crate) fn beside(path: &Path) -> io::Result<(File, TempPath)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.permissions(Permissions::from_mode(0o666));
    let (file, path) = builder.prefix(&partial::stem(&name.to_string_lossy())).tempfile_in(folder)?.into_parts();
    // Held, so that nobody sweeps it; where there are no locks, nobody does.
    let _ = file.try_lock();
    Ok((file, path))
}

/// Gives `file`, which is `temporary`, the name `path`.
pub(crate) fn settle(file: File, temporary: TempPath, path: &Path) -> Result<()> {
    name(&file, path, || temporary.persist(path).map_err(|e| e.error))
}

/// Renames `file` to `path`, once it is on the disk: neither this archive nor the one before it is lost in a crash.
fn name(file: &File, path: &Path, rename: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let writing = |e| Error::writing(path.display(), e);
    let there = fs::metadata(path).ok();
    if let Some(there) = &there {
        file.set_permissions(there.permissions()).map_err(writing)?;
    }
    // ext4 itself writes a file out before a rename onto another one counts (ext4(5), auto_da_alloc), sooner than a
    // sync would return.
    let ext4 = rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == EXT4);
    if there.is_none() || !ext4 {
        file.sync_all().map_err(writing)?;
    }
    rename().map_err(writing)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The name is there for everyone now; only a power cut could still take it back.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
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
            unnamed_blobs: self.kind == Kind::File,
            unnamed_images: true,
            needs_replay: false,
        }
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let Upcoming::Blobs { mut blobs, .. } = upcoming else { return Ok(Missing::default()) };
        if let Some(there) = self.pack.resume()? {
            let begun = if self.pack.partial_blob().is_some() { " and a part of one more" } else { "" };
            let damage = if there.damaged { "; what lies behind them was damaged" } else { "" };
            self.watch.say(&format!(
                "going on with an archive that was cut: {} blobs and manifests ({} bytes){begun} are here{damage}",
                there.blobs, there.bytes
            ));
        }
        blobs.retain(|blob| !self.pack.reuse(&blob.digest));
        Ok(Missing { blobs, resume_first: self.pack.partial_blob() })
    }

    fn begin<'a>(&'a self, claim: &Claim, _: Option<&Origin>) -> Result<Begin<'a>> {
        self.pack.begin(claim)
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.pack.put_manifest(manifest)
    }

    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.pack.publish(name, root)
    }

    fn finish(&self) -> Result<Finish> {
        let file = self.pack.close()?;
        match (file, self.target().take()) {
            (Some(file), Some((OnItsWay::Partial(partial), path))) => name(&file, &path, || partial.persist(&path))?,
            (Some(file), Some((OnItsWay::Temporary(temporary), path))) => settle(file, temporary, &path)?,
            _ => {}
        }
        Ok(Finish::Done)
    }

    fn aborted(&self, why: &Error) {
        // What the source says of itself is wrong, not what the line made of it: no later copy will want this.
        if why.kind() == crate::Kind::Invalid && !why.is_digest_mismatch() {
            self.keep.store(false, Ordering::Relaxed);
        }
    }

    fn raw_archive(&self) -> Result<Option<Box<dyn Write + Send + '_>>> {
        (self.kind == Kind::Pipe).then(|| self.pack.relay()).transpose()
    }
}

impl Drop for ArchiveSink {
    /// Keeps what the next run can go on with.
    fn drop(&mut self) {
        if let Some((OnItsWay::Partial(partial), _)) = self.target().take()
            && !(self.keep.load(Ordering::Relaxed) && self.pack.is_resumable())
        {
            partial.discard();
        }
    }
}
