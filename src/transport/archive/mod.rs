//! `docker-archive:`, `oci-archive:`, `-` and archive paths: files, standard input, standard output.

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
use crate::tarball::{ArchiveCompression, ArchiveStore, Section, UnopenedArchive};
use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use sink::{ArchiveSink, Leavings};

/// Enough of an archive's beginning to know it.
const HEAD: usize = 512;

/// Where an archive is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    File(PathBuf),
    Stdin,
}

/// An archive, as it can be read.
pub enum Found {
    Store(Arc<ArchiveStore<Section>>),
    UnopenedArchive(UnopenedArchive),
}

impl From<Found> for Source {
    fn from(found: Found) -> Source {
        match found {
            Found::Store(store) => Source::Store(store),
            Found::UnopenedArchive(tape) => Source::Stream(Box::new(tape.stream())),
        }
    }
}

/// [`find`], as a source.
pub fn open(input: &Input, watch: Arc<dyn Watch>) -> Result<Source> {
    find(input, watch).map(Source::from)
}

/// The archive at `input`: a store where it can be read in place (an unpacked tar in a file, also when that file is
/// standard input), a tape otherwise.
///
/// Fails with `NotFound` or `Denied` as the system says, and with `Invalid` where it is no archive of images.
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
        return Err(Error::usage(format!("{label} is a directory; an OCI layout is written oci:{label}")));
    }
    let from = if kind.is_file() { file.stream_position().map_err(reading)? } else { 0 };
    let mut head = Vec::with_capacity(HEAD);
    (&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(reading)?;
    let compression = ArchiveCompression::sniff(&head).ok_or_else(|| unknown(label, &head))?;
    if kind.is_file() && compression == ArchiveCompression::Plain {
        let section = Section::new(file, from).map_err(reading)?;
        return Ok(Found::Store(Arc::new(ArchiveStore::open(section, label, watch)?)));
    }
    let whole = Cursor::new(head).chain(file);
    let bytes = compression.decompress(Box::new(whole))?;
    Ok(Found::UnopenedArchive(UnopenedArchive { bytes, label: label.to_owned(), expected_diff_ids: Vec::new() }))
}

/// Adds `names` to the image of the archive at `path` that `pick` selects (none: the only one): a new archive that
/// replaces the old one whole. Its blobs are copied as they lie there, unhashed.
///
/// Fails with `Usage` where the archive is packed or several images could be meant.
pub fn retag(path: &Path, pick: Option<&Selector>, names: &[Name], watch: Arc<dyn Watch>) -> Result<Root> {
    let label = path.display().to_string();
    let path = fs::canonicalize(path).map_err(|e| Error::reading(&label, e))?;
    let mut file = File::open(&path).map_err(|e| Error::reading(&label, e))?;
    let again = file.try_clone().map_err(|e| Error::reading(&label, e))?;
    let mut head = Vec::with_capacity(HEAD);
    (&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(|e| Error::reading(&label, e))?;
    if ArchiveCompression::sniff(&head).ok_or_else(|| unknown(&label, &head))? != ArchiveCompression::Plain {
        return Err(Error::usage(format!(
            "{label} is compressed as a whole, and only a plain tar can be re-tagged; write one with imgmv copy {label} \
             NEW.tar --as NAME"
        )));
    }
    let section = Section::new(again, 0).map_err(|e| Error::reading(&label, e))?;
    let store = ArchiveStore::open(section, &label, watch)?;
    let (to, temporary) = sink::beside(&path).map_err(|e| Error::writing(&label, e))?;
    let (root, to) = tarball::retag(&store, &mut file, to, pick, names, &label).map_err(|e| e.at(&label))?;
    if let Some(to) = to {
        sink::settle(to, temporary, &path)?;
    }
    Ok(root)
}

/// Removes what copies to archives in `dir` left there when they were cut, and nobody has written to for `life`; how
/// many archives.
pub fn prune(dir: &Path, life: Duration) -> Result<usize> {
    let folder = Directory::open(dir).map_err(|e| Error::reading(dir.display(), e))?;
    Ok(partial::sweep(&folder, life))
}

fn unknown(label: &str, head: &[u8]) -> Error {
    match head {
        [] => Error::invalid(format!("{label} is empty; expected an archive of images")),
        _ => {
            Error::invalid(format!("{label} is no archive: neither a tar nor one packed with gzip, zstd, xz or bzip2"))
        }
    }
}
