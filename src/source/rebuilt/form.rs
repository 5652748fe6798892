//! The common parts of docker's directory and of containers-storage.

use crate::disk::rooted::Rooted;
use crate::error::{Error, Kind};
use crate::image::Digest;

/// The maximum number of layers of an image. docker's own limit is 127.
pub(crate) const MAX_LAYERS: usize = 256;
/// The maximum number of damaged entries of a record that a message names.
const MAX_REASONS: usize = 3;

/// A storage driver whose layers are directories of files. The others store layers as volumes or snapshots of their
/// filesystems.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// The name of the driver, and of its directories.
    pub name: &'static str,
    /// The path of a layer's own directory: before its ID.
    before: &'static str,
    /// The path of a layer's files in its directory.
    after: &'static str,
}

impl Form {
    /// The driver `name`, whose layer `ID` has its files at `before` `ID` `after`.
    pub const fn new(name: &'static str, before: &'static str, after: &'static str) -> Form {
        Form { name, before, after }
    }

    /// The path of the directory of the layer `id`, which was checked.
    pub fn directory(&self, id: &str) -> String {
        format!("{}{id}", self.before)
    }

    /// The path of the files of the layer `id`, which was checked.
    pub fn files(&self, id: &str) -> String {
        format!("{}{id}{}", self.before, self.after)
    }
}

/// The error for a layer of which `path` in `root` does not exist.
pub(crate) fn missing_part(diff_id: &Digest, root: &Rooted, path: &str) -> Error {
    Error::not_found(format!("a part of layer {diff_id} is missing: {}", root.display(path)))
}

/// Adds `hint`, what to do, to a permission error, once.
pub(crate) fn with_hint(error: Error, hint: &str) -> Error {
    match error.kind() {
        Kind::Denied if !error.to_string().ends_with(hint) => Error::denied(format!("{error}; {hint}")),
        _ => error,
    }
}

/// The first of `reasons`, and the number of the others; `None` without any.
pub(crate) fn some_reasons(reasons: &[String]) -> Option<String> {
    let more = match reasons.len().saturating_sub(MAX_REASONS) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!reasons.is_empty()).then(|| reasons.iter().take(MAX_REASONS).cloned().collect::<Vec<_>>().join(", ") + &more)
}
