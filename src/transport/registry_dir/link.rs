//! Link files: a digest as text, without a line break.

use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::Digest;

/// The name of each link file.
pub(super) const LINK: &str = "link";
/// More than the text of a sha512 digest.
const MAX_LINK_BYTES: u64 = 200;

/// Reads the link file in `directory`; `None` if it is missing.
///
/// Fails with `Invalid` if its content is not a digest.
pub(super) fn read(directory: &Directory) -> Result<Option<Digest>> {
    let Some(bytes) = directory.read(LINK, MAX_LINK_BYTES)? else { return Ok(None) };
    let path = || directory.display(LINK);
    let broken = |found: &str| {
        Error::invalid(format!("{}: the link is broken: expected sha256:HEX or sha512:HEX, found {found}", path()))
    };
    let text = match std::str::from_utf8(&bytes) {
        Ok("") => return Err(broken("an empty file")),
        Ok(text) => text,
        Err(_) => return Err(broken("bytes that are not text")),
    };
    if text.ends_with(['\n', '\r']) {
        return Err(broken("a line break at the end, which a registry refuses too"));
    }
    text.parse().map(Some).map_err(|_| broken(&format!("{text:?}")))
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
}
