//! The resolution of a path inside a root without openat2: each component is opened by itself and never as a link, and
//! links are read and resolved against the root.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// The maximum number of links in the path of one file: that of the kernel.
pub(super) const MAX_LINKS: usize = 40;
/// The maximum length of a path and of a link, in bytes: that of the kernel.
const MAX_PATH_BYTES: usize = 4095;
/// The maximum number of opened components: `..` in links opens the path before it again.
const MAX_STEPS: usize = 20_000;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens `path` inside `root` with `flags`, as openat2 does with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`.
pub(super) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let mut walk = Walk { at: openat(root, ".", DIRECTORY, Mode::empty())?, resolved: Vec::new(), steps: 0 };
    // The components that are not resolved yet; the next one is last.
    let mut pending = Vec::new();
    push(&mut pending, path)?;
    let mut links = 0;
    while let Some(component) = pending.pop() {
        if component == b".." {
            walk.up(root)?;
            continue;
        }
        match readlinkat(&walk.at, &component[..], Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.as_bytes().starts_with(b"/") {
                    walk.resolved.clear();
                    walk.again(root)?;
                }
                push(&mut pending, target.as_bytes())?;
            }
            Err(Errno::INVAL) if pending.is_empty() => return last(&walk, &component, flags),
            Err(Errno::INVAL) => walk.down(component)?,
            Err(error) => return Err(error),
        }
    }
    openat(&walk.at, ".", flags, Mode::empty())
}

/// Opens the last component, which is not a link. A device is not opened: on some, opening has an effect.
fn last(walk: &Walk, component: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let found = FileType::from_raw_mode(statat(&walk.at, component, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    match found {
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket => Err(Errno::NXIO),
        _ => openat(&walk.at, component, flags | OFlags::NOFOLLOW, Mode::empty()),
    }
}

/// Adds the components of `path`.
fn push(pending: &mut Vec<Vec<u8>>, path: &[u8]) -> Result<(), Errno> {
    if path.len() > MAX_PATH_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    let components = path.split(|byte| *byte == b'/').rev();
    pending.extend(components.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec));
    Ok(())
}

/// A position in the root.
struct Walk {
    /// The directory.
    at: OwnedFd,
    /// Its path from the root, without links.
    resolved: Vec<Vec<u8>>,
    steps: usize,
}

impl Walk {
    /// Enters `component`, which is not a link.
    fn down(&mut self, component: Vec<u8>) -> Result<(), Errno> {
        self.step()?;
        self.at = openat(&self.at, &component[..], DIRECTORY, Mode::empty())?;
        self.resolved.push(component);
        Ok(())
    }

    /// Leaves the directory, at most up to `root`. `..` itself is never opened: while a directory is moved out of the
    /// root, it leads out of the root.
    fn up(&mut self, root: impl AsFd) -> Result<(), Errno> {
        self.resolved.pop();
        self.again(root)
    }

    /// Opens the resolved path again.
    fn again(&mut self, root: impl AsFd) -> Result<(), Errno> {
        self.at = openat(root, ".", DIRECTORY, Mode::empty())?;
        for component in std::mem::take(&mut self.resolved) {
            self.down(component)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Errno> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(Errno::LOOP) } else { Ok(()) }
    }
}
