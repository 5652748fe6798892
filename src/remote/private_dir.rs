//! Directories for sockets, which only the user can enter. A directory that a killed process left is removed by the next
//! run: its lock is free.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PREFIX: &str = "imgmv-";
const LOCK_FILE: &str = "lock";
/// A socket path has at most 108 bytes, and ssh appends a random suffix while it creates the socket.
const MAX_SOCKET_DIR_BYTES: usize = 70;
/// The entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// A directory of mode 0700, removed on drop.
pub(super) struct PrivateDir {
    directory: TempDir,
    /// Locked as long as this process lives.
    _lock: File,
}

impl PrivateDir {
    /// Creates a directory in `XDG_RUNTIME_DIR` or the directory for temporary files. `None` if neither can have one
    /// with a path that is short enough.
    pub fn create() -> Option<PrivateDir> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let parents = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
        parents.into_iter().find_map(|parent| PrivateDir::create_in(&parent))
    }

    fn create_in(parent: &Path) -> Option<PrivateDir> {
        let is_usable =
            parent.as_os_str().len() <= MAX_SOCKET_DIR_BYTES && !parent.to_str()?.contains(['%', '"', ' ', '\\', ':']);
        if !is_usable {
            return None;
        }
        sweep(parent);
        let mut builder = tempfile::Builder::new();
        let directory = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(parent).ok()?;
        // Locked before it has the name that a sweep of another process looks for.
        let unnamed = directory.path().join("new");
        let lock = File::create_new(&unnamed).ok()?;
        lock.try_lock().ok()?;
        fs::rename(&unnamed, directory.path().join(LOCK_FILE)).ok()?;
        Some(PrivateDir { directory, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories in `parent` that killed processes of this user left.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) && is_abandoned(&entry.path()) {
            // Only what imgmv and ssh create there; a directory with anything else stays.
            for file in fs::read_dir(entry.path()).into_iter().flatten().take(16).flatten() {
                if file.file_name() != OsStr::new(LOCK_FILE) {
                    let _ = fs::remove_file(file.path());
                }
            }
            let _ = fs::remove_file(entry.path().join(LOCK_FILE));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Whether `directory` is one of this user's, and its lock is free.
fn is_abandoned(directory: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let is_own = fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0);
    is_own && File::open(directory.join(LOCK_FILE)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_and_removed_when_its_process_is_gone() {
        let parent = tempfile::tempdir_in("/tmp").unwrap();
        let alive = PrivateDir::create_in(parent.path()).unwrap();
        assert_eq!(fs::metadata(alive.path()).unwrap().mode() & 0o777, 0o700);
        let dead = parent.path().join("imgmv-dead");
        fs::create_dir(&dead).unwrap();
        fs::set_permissions(&dead, Permissions::from_mode(0o700)).unwrap();
        fs::write(dead.join(LOCK_FILE), b"").unwrap();
        drop(std::os::unix::net::UnixListener::bind(dead.join("s")).unwrap());
        let others = parent.path().join("imgmv-others");
        fs::create_dir(&others).unwrap();
        let second = PrivateDir::create_in(parent.path()).unwrap();
        assert!(alive.path().exists() && others.exists() && !dead.exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn processes_that_start_at_the_same_time_keep_their_directories() {
        let parent = tempfile::tempdir_in("/tmp").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let own = PrivateDir::create_in(parent.path()).unwrap();
                        fs::write(own.path().join("s"), b"").unwrap();
                    }
                });
            }
        });
    }
}
