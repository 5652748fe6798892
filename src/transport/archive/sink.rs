//! An archive as a destination: a file that appears whole at the end, or a pipe.

use crate::archive::{Out, Pack};
use crate::error::{Error, Result};
use crate::image::{Manifest, Name, Platform};
use crate::sink::{Begin, Finish, Order, Shape, Sink, Takes};
use crate::source::{Claim, Origin};
use std::{
    fs::{self, File, Permissions},
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};
use tempfile::TempPath;

/// ext4's magic number (statfs(2)).
const EXT4: rustix::fs::FsWord = 0xef53;
/// What a pipe may hold, in bytes, where the system lets it be changed.
const PIPE: usize = 1 << 20;
/// Of a temporary file's name, so that it fits where the target's does.
const LONGEST_NAME: usize = 200;

/// Writes the universal form.
pub struct ArchiveSink {
    pack: Pack,
    /// The file under its temporary name, and the one it is to have.
    target: Mutex<Option<(TempPath, PathBuf)>>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Pipe,
}

impl ArchiveSink {
    /// An archive at `path`. A file that is there is replaced whole when the copy is finished, and untouched until
    /// then; what is there and no file (a named pipe, a device) is written to.
    ///
    /// Fails with `Unwritable`.
    pub fn to_file(path: &Path) -> Result<ArchiveSink> {
        let shown = path.display().to_string();
        let writing = |e| Error::writing(&shown, e);
        // A link stays, what it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => {
                return Err(Error::usage(format!("{shown} is a directory; an OCI layout is written oci:{shown}")));
            }
            Ok(there) if !there.is_file() => {
                let file = File::options().write(true).open(&path).map_err(writing)?;
                return Ok(Self::to_writer(Box::new(file), &shown));
            }
            Ok(_) | Err(_) => {}
        }
        let (file, temporary) = beside(&path).map_err(writing)?;
        let target = Mutex::new(Some((temporary, path)));
        let pack = Pack::new(Out::File(file), &shown, Platform::host());
        Ok(ArchiveSink { pack, target, kind: Kind::File })
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
        let pack = Pack::new(Out::Pipe(pipe), label, Platform::host());
        ArchiveSink { pack, target: Mutex::default(), kind: Kind::Pipe }
    }
}

/// A new file beside `path`, under a name that nobody takes for an archive; gone when it is dropped.
pub(crate) fn beside(path: &Path) -> io::Result<(File, TempPath)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name: String = name.to_string_lossy().chars().take(LONGEST_NAME / 4).collect();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.permissions(Permissions::from_mode(0o666));
    Ok(builder.prefix(&format!(".{name}.imgmv-")).tempfile_in(folder)?.into_parts())
}

/// Gives `file` its name, once it is on the disk: neither this archive nor the one before it is lost in a crash.
pub(crate) fn settle(file: File, temporary: TempPath, path: &Path) -> Result<()> {
    let writing = |e| Error::writing(path.display(), e);
    let there = fs::metadata(path).ok();
    if let Some(there) = &there {
        file.set_permissions(there.permissions()).map_err(writing)?;
    }
    // ext4 itself writes a file out before a rename onto another one counts (ext4(5), auto_da_alloc), sooner than a
    // sync would return.
    let ext4 = rustix::fs::fstatfs(&file).is_ok_and(|system| system.f_type == EXT4);
    if there.is_none() || !ext4 {
        file.sync_all().map_err(writing)?;
    }
    temporary.persist(path).map_err(|e| writing(e.error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The name is there for everyone now; only a power cut could still take it back.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

impl Sink for ArchiveSink {
    fn takes(&self) -> Takes {
        Takes {
            shape: Shape::AsFound,
            order: Order::Single,
            compress: None,
            refuses: &[],
            unnamed_blobs: self.kind == Kind::File,
            nameless: true,
        }
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
        let target = self.target.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let (Some(file), Some((temporary, path))) = (file, target) {
            settle(file, temporary, &path)?;
        }
        Ok(Finish::Done)
    }

    fn relay(&self) -> Option<Result<Box<dyn Write + Send + '_>>> {
        (self.kind == Kind::Pipe).then(|| self.pack.relay())
    }
}
