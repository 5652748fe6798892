//! Finding the repositories of a tree.

use super::repository::{MANIFESTS, Repository};
use super::tree::Tree;
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::is_repository;

/// The maximum number of folders that are read.
const MAX_FOLDERS: usize = 200_000;
/// The maximum number of entries in one folder.
const MAX_ENTRIES: usize = 100_000;

/// Calls `found` with every repository, in the order of the names' first parts.
///
/// Folders that start with `_`, and others that cannot be a part of a name, are not entered.
///
/// # Errors
/// - `Invalid`: a link in place of a folder, or more folders than `MAX_FOLDERS`.
/// - Those of `found`.
pub(super) fn each_repository(tree: &Tree, mut found: impl FnMut(Repository) -> Result<()>) -> Result<()> {
    let Some(all) = tree.repositories()? else { return Ok(()) };
    let mut ahead = parts(all, "", MAX_FOLDERS)?;
    let mut folders = ahead.len();
    while let Some(name) = ahead.pop() {
        let path: Vec<&str> = name.split('/').collect();
        // A folder that was removed in the meantime counts as empty.
        let Some(folder) = all.descend(&path)? else { continue };
        let below = parts(&folder, &name, MAX_FOLDERS - folders)?;
        folders += below.len();
        ahead.extend(below);
        if let Some(repository) = Repository::new(&name, folder)? {
            found(repository)?;
        }
    }
    Ok(())
}

/// The names below the repository name `above` (empty: all) of the folders in `folder`, the last one first.
fn parts(folder: &Directory, above: &str, room: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    folder
        .each_folder(MAX_ENTRIES, |part| {
            let name = if above.is_empty() { part.to_owned() } else { format!("{above}/{part}") };
            if !is_repository(part) || name.len() > Repository::MAX_NAME_BYTES {
                return Ok(());
            }
            if names.len() >= room {
                return Err(Error::invalid(format!(
                    "more than {MAX_FOLDERS} folders are below it; select one image as registry-dir:DIR:REPO:TAG"
                )));
            }
            names.push(name);
            Ok(())
        })
        .map_err(|e| e.at(folder.path().display()))?;
    names.sort_unstable_by(|one, other| other.cmp(one));
    debug_assert!(names.iter().all(|name| !name.ends_with(MANIFESTS)));
    Ok(names)
}
