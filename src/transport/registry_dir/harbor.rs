//! Harbor's tree is never written: Harbor keeps the names of its images in a database, so an image that is only on the
//! disk does not exist for it.

use super::tree::root;
use crate::error::{Error, Result};
use std::fs;
use std::path::Path;

/// Files and folders of Harbor's data directory and of its installer. Another program may have one of them: two are needed.
const MARKS: [&str; 8] = [
    "job_logs",
    "secret/registry",
    "harbor.yml",
    "trivy-adapter",
    "ca_download",
    "database",
    "redis",
    "secret/keys/secretkey",
];
const NEEDED: usize = 2;

/// Fails with `Usage` if `dir` is the tree in a Harbor's data directory (`/data/registry`).
///
/// A Harbor that has only its tree on this disk is not recognised.
pub(super) fn refuse(dir: &Path) -> Result<()> {
    let Ok(root) = fs::canonicalize(root(dir)) else { return Ok(()) };
    for place in [Some(&*root), root.parent()].into_iter().flatten() {
        let marks: Vec<&str> = MARKS.into_iter().filter(|mark| place.join(mark).exists()).collect();
        if marks.len() >= NEEDED {
            return Err(Error::usage(format!(
                "{}: this is the tree of a Harbor, as {} in {} show; Harbor finds images in its database, not on the \
                 disk; copy to its registry instead: docker://HOST/PROJECT/REPO:TAG; if another registry serves the tree, \
                 name it by a path that these files do not share (mount --bind)",
                dir.display(),
                marks.join(" and "),
                place.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_harbor_is_recognised_by_what_it_has_next_to_its_tree() {
        for (marks, refused) in [
            (&["job_logs", "ca_download"][..], true),
            (&["secret/registry", "database"], true),
            (&["database", "redis"], true),
            (&["job_logs"], false),
            (&["database"], false),
            (&["secret"], false),
            (&[], false),
        ] {
            let data = tempfile::tempdir().unwrap();
            let tree = data.path().join("registry/docker/registry/v2");
            fs::create_dir_all(&tree).unwrap();
            marks.iter().for_each(|mark| fs::create_dir_all(data.path().join(mark)).unwrap());
            for dir in [&data.path().join("registry"), &tree] {
                let found = refuse(dir).map_err(|error| error.kind());
                assert_eq!(found, if refused { Err(Kind::Usage) } else { Ok(()) }, "{marks:?}");
            }
        }
    }
}
