//! The data roots below a directory: a docker, the dockers of remapped users (`UID.GID/`), a rootless docker.

use super::driver::{Driver, FORMS};
use super::names;
use crate::disk::rooted::{Resolution, Rooted};
use crate::error::{Error, Result};
use crate::message::some_of;
use crate::source::rebuilt::with_hint;
use std::io;
use std::path::{Path, PathBuf};

/// The default of `--src-root`.
const ROOT: &str = "/var/lib/docker";
/// The maximum number of entries of a directory that is searched.
const MAX_ENTRIES: usize = 100_000;
/// dockerd creates some of these in every data root.
const SIGNS: [&str; 7] = ["image", "containerd", "containers", "buildkit", "volumes", "network", "engine-id"];
/// The directory of the containerd that dockerd starts for itself, in a data root.
const CONTAINERD: &str = "containerd/daemon";

/// The data roots that were found.
#[derive(Debug)]
pub(crate) struct DataRoots {
    /// The directories that were searched, for messages.
    pub searched: Vec<PathBuf>,
    /// The graph drivers' stores.
    pub drivers: Vec<Driver>,
    /// The names of graph drivers whose stores imgmv does not read.
    pub unsupported: Vec<String>,
    /// The directories of containerds that dockerd starts for itself.
    pub containerds: Vec<PathBuf>,
    /// Symbolic links in place of directories. They are not followed: on the disk of another host they would lead to this
    /// host's files.
    pub links: Vec<PathBuf>,
}

/// Finds the data roots of `given` (`--src-root`), else those of this host.
///
/// # Errors
/// - `NotFound`: the directory does not exist, or is not docker's.
/// - `Denied`: it may not be read.
pub(crate) fn find(given: Option<&Path>, resolution: Resolution) -> Result<DataRoots> {
    let mut found =
        DataRoots { searched: vec![], drivers: vec![], unsupported: vec![], containerds: vec![], links: vec![] };
    if let Some(root) = given {
        search(root, resolution, &mut found)?;
        return Ok(found);
    }
    let system = search(Path::new(ROOT), resolution, &mut found);
    if let Some(own) = rootless().filter(|own| own.is_dir()) {
        // One of both is enough: a user without root's rights reads the own docker.
        search(&own, resolution, &mut found)?;
        return Ok(found);
    }
    system.map(|()| found)
}

/// The data root of a rootless docker of this user.
fn rootless() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("docker"))
}

fn search(root: &Path, resolution: Resolution, found: &mut DataRoots) -> Result<()> {
    let rooted = Rooted::open(root, resolution).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let root = root.display();
            Error::not_found(format!("no docker directory at {root}; name another one with --src-root"))
        }
        _ => with_root_hint(Error::reading(root.display(), error)),
    })?;
    found.searched.push(root.to_owned());
    let names = rooted.names(MAX_ENTRIES)?;
    add(root, resolution, found)?;
    let remapped = names.iter().filter_map(|name| std::str::from_utf8(name).ok()).filter(|name| is_remapped(name));
    let remapped: Vec<PathBuf> = remapped.map(|name| root.join(name)).collect();
    let (remapped, links): (Vec<PathBuf>, Vec<PathBuf>) = remapped.into_iter().partition(|path| !path.is_symlink());
    found.links.extend(links);
    remapped.iter().try_for_each(|root| add(root, resolution, found))?;
    let is_docker = !remapped.is_empty() || SIGNS.iter().any(|sign| names.iter().any(|name| name == sign.as_bytes()));
    if is_docker { Ok(()) } else { Err(not_dockers(root)) }
}

/// Adds the stores of the data root `root`.
fn add(root: &Path, resolution: Resolution, found: &mut DataRoots) -> Result<()> {
    let rooted = Rooted::open(root, resolution).map_err(|e| with_root_hint(Error::reading(root.display(), e)))?;
    if let Some(image) = rooted.directory("image").map_err(with_root_hint)? {
        for name in image.names(MAX_ENTRIES).map_err(with_root_hint)? {
            let name = String::from_utf8_lossy(&name).into_owned();
            match FORMS.iter().find(|form| form.name == name) {
                Some(form) => found.drivers.push(Driver::new(root, resolution, form)?),
                None => found.unsupported.push(name),
            }
        }
    }
    let directories = FORMS.iter().map(|form| form.name).chain(["image", "containerd", CONTAINERD]);
    let links: Vec<PathBuf> = directories.map(|name| root.join(name)).filter(|path| path.is_symlink()).collect();
    let containerd = root.join(CONTAINERD);
    let is_inside = links.iter().all(|link| !containerd.starts_with(link));
    if is_inside && rooted.directory(CONTAINERD).map_err(with_root_hint)?.is_some() {
        found.containerds.push(containerd);
    }
    found.links.extend(links);
    Ok(())
}

/// Whether `name` is that of a data root for a remapped user: `UID.GID`.
pub(crate) fn is_remapped(name: &str) -> bool {
    let is_id = |text: &str| text.parse::<u32>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('.').is_some_and(|(uid, gid)| is_id(uid) && is_id(gid))
}

fn not_dockers(root: &Path) -> Error {
    let inner = root.join("var/lib/docker");
    let hint = match inner.is_dir() {
        true => format!("name {} with --src-root", inner.display()),
        false => "name docker's data root (usually var/lib/docker on its disk) with --src-root".to_owned(),
    };
    Error::not_found(format!("{} is not docker's directory: it has none of its files; {hint}", root.display()))
}

impl DataRoots {
    /// The files that change with the names of images.
    pub fn names_files(&self) -> Vec<PathBuf> {
        self.drivers.iter().map(names::path).collect()
    }

    /// The error for data roots without a store that imgmv reads.
    pub fn nothing(&self) -> Error {
        let searched: Vec<String> = self.searched.iter().map(|root| root.display().to_string()).collect();
        let searched = searched.join(" and ");
        if !self.unsupported.is_empty() {
            let drivers = some_of(&self.unsupported);
            return Error::not_found(format!(
                "docker's directory {searched} has images of the graph driver {drivers}, of which imgmv cannot read the \
                 layers; start that docker and use docker-daemon:REF or docker save"
            ));
        }
        Error::not_found(format!(
            "docker's directory {searched} has no image store: its dockerd stores images in the containerd of the \
             system, or never stored one; read that with containerd:REF --src-namespace moby, or moby-UID.GID with \
             userns-remap (its directory: --src-root)"
        ))
    }
}

/// Adds the solution to a permission error.
pub(super) fn with_root_hint(error: Error) -> Error {
    with_hint(error, "docker's directory belongs to root: run imgmv as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_of_ids_are_remapped_roots() {
        for (name, expected) in [
            ("200000.200000", true),
            ("0.0", true),
            ("1.2.3", false),
            ("a.1", false),
            ("+1.1", false),
            ("1", false),
            (".", false),
        ] {
            assert_eq!(is_remapped(name), expected, "{name}");
        }
    }
}
