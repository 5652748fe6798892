//! Resumes an archive that an earlier run started: complete entries with the right digest are reused, and the last blob
//! is continued. Nothing is trusted: every reused byte is hashed.

use crate::cancel::Cancel;
use crate::disk::checkpoints::Checkpoints;
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher, LayoutIndex};
use crate::progress::Watch;
use crate::tarball::read::contents::LAYOUT;
use crate::tarball::tar::header;
use crate::tarball::tar::header::{BLOCK_BYTES, Flag, Header, HeaderKind};
use crate::tarball::tar::output::TarWriter;
use std::collections::HashSet;
use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

const BUFFER_BYTES: usize = 256 << 10;

/// The state of an archive that can be resumed.
pub(crate) struct Resume {
    pub(crate) checkpoints: Checkpoints,
    /// The incomplete blob at the end of the archive; no other entry may be written before it is continued.
    pub(crate) partial: Option<PartialBlob>,
    /// Whether the source can be read again, so that a later run can resume.
    pub(crate) repeatable: bool,
    /// Complete entries of an earlier run that were not requested yet.
    pub(crate) unused: HashSet<Digest>,
    pub(crate) cancel: Cancel,
    /// The receiver of messages about damage.
    pub(crate) watch: Arc<dyn Watch>,
}

/// The content of an archive that is resumed.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    pub blobs: usize,
    /// The length of the archive.
    pub bytes: u64,
    pub damaged: bool,
}

/// A blob's entry that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartialBlob {
    pub digest: Digest,
    /// The size of the complete blob in bytes.
    pub size: u64,
    /// The offset of its header.
    pub header_at: u64,
}

/// The usable content of an archive.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The complete blobs and manifests.
    pub complete: HashSet<Digest>,
    /// The end of the last complete entry, with padding.
    pub end: u64,
    /// The entry behind it.
    pub partial: Option<PartialBlob>,
    /// Whether an entry does not match its digest.
    pub damaged: bool,
}

impl Resume {
    /// Creates the state with the checkpoint file, which is empty or from an earlier run.
    pub fn new(checkpoints: File, cancel: &Cancel, watch: Arc<dyn Watch>) -> Resume {
        Resume {
            checkpoints: Checkpoints::new(checkpoints),
            partial: None,
            repeatable: false,
            unused: HashSet::new(),
            cancel: cancel.clone(),
            watch,
        }
    }

    /// Removes the entries that were not requested.
    pub fn remove_unused(&self, tar: &mut TarWriter<'_>) -> Result<()> {
        if self.unused.is_empty() {
            return Ok(());
        }
        tar.flush()?;
        let file = tar.file().ok_or_else(|| Error::failed("only an archive in a file can be resumed"))?;
        let gaps = ranges(file, &self.unused)?;
        let end = close_gaps(file, &gaps, tar.at(), &self.cancel)?;
        tar.truncate(end)
    }
}

/// Scans an archive that an [`crate::tarball::ArchiveWriter`] wrote to `file`.
///
/// Fails with `Interrupted`, or if reading fails.
pub(crate) fn scan(file: &File, label: &str, cancel: &Cancel) -> Result<Scan> {
    let reading = |e| Error::reading(label, e);
    let length = file.metadata().map_err(reading)?.len();
    let mut scan = Scan::default();
    let layout = header::encode_entry(LAYOUT, LayoutIndex::layout_file());
    if read(file, 0, layout.len()).map_err(reading)?.as_deref() != Some(&layout[..]) {
        return Ok(scan);
    }
    scan.end = layout.len() as u64;
    while let Some((digest, size)) = read(file, scan.end, BLOCK_BYTES).map_err(reading)?.and_then(|block| blob(&block))
    {
        let (header_at, data_at) = (scan.end, scan.end + BLOCK_BYTES as u64);
        if data_at.saturating_add(size) > length {
            scan.partial = Some(PartialBlob { digest, size, header_at });
            break;
        }
        // Missing padding is written when the archive is continued.
        let padding = header::padding(size);
        let written = (length - data_at - size).min(padding as u64) as usize;
        let padded = read(file, data_at + size, written).map_err(reading)?;
        let padded = padded.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        scan.damaged = !padded || hash(file, data_at, size, &digest, cancel).map_err(|e| e.at(label))? != digest;
        if scan.damaged || !scan.complete.insert(digest) {
            break;
        }
        scan.end = data_at + size + padding as u64;
    }
    Ok(scan)
}

/// Returns the blob of an entry if its header is the one that this module writes.
fn blob(block: &[u8]) -> Option<(Digest, u64)> {
    let header = Header::parse(block.try_into().ok()?).ok()??;
    let (algorithm, hex) = std::str::from_utf8(&header.name).ok()?.strip_prefix("blobs/")?.split_once('/')?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    let ours = header::encode(&digest.blob_path(), HeaderKind::File, header.size);
    (header.flag == Flag::File && ours == block).then_some((digest, header.size))
}

/// Reads `length` bytes at the offset `from`; `None` if the file is shorter.
fn read(file: &File, from: u64, length: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn hash(file: &File, mut from: u64, size: u64, expected: &Digest, cancel: &Cancel) -> Result<Digest> {
    let (mut hasher, end) = (Hasher::new(expected.algorithm()), from + size);
    let mut buffer = vec![0; BUFFER_BYTES.min(size as usize)];
    while from < end {
        cancel.check()?;
        let wanted = buffer.len().min(usize::try_from(end - from).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..wanted], from)?;
        hasher.update(&buffer[..wanted]);
        from += wanted as u64;
    }
    Ok(hasher.finish())
}

/// Returns the byte ranges of the entries of `digests`.
fn ranges(file: &File, digests: &HashSet<Digest>) -> Result<Vec<(u64, u64)>> {
    let mut from = header::encode_entry(LAYOUT, LayoutIndex::layout_file()).len() as u64;
    let mut ranges = Vec::new();
    while let Some((digest, size)) = read(file, from, BLOCK_BYTES)?.and_then(|block| blob(&block)) {
        let end = from + BLOCK_BYTES as u64 + size + header::padding(size) as u64;
        if digests.contains(&digest) {
            ranges.push((from, end));
        }
        from = end;
    }
    Ok(ranges)
}

/// Moves the bytes behind each gap down, in the order of the file. Returns the new length. `gaps` are sorted and do not
/// overlap.
fn close_gaps(file: &File, gaps: &[(u64, u64)], length: u64, cancel: &Cancel) -> Result<u64> {
    let Some((first, _)) = gaps.first() else { return Ok(length) };
    let mut to = *first;
    let mut buffer = vec![0; BUFFER_BYTES];
    for (n, (_, gap_end)) in gaps.iter().enumerate() {
        let mut from = *gap_end;
        let end = gaps.get(n + 1).map_or(length, |(next, _)| *next);
        while from < end {
            cancel.check()?;
            let wanted = buffer.len().min(usize::try_from(end - from).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..wanted], from)?;
            file.write_all_at(&buffer[..wanted], to)?;
            (from, to) = (from + wanted as u64, to + wanted as u64);
        }
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn gaps_are_closed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789abcdef").unwrap();
        let length = close_gaps(&file, &[(1, 3), (3, 4), (8, 10)], 16, &Cancel::default()).unwrap();
        assert_eq!(read(&file, 0, length as usize).unwrap().unwrap(), b"04567abcdef");
        assert_eq!(close_gaps(&file, &[], 11, &Cancel::default()).unwrap(), 11);
    }
}
