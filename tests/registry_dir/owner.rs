//! New files have the owner and the permissions of the tree's own.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use support::program::command;

/// A user that no process of this host runs as.
pub const USER: u32 = 64_242;

/// Whether this process may give files to other users; it says where not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root gives files to another user");
    }
    root
}

/// Makes `user` the owner of everything in the tree.
pub fn give(tree: &RegistryTree, user: u32) {
    for entry in walkdir::WalkDir::new(tree.root()) {
        chown(entry.unwrap().path(), Some(user), Some(user)).unwrap();
    }
}

/// Everything in the tree belongs to `user`, with the modes of folders and of files.
pub fn belongs(tree: &RegistryTree, user: u32, modes: (u32, u32)) {
    for entry in walkdir::WalkDir::new(tree.root()) {
        let (entry, mode) =
            (entry.as_ref().unwrap(), if entry.as_ref().unwrap().file_type().is_dir() { modes.0 } else { modes.1 });
        let found = entry.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (user, user), "{}", entry.path().display());
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{}", entry.path().display());
    }
}

#[test]
fn new_files_belong_to_the_owner_of_the_trees() {
    if !is_root() {
        return;
    }
    for (folder, file) in [(0o755, 0o644), (0o700, 0o600), (0o2775, 0o664)] {
        let dir = Dir::new();
        // A new tree takes after the root directory.
        fs::create_dir(dir.tree.root()).unwrap();
        chown(dir.tree.root(), Some(USER), Some(USER)).unwrap();
        fs::set_permissions(dir.tree.root(), fs::Permissions::from_mode(folder)).unwrap();
        dir.put(&sample()).unwrap();
        belongs(&dir.tree, USER, (folder, file));
        // An existing one after `repositories`.
        give(&dir.tree, USER + 1);
        chown(dir.tree.root(), Some(0), Some(0)).unwrap();
        dir.put(&one(8, 600_000, "h.lan/new/app:1")).unwrap();
        dir.put(&one(9, 600, "docker.io/library/app:2")).unwrap();
        chown(dir.tree.root(), Some(USER + 1), Some(USER + 1)).unwrap();
        belongs(&dir.tree, USER + 1, (folder, file));
    }
}

#[test]
fn where_the_owner_cannot_be_set_nothing_is_written() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    dir.put(&sample()).unwrap();
    fs::set_permissions(dir.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    give(&dir.tree, USER);
    // Everybody may write, so that only the owner is a reason.
    for entry in walkdir::WalkDir::new(dir.tree.root()) {
        let entry = entry.unwrap();
        let mode = if entry.file_type().is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
    }
    let count = || walkdir::WalkDir::new(dir.tree.root()).into_iter().count();
    let before = count();
    let program = dir.at("imgmv");
    fs::copy(env!("CARGO_BIN_EXE_imgmv"), &program).unwrap();
    let copy_as = |user: u32, group: u32| {
        let archive = dir.at("hello.tar");
        fs::copy("fixtures/hello-docker28c.tar", &archive).unwrap();
        let mut run = command(program.to_str().unwrap());
        run.args(["copy", "-q", archive.to_str().unwrap(), &dir.address("t/hello:1")]);
        run.uid(user).gid(group).output().unwrap()
    };
    for (user, group) in [(USER + 1, USER + 1), (USER + 1, USER), (USER, USER + 1)] {
        let output = copy_as(user, group);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{user}:{group}: {told}");
        assert!(
            told.contains(&format!("belong to user {USER} and group {USER}")) && told.contains("run imgmv as root"),
            "{told}"
        );
        // Never what was done.
        let advice =
            if user == USER { format!(", or with group {USER}") } else { format!(", or as user {USER} with group") };
        assert!(told.contains(&advice), "{told}");
        assert_eq!(count(), before, "{user}:{group}");
    }
    let output = copy_as(USER, USER);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(dir.tree.resolves(), 3);
    // Root without the right to give files away, as in a container: the first file is refused, before its bytes.
    let unprivileged = |args: &[&str]| {
        Command::new("setpriv").args(["--bounding-set", "-chown", "--inh-caps", "-chown"]).args(args).output()
    };
    let archive = dir.at("hello.tar").display().to_string();
    let (to, program) = (dir.address("t/other:1"), program.display().to_string());
    let output = match unprivileged(&[&program, "copy", "-q", &archive, &to]) {
        Ok(output) => output,
        Err(_) => return println!("skipped: no setpriv on PATH"),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("cannot give new files that owner") && told.contains("CAP_CHOWN"), "{told}");
    assert!(!told.contains("as root or") && !told.contains("nothing was written"), "{told}");
    assert!(!dir.tree.repository("t/other").exists() && dir.tree.unfinished().is_empty());
}
