//! What a run that was cut left of an archive: entries that are whole and right stay, and the blob that it was in is
//! gone on with. Nothing is believed: every byte that stays is hashed.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher, LayoutIndex};
use crate::tarball::read::contents::LAYOUT;
use crate::tarball::tar::header;
use crate::tarball::tar::header::{BLOCK, Flag, Header, Kind};
use std::collections::HashSet;
use std::{fs::File, os::unix::fs::FileExt};

const BUFFER: usize = 256 << 10;

/// A blob's entry of which not all was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub digest: Digest,
    /// Of the whole blob, in bytes.
    pub size: u64,
    /// Where its header is.
    pub from: u64,
}

/// How much of an archive is there.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Blobs and manifests that are whole.
    pub whole: HashSet<Digest>,
    /// Where the last of those ends, padded.
    pub end: u64,
    /// The entry behind that.
    pub begun: Option<Begun>,
    /// An entry was there that is not what it says.
    pub damaged: bool,
}

/// Looks through an archive that [`crate::tarball::ArchiveWriter`] was writing to `file`.
///
/// Fails with `Interrupted`, or as reading does.
pub(crate) fn survey(file: &File, label: &str, cancel: &Cancel) -> Result<Left> {
    let reading = |e| Error::reading(label, e);
    let length = file.metadata().map_err(reading)?.len();
    let mut left = Left::default();
    let head = header::entry(LAYOUT, LayoutIndex::layout_file());
    if at(file, 0, head.len()).map_err(reading)?.as_deref() != Some(&head[..]) {
        return Ok(left);
    }
    left.end = head.len() as u64;
    while let Some((digest, size)) = at(file, left.end, BLOCK).map_err(reading)?.and_then(|block| blob(&block)) {
        let (from, data) = (left.end, left.end + BLOCK as u64);
        if data.saturating_add(size) > length {
            left.begun = Some(Begun { digest, size, from });
            break;
        }
        // Where the padding is not all there, whoever goes on writes it.
        let padding = header::padding(size);
        let written = (length - data - size).min(padding as u64) as usize;
        let padded = at(file, data + size, written).map_err(reading)?;
        let padded = padded.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        left.damaged = !padded || hash(file, data, size, &digest, cancel).map_err(|e| e.at(label))? != digest;
        if left.damaged || !left.whole.insert(digest) {
            break;
        }
        left.end = data + size + padding as u64;
    }
    Ok(left)
}

/// Which blob an entry holds, if its header is the one that it would be given here.
fn blob(block: &[u8]) -> Option<(Digest, u64)> {
    let header = Header::parse(block.try_into().ok()?).ok()??;
    let (algorithm, hex) = std::str::from_utf8(&header.name).ok()?.strip_prefix("blobs/")?.split_once('/')?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    let ours = header::write(&digest.blob_path(), Kind::File, header.size);
    (header.flag == Flag::File && ours == block).then_some((digest, header.size))
}

/// `length` bytes from `from` on; `None` where there are fewer.
fn at(file: &File, from: u64, length: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn hash(file: &File, mut from: u64, size: u64, like: &Digest, cancel: &Cancel) -> Result<Digest> {
    let (mut hasher, end) = (Hasher::new(like.algorithm()), from + size);
    let mut buffer = vec![0; BUFFER.min(size as usize)];
    while from < end {
        cancel.check()?;
        let wanted = buffer.len().min(usize::try_from(end - from).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..wanted], from)?;
        hasher.update(&buffer[..wanted]);
        from += wanted as u64;
    }
    Ok(hasher.finish())
}

/// Where the entries of `digests` lie, of an archive that was written here.
pub(crate) fn entries(file: &File, digests: &HashSet<Digest>) -> Result<Vec<(u64, u64)>> {
    let mut from = header::entry(LAYOUT, LayoutIndex::layout_file()).len() as u64;
    let mut gaps = Vec::new();
    while let Some((digest, size)) = at(file, from, BLOCK)?.and_then(|block| blob(&block)) {
        let end = from + BLOCK as u64 + size + header::padding(size) as u64;
        if digests.contains(&digest) {
            gaps.push((from, end));
        }
        from = end;
    }
    Ok(gaps)
}

/// Moves what is behind each of the gaps down, in the order of the file; its new length. `gaps` are sorted, and do not
/// overlap.
pub(crate) fn close_gaps(file: &File, gaps: &[(u64, u64)], length: u64, cancel: &Cancel) -> Result<u64> {
    let Some((first, _)) = gaps.first() else { return Ok(length) };
    let mut to = *first;
    let mut buffer = vec![0; BUFFER];
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
        assert_eq!(at(&file, 0, length as usize).unwrap().unwrap(), b"04567abcdef");
        assert_eq!(close_gaps(&file, &[], 11, &Cancel::default()).unwrap(), 11);
    }
}
