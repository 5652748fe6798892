//! Link files: a digest as text, without a line break.
//!
//! A registry truncates a link file and then writes it. So an empty file that was changed lately is read again.

use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::Digest;
use std::thread::sleep;
use std::time::Duration;

/// The name of each link file.
pub(super) const LINK: &str = "link";
/// More than the text of a sha512 digest.
const MAX_LINK_BYTES: u64 = 200;
/// The pause before an empty link is read again.
const PAUSE: Duration = Duration::from_millis(10);
/// The number of pauses for one link: 50 ms.
const MAX_PAUSES: usize = 5;
/// An empty link that was not changed for longer is broken: no registry is writing it.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// Reads the link file in `directory`; `None` if it is missing.
///
/// Fails with `Invalid` if its content is not a digest.
pub(super) fn read(directory: &Directory) -> Result<Option<Digest>> {
    read_patiently(directory, || sleep(PAUSE))
}

/// Calls `pause` before it reads an empty link again.
fn read_patiently(directory: &Directory, mut pause: impl FnMut()) -> Result<Option<Digest>> {
    let mut bytes = directory.read(LINK, MAX_LINK_BYTES)?;
    for _ in 0..MAX_PAUSES {
        if bytes.as_ref().is_none_or(|bytes| !bytes.is_empty()) || !is_being_written(directory) {
            break;
        }
        pause();
        bytes = directory.read(LINK, MAX_LINK_BYTES)?;
    }
    bytes.map(|bytes| parse(directory, &bytes)).transpose()
}

/// Whether the link file was changed lately. So a tree with many links that a power cut emptied is not waited for.
fn is_being_written(directory: &Directory) -> bool {
    let changed = directory.file(LINK).ok().flatten().and_then(|file| file.metadata().ok()?.modified().ok());
    // A time in the future is that of another host's clock.
    changed.is_some_and(|changed| changed.elapsed().map_or(true, |age| age < WRITE_TIME))
}

fn parse(directory: &Directory, bytes: &[u8]) -> Result<Digest> {
    let path = || directory.display(LINK);
    let broken = |found: &str| {
        Error::invalid(format!("{}: the link is broken: expected sha256:HEX or sha512:HEX, found {found}", path()))
    };
    let text = match std::str::from_utf8(bytes) {
        Ok("") => return Err(broken("an empty file")),
        Ok(text) => text,
        Err(_) => return Err(broken("bytes that are not text")),
    };
    if text.ends_with(['\n', '\r']) {
        return Err(broken("a line break at the end, which a registry refuses too"));
    }
    text.parse().map_err(|_| broken(&format!("{text:?}")))
}

/// The target of the link `digest` below `directory` (`ALG/HEX/link`); `None` if it is missing.
///
/// Fails with `Invalid` if its content is not a digest.
pub(super) fn target(directory: &Directory, digest: &Digest) -> Result<Option<Digest>> {
    match directory.descend(&[digest.algorithm().name(), &digest.hex()])? {
        Some(found) => read(&found),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn only_a_digest_is_a_link() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        assert_eq!(read(&directory).unwrap(), None);
        let digest = Digest::of(b"it");
        let write = |content: &[u8]| std::fs::write(temp.path().join(LINK), content).unwrap();
        write(digest.to_string().as_bytes());
        assert_eq!(read(&directory).unwrap(), Some(digest));
        for (content, told) in [
            (format!("{digest}\n").into_bytes(), "a line break"),
            (Vec::new(), "an empty file"),
            (b"sha256:../../../../etc/passwd".to_vec(), "expected sha256:HEX"),
            (vec![0xff; 71], "not text"),
            (vec![b'a'; 201], "more than the 200 bytes"),
        ] {
            write(&content);
            let error = read(&directory).unwrap_err();
            assert!(error.kind() == Kind::Invalid && error.to_string().contains(told), "{error}");
        }
    }
    #[test]
    fn a_link_that_a_registry_is_writing_is_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let (digest, link, mut pauses) = (Digest::of(b"it"), temp.path().join(LINK), 0);
        std::fs::write(&link, b"").unwrap();
        let read = read_patiently(&directory, || {
            pauses += 1;
            if pauses == MAX_PAUSES {
                std::fs::write(&link, digest.to_string()).unwrap();
            }
        });
        assert_eq!((read.unwrap(), pauses), (Some(digest), MAX_PAUSES));
        // The number of pauses is bounded, and there is none for a link that was emptied long ago.
        for (changed, expected) in [(None, MAX_PAUSES), (Some(std::time::UNIX_EPOCH), 0)] {
            std::fs::write(&link, b"").unwrap();
            let file = std::fs::File::options().write(true).open(&link).unwrap();
            changed.into_iter().for_each(|changed| file.set_modified(changed).unwrap());
            let mut pauses = 0;
            let error = read_patiently(&directory, || pauses += 1).unwrap_err();
            assert!(error.to_string().contains("an empty file") && pauses == expected, "{pauses}: {error}");
        }
        let mut pauses = 0;
        std::fs::remove_file(&link).unwrap();
        assert_eq!(read_patiently(&directory, || pauses += 1).unwrap(), None);
        assert_eq!(pauses, 0);
    }
}
