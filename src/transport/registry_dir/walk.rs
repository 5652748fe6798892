//! Finding the repositories of a tree.

use super::repository::Repository;
use super::tree::Tree;
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::is_repository;

/// The maximum number of folders that are read.
const MAX_FOLDERS: usize = 200_000;
/// The maximum number of entries in one folder.
const MAX_ENTRIES: usize = 100_000;

/// Calls `found` with every repository, in the order of the names' first parts, and with the error of each folder that
/// cannot be read (a link in its place, a bad sector). The others are read nevertheless.
///
/// Folders that start with `_`, and others that cannot be a part of a name, are not entered.
///
/// # Errors
/// - `Invalid`: more folders than `MAX_FOLDERS`.
/// - Those of `found`.
pub(super) fn each_repository(tree: &Tree, found: impl FnMut(Result<Repository>) -> Result<()>) -> Result<()> {
    each_in(tree, MAX_FOLDERS, found)
}

fn each_in(tree: &Tree, limit: usize, mut found: impl FnMut(Result<Repository>) -> Result<()>) -> Result<()> {
    let Some(all) = tree.repositories()? else { return Ok(()) };
    let mut ahead = parts(all, "", limit)?;
    let mut folders = ahead.len();
    loop {
        if folders > limit {
            return Err(Error::invalid(format!(
                "{}: it has more folders than the {MAX_FOLDERS} that are read; select one image as \
                 registry-dir:DIR:REPO:TAG",
                all.path().display()
            )));
        }
        let Some(name) = ahead.pop() else { return Ok(()) };
        let path: Vec<&str> = name.split('/').collect();
        let folder = match all.descend(&path) {
            Ok(Some(folder)) => folder,
            // A folder that was removed in the meantime counts as empty.
            Ok(None) => continue,
            Err(error) => {
                found(Err(error))?;
                continue;
            }
        };
        match parts(&folder, &name, limit.saturating_sub(folders)) {
            Ok(below) => {
                folders += below.len();
                ahead.extend(below);
            }
            Err(error) => found(Err(error))?,
        }
        if let Some(repository) = Repository::new(&name, folder).transpose() {
            found(repository)?;
        }
    }
}

/// The names below the repository name `above` (empty: all) of the folders in `folder`, the last one first. Of more than
/// `room`, one too many.
fn parts(folder: &Directory, above: &str, room: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    folder
        .each_folder(MAX_ENTRIES, |part| {
            let name = if above.is_empty() { part.to_owned() } else { format!("{above}/{part}") };
            if is_repository(part) && name.len() <= Repository::MAX_NAME_BYTES && names.len() <= room {
                names.push(name);
            }
            Ok(())
        })
        .map_err(|e| e.at(folder.path().display()))?;
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn the_number_of_folders_is_bounded() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["a/_manifests", "a/b/_manifests", "a/b/c/_manifests", "a/b/d/_uploads/x", "_trash/e"] {
            std::fs::create_dir_all(temp.path().join("repositories").join(name)).unwrap();
        }
        let tree = Tree::at(Directory::open(temp.path()).unwrap());
        let names = |limit: usize| {
            let mut names = Vec::new();
            each_in(&tree, limit, |repository| {
                names.push(repository?.name().to_owned());
                Ok(())
            })
            .map(|()| names)
        };
        assert_eq!(names(4).unwrap(), ["a", "a/b", "a/b/c"]);
        assert_eq!(names(3).unwrap_err().kind(), Kind::Invalid);
    }
}
