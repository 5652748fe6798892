//! Harbor's tree is never written: Harbor keeps the names of its images in a database, so an image that is only on the
//! disk does not exist for it.

use super::tree::root;
use crate::error::{Error, Result};
use std::fs;
use std::path::Path;

/// Files and folders that Harbor alone has in its data directory or its installer. One is enough.
const OWN_MARKS: [&str; 5] = ["job_logs", "secret/registry", "secret/keys/secretkey", "trivy-adapter", "harbor.yml"];
/// Folders that other programs have too. Two are needed.
const COMMON_MARKS: [&str; 3] = ["database", "redis", "ca_download"];

/// Fails with `Usage` if `dir` is the tree in a Harbor's data directory (`/data/registry`).
///
/// A Harbor that has only its tree on this disk is not recognised.
pub(super) fn refuse(dir: &Path) -> Result<()> {
    let Ok(root) = fs::canonicalize(root(dir)) else { return Ok(()) };
    for place in [Some(&*root), root.parent()].into_iter().flatten() {
        let found = |marks: &[&'static str]| -> Vec<&'static str> {
            marks.iter().copied().filter(|mark| place.join(mark).exists()).collect()
        };
        let (own, common) = (found(&OWN_MARKS), found(&COMMON_MARKS));
        if !own.is_empty() || common.len() >= 2 {
            let marks = [own, common].concat();
            let show = if marks.len() == 1 { "shows" } else { "show" };
            return Err(Error::usage(format!(
                "{}: this is the tree of a Harbor, as {} in {} {show}; Harbor finds images in its database, not on the \
                 disk; copy to its registry instead: docker://HOST/PROJECT/REPO:TAG; if another registry serves the tree, \
                 name it by a path that has no such neighbours (mount --bind)",
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
            (&["job_logs"], true),
            (&["secret/registry"], true),
            (&["trivy-adapter"], true),
            (&["harbor.yml"], true),
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
