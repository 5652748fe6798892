//! The compression of an archive file that is written, by the ending of its name.

use crate::image::Coding;
use crate::{Error, Result};
use std::path::Path;

/// The endings of compressions that imgmv does not write, and the commands that do.
const OTHERS: [(&[&str], &str); 5] = [
    (&[".xz", ".txz"], "xz"),
    (&[".bz2", ".tbz", ".tbz2"], "bzip2"),
    (&[".lz4"], "lz4"),
    (&[".lzma"], "lzma"),
    (&[".br"], "brotli"),
];

/// Returns the compression that the name of `file` asks for; none: plain.
///
/// Fails with `Usage` for a compression that imgmv does not write.
pub(super) fn compression(file: &Path) -> Result<Option<Coding>> {
    let name = file.to_string_lossy();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".gz", ".tgz"]) {
        return Ok(Some(Coding::Gzip));
    }
    if ends(&[".zst", ".tzst"]) {
        return Ok(Some(Coding::Zstd));
    }
    match OTHERS.iter().find(|(endings, _)| ends(endings)) {
        None => Ok(None),
        Some((_, command)) => Err(Error::usage(format!(
            "{name}: imgmv writes .tar, .tar.gz and .tar.zst; for this ending use a pipe: imgmv save … | {command} > \
             {name}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_selects_the_compression_or_an_error_names_the_command() {
        for (name, form) in [
            ("a.tar", None),
            ("archive", None),
            ("a.tar.gz", Some(Coding::Gzip)),
            ("/x/a.tgz", Some(Coding::Gzip)),
            ("a.tar.zst", Some(Coding::Zstd)),
            ("a.tzst", Some(Coding::Zstd)),
        ] {
            assert_eq!(compression(Path::new(name)).unwrap(), form, "{name}");
        }
        for (name, hint) in [("a.tar.xz", "| xz > a.tar.xz"), ("a.tbz", "| bzip2 > a.tbz"), ("a.tar.lz4", "| lz4 > ")] {
            let error = compression(Path::new(name)).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
