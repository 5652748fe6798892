//! Names of images at a destination, and keys by which destinations are compared.

use crate::image::{Name, Reference};
use crate::source::Selector;
use crate::{Error, Result};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A name with registry, repository and tag, as archives and engines need it.
pub(crate) fn full(text: &str) -> Result<Name> {
    let reference: Reference = text.parse()?;
    match reference.digest {
        None => Ok(Name::from(&reference.tagged())),
        Some(_) => Err(Error::usage(format!("{text}: a name at the destination has a tag, not a digest"))),
    }
}

/// A name as a layout has it: a full name, or a tag alone.
pub(crate) fn tag_or_full(text: &str) -> Result<Name> {
    let name = Name::new(text).map_err(|wrong| Error::usage(wrong.to_string()))?;
    Ok(name.reference().map_or(name, |reference| Name::from(&reference)))
}

/// The key of the image that `selector` names; empty: all.
pub(crate) fn selector_key(selector: Option<&Selector>) -> String {
    match selector {
        Some(Selector::Name(name)) => full(name).as_ref().map_or(name.clone(), Name::to_string),
        Some(Selector::Digest(digest)) => digest.to_string(),
        None => String::new(),
    }
}

/// The key of a file or directory: its inode, else its path. `None` for a character device.
pub(crate) fn file_key(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_char_device() => None,
        Ok(found) => Some(format!("file {} {}", found.dev(), found.ino())),
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            Some(format!("path {}", folder.join(path.file_name()?).display()))
        }
    }
}
