//! `docker-archive:`, `oci-archive:`, `-` and paths of archives: files, standard input, standard output.

pub(crate) mod address;
mod form;
mod partial;
mod sink;

use crate::copy::Source;
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::Name;
use crate::progress::Watch;
use crate::source::{Root, Selector};
use crate::tarball;
use crate::tarball::{ArchiveCompression, ArchiveFile, ArchiveStore, Section, UnopenedArchive};
use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use sink::{ArchiveSink, ResumeOptions};

/// The number of bytes that identify an archive's format.
const HEAD_BYTES: usize = 512;

/// The location of an archive to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The file with this path.
    File(PathBuf),
    /// Standard input, which may also be a file.
    Stdin,
}

/// A readable archive.
pub enum Found {
    Store(Arc<ArchiveStore<Section>>),
    UnopenedArchive(UnopenedArchive),
}

impl From<Found> for Source {
    fn from(found: Found) -> Source {
        match found {
            Found::Store(store) => Source::Store(store),
            Found::UnopenedArchive(archive) => Source::Stream(Box::new(archive.stream())),
        }
    }
}

/// Opens the archive at `input` as a source, like [`find`].
pub fn open(input: &Input, watch: Arc<dyn Watch>) -> Result<Source> {
    find(input, watch).map(Source::from)
}

/// Opens the archive at `input`: as a store if it is an uncompressed tar in a file (standard input may be a file, too),
/// else as an unopened archive, which is read once as a stream.
///
/// Fails with `NotFound` or `Denied` as the system reports, and with `Invalid` if it is not an archive of images.
pub fn find(input: &Input, watch: Arc<dyn Watch>) -> Result<Found> {
    let (file, label) = match input {
        Input::File(path) => {
            let label = path.display().to_string();
            (File::open(path).map_err(|e| Error::reading(&label, e))?, label)
        }
        Input::Stdin => {
            let own = io::stdin().as_fd().try_clone_to_owned().map_err(|e| Error::reading("standard input", e))?;
            (File::from(own), "standard input".to_owned())
        }
    };
    from_file(file, &label, watch)
}

fn from_file(mut file: File, label: &str, watch: Arc<dyn Watch>) -> Result<Found> {
    let reading = |e| Error::reading(label, e);
    let kind = file.metadata().map_err(reading)?.file_type();
    if kind.is_dir() {
        return Err(Error::usage(format!("{label} is a directory; write an OCI layout as oci:{label}")));
    }
    let from = if kind.is_file() { file.stream_position().map_err(reading)? } else { 0 };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(reading)?;
    let compression = ArchiveCompression::sniff(&head).ok_or_else(|| unknown(label, &head))?;
    if kind.is_file() && compression == ArchiveCompression::Plain {
        let section = Section::new(file, from).map_err(reading)?;
        return Ok(Found::Store(Arc::new(ArchiveStore::open(section, label, watch)?)));
    }
    let again = match kind.is_file() {
        true => Some(Section::new(file.try_clone().map_err(reading)?, from).map_err(reading)?),
        false => None,
    };
    let again = again.map(|section| ArchiveFile::new(section, compression));
    let whole = Cursor::new(head).chain(file);
    let bytes = compression.decompress(Box::new(whole))?;
    Ok(Found::UnopenedArchive(UnopenedArchive {
        bytes,
        label: label.to_owned(),
        expected_diff_ids: Vec::new(),
        file: again,
    }))
}

/// Adds `names` to the image of the archive at `path` that `selector` selects (`None`: the only one). A new archive
/// replaces the old one; blobs are copied without hashing them.
///
/// Fails with `Usage` if the archive is compressed or the selection is ambiguous.
pub fn retag(path: &Path, selector: Option<&Selector>, names: &[Name], watch: Arc<dyn Watch>) -> Result<Root> {
    let label = path.display().to_string();
    let path = fs::canonicalize(path).map_err(|e| Error::reading(&label, e))?;
    let mut file = File::open(&path).map_err(|e| Error::reading(&label, e))?;
    let again = file.try_clone().map_err(|e| Error::reading(&label, e))?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|e| Error::reading(&label, e))?;
    if ArchiveCompression::sniff(&head).ok_or_else(|| unknown(&label, &head))? != ArchiveCompression::Plain {
        return Err(Error::usage(format!(
            "{label} is compressed, and only an uncompressed tar can be re-tagged; write one with \
             imgmv copy {label} NEW.tar --as NAME"
        )));
    }
    let section = Section::new(again, 0).map_err(|e| Error::reading(&label, e))?;
    let store = ArchiveStore::open(section, &label, watch)?;
    let (to, temporary) = sink::temporary_for(&path).map_err(|e| Error::writing(&label, e))?;
    let (root, to) = tarball::retag(&store, &mut file, to, selector, names, &label).map_err(|e| e.at(&label))?;
    if let Some(to) = to {
        sink::persist(to, temporary, &path)?;
    }
    Ok(root)
}

/// Removes partial archives of interrupted copies from `dir` that had no write for `lifetime`; returns their number.
pub fn prune(dir: &Path, lifetime: Duration) -> Result<usize> {
    let directory = Directory::open(dir).map_err(|e| Error::reading(dir.display(), e))?;
    Ok(partial::remove_expired(&directory, lifetime))
}

fn unknown(label: &str, head: &[u8]) -> Error {
    match head {
        [] => Error::invalid(format!("{label} is empty; expected an archive of images")),
        _ => Error::invalid(format!(
            "{label} is not an archive: expected a tar, uncompressed or compressed with gzip, zstd, xz or bzip2"
        )),
    }
}
