//! How an archive file is compressed, which its name says.

use crate::image::Coding;
use crate::{Error, Result};
use std::path::Path;

/// Endings and the commands that compress so, of what imgmv reads or leaves to others but does not write.
const OTHERS: [(&[&str], &str); 5] = [
    (&[".xz", ".txz"], "xz"),
    (&[".bz2", ".tbz", ".tbz2"], "bzip2"),
    (&[".lz4"], "lz4"),
    (&[".lzma"], "lzma"),
    (&[".br"], "brotli"),
];

/// The form of an archive that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    Compressed(Coding),
}

impl Form {
    /// What the name of `file` asks for.
    ///
    /// Fails with `Usage` for a compression that imgmv does not write.
    pub fn of(file: &Path) -> Result<Form> {
        let name = file.to_string_lossy();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".gz", ".tgz"]) {
            return Ok(Form::Compressed(Coding::Gzip));
        }
        if ends(&[".zst", ".tzst"]) {
            return Ok(Form::Compressed(Coding::Zstd));
        }
        match OTHERS.iter().find(|(endings, _)| ends(endings)) {
            None => Ok(Form::Plain),
            Some((_, command)) => Err(Error::usage(format!(
                "{name}: imgmv writes .tar, .tar.gz and .tar.zst; for this ending pipe it: imgmv save … | {command} > \
                 {name}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_the_compression_or_the_command_for_it() {
        for (name, form) in [
            ("a.tar", Form::Plain),
            ("archive", Form::Plain),
            ("a.tar.gz", Form::Compressed(Coding::Gzip)),
            ("/x/a.tgz", Form::Compressed(Coding::Gzip)),
            ("a.tar.zst", Form::Compressed(Coding::Zstd)),
            ("a.tzst", Form::Compressed(Coding::Zstd)),
        ] {
            assert_eq!(Form::of(Path::new(name)).unwrap(), form, "{name}");
        }
        for (name, hint) in [("a.tar.xz", "| xz > a.tar.xz"), ("a.tbz", "| bzip2 > a.tbz"), ("a.tar.lz4", "| lz4 > ")] {
            let error = Form::of(Path::new(name)).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
