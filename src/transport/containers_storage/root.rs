//! The storage's directories, and the storage drivers in them.

use super::driver::{Driver, FORMS, with_owner_hint};
use super::storage_conf::StorageConf;
use crate::disk::rooted::{Resolution, Rooted};
use crate::error::{Error, Result};
use crate::message::some_of;
use std::collections::BTreeSet;
use std::env::var_os;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of root's storage, unless `storage.conf` names another one.
const ROOT: &str = "/var/lib/containers/storage";
/// The files that containers/storage reads for root; the first that exists decides.
const SYSTEM_CONF: [&str; 2] = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];
/// The maximum number of entries of the directory.
const MAX_ENTRIES: usize = 100_000;
/// Entries of every storage.
const SIGNS: [&str; 2] = ["storage.lock", "libpod"];

/// The lines of `storage.conf` that name further directories: the one that new images get into, then those that are only
/// read.
const IMAGE_STORES: [&str; 2] = ["imagestore", "additionalimagestores"];
/// The maximum number of further directories.
const MAX_IMAGE_STORES: usize = 64;

/// A directory, and the file that names it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    conf: Option<PathBuf>,
    /// The storage driver in use, where the file names one.
    driver: Option<String>,
    /// The further directories, with the lines that name them.
    image_stores: Vec<(PathBuf, String)>,
}

/// The storage drivers in a storage's directories.
pub(super) struct Storage {
    /// The directory in messages.
    pub label: String,
    /// That in use first, then those of the storage's own directory.
    pub drivers: Vec<Driver>,
    /// The names of storage drivers that imgmv does not read.
    pub unsupported: Vec<String>,
    /// The errors of further directories that cannot be read.
    pub unread: Vec<Error>,
    /// Whether the storage has no other directory than those that were searched.
    pub is_whole: bool,
}

/// Finds the storage drivers in `given` (`--src-root`), else in this user's storage.
///
/// # Errors
/// - `NotFound`: the directory does not exist, or is not a storage.
/// - `Denied`: it may not be read.
pub(super) fn find(given: Option<&Path>, resolution: Resolution) -> Result<Storage> {
    let place = match given {
        Some(path) => Place { path: path.to_owned(), ..Place::default() },
        None => default_place()?,
    };
    let own = match given {
        Some(path) => default_place().ok().filter(|own| is_same(&own.path, path)),
        None => None,
    };
    let named_by = place.conf.as_ref().map(|conf| format!(" (graphroot of {})", conf.display())).unwrap_or_default();
    let label = format!("containers-storage {}{named_by}", place.path.display());
    let mut storage = search(&place.path, &label, resolution)?;
    storage.is_whole = given.is_none() || own.is_some();
    let place = own.unwrap_or(place);
    for (path, named_by) in place.image_stores {
        let label = format!("containers-storage {} ({named_by})", path.display());
        match search(&path, &label, resolution) {
            Ok(found) => {
                storage.drivers.extend(found.drivers);
                storage.unsupported.extend(found.unsupported);
            }
            Err(error) => storage.unread.push(error),
        }
    }
    storage.put_first(place.driver);
    Ok(storage)
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Lists the storage drivers of the directory `root`.
fn search(root: &Path, label: &str, resolution: Resolution) -> Result<Storage> {
    let open = || Rooted::open(root, resolution);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::not_found(format!("{label}: the directory does not exist; name another one with --src-root"))
        }
        _ => with_owner_hint(Error::reading(root.display(), error)),
    };
    let names = open().map_err(failed)?.names(MAX_ENTRIES).map_err(with_owner_hint)?;
    let names: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let mut storage =
        Storage { label: label.to_owned(), drivers: vec![], unsupported: vec![], unread: vec![], is_whole: false };
    // If there is an imagestore, the graphroot has only the tar-splits of layers.
    let drivers = |name: &String| name.strip_suffix("-images").or(name.strip_suffix("-layers")).map(str::to_owned);
    for name in names.iter().filter_map(drivers).collect::<BTreeSet<String>>() {
        match FORMS.iter().find(|form| form.name == name) {
            Some(form) => storage.drivers.push(Driver::new(open().map_err(failed)?, form)),
            None => storage.unsupported.push(name),
        }
    }
    let is_storage = names.iter().any(|name| SIGNS.contains(&&**name) || drivers(name).is_some());
    match is_storage {
        true => Ok(storage),
        false => Err(not_a_storage(root, label)),
    }
}

fn not_a_storage(root: &Path, label: &str) -> Error {
    let inner = root.join("var/lib/containers/storage");
    let hint = match inner.is_dir() {
        true => format!("name {} with --src-root", inner.display()),
        false => "name the storage (usually var/lib/containers/storage on its disk) with --src-root".to_owned(),
    };
    Error::not_found(format!(
        "{label}: it is not a storage of podman, CRI-O or buildah: it has none of its files; {hint}"
    ))
}

impl Storage {
    /// Puts the storage driver in use first: `configured`, else the one that was used last.
    fn put_first(&mut self, configured: Option<String>) {
        let newest =
            || self.drivers.iter().max_by_key(|driver| driver.changed()).map(|driver| driver.name().to_owned());
        let configured = configured.filter(|name| self.drivers.iter().any(|driver| driver.name() == name));
        if let Some(used) = configured.or_else(newest) {
            self.drivers.sort_by_key(|driver| driver.name() != used);
        }
    }

    /// The error for a storage without a driver that imgmv reads.
    pub fn nothing(&self) -> Error {
        let label = &self.label;
        match self.unsupported.is_empty() {
            true => Error::not_found(format!("{label} has no image: nothing was ever stored there")),
            false => Error::not_found(format!(
                "{label} has images of the storage driver {}, of which imgmv cannot read the layers; use podman save there",
                some_of(&self.unsupported)
            )),
        }
    }
}

/// The storage of this user, as containers/storage finds it.
fn default_place() -> Result<Place> {
    let rooted_user = rustix::process::geteuid().is_root() && variable("_CONTAINERS_ROOTLESS_UID").is_none();
    if let Some(place) = variable("CONTAINERS_STORAGE_CONF").and_then(|conf| named(&conf, "graphroot")) {
        return Ok(place);
    }
    match rooted_user {
        true => Ok(system().unwrap_or_else(|| Place { path: ROOT.into(), ..system_image_stores() })),
        false => rootless(),
    }
}

/// The directory that the system's file names.
fn system() -> Option<Place> {
    let conf = SYSTEM_CONF.iter().map(Path::new).find(|conf| conf.is_file())?;
    named(conf, "graphroot")
}

fn rootless() -> Result<Place> {
    let home = variable("HOME");
    let below = |variable_name: &str, default: &str| {
        variable(variable_name).or_else(|| home.as_ref().map(|home| home.join(default)))
    };
    let own = below("XDG_CONFIG_HOME", ".config").map(|config| config.join("containers/storage.conf"));
    let own = own.and_then(|conf| named(&conf, "graphroot"));
    let system = || SYSTEM_CONF.iter().find_map(|conf| named(Path::new(conf), "rootless_storage_path"));
    let default = || {
        Some(Place {
            path: below("XDG_DATA_HOME", ".local/share")?.join("containers/storage"),
            ..system_image_stores()
        })
    };
    own.or_else(system).or_else(default).ok_or_else(|| {
        Error::not_found(
            "containers-storage: HOME is not set, so that this user's storage is unknown; name it with --src-root",
        )
    })
}

/// The further directories that the system's file names, for a storage whose directory it does not name.
fn system_image_stores() -> Place {
    let conf = SYSTEM_CONF.iter().map(Path::new).find(|conf| conf.is_file());
    let image_stores = conf.and_then(|conf| Some(image_stores(&StorageConf::read(conf)?, conf)));
    let driver = conf.and_then(|conf| StorageConf::read(conf)?.text("driver").map(str::to_owned));
    Place { image_stores: image_stores.unwrap_or_default(), driver, ..Place::default() }
}

/// The directory that the text `key` of `conf` names, and the further ones.
fn named(conf: &Path, key: &str) -> Option<Place> {
    let found = StorageConf::read(conf)?;
    let path = absolute(found.text(key)?)?;
    let driver = found.text("driver").map(str::to_owned);
    Some(Place { path, conf: Some(conf.to_owned()), driver, image_stores: image_stores(&found, conf) })
}

fn image_stores(found: &StorageConf, conf: &Path) -> Vec<(PathBuf, String)> {
    let named = |key: &'static str| {
        let paths = found.texts(key).filter_map(absolute);
        paths.map(move |path| (path, format!("{key} of {}", conf.display())))
    };
    IMAGE_STORES.into_iter().flat_map(named).take(MAX_IMAGE_STORES).collect()
}

/// The absolute path `text`. `$HOME` and `$UID` are replaced, as containers/storage does.
fn absolute(text: &str) -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let home = variable("HOME").unwrap_or_default();
    let path = text.replace("$HOME", home.to_str().unwrap_or_default()).replace("$UID", &uid);
    path.starts_with('/').then(|| path.into())
}

fn variable(name: &str) -> Option<PathBuf> {
    var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
