//! The storage of podman, CRI-O and buildah as a source: made by hand, hostile, and of real podmans.

#[path = "containers_storage/hostile.rs"]
mod hostile;
#[path = "containers_storage/images.rs"]
mod images;
#[path = "support/memory.rs"]
mod memory;
#[path = "containers_storage/peers.rs"]
mod peers;
#[path = "containers_storage/roots.rs"]
mod roots;
#[path = "support/mod.rs"]
mod support;

use imgmv::internals::containers_storage::ContainersStorageStore;
use imgmv::internals::disk::Resolution;
use imgmv::{Cancel, Options, Report, Result, Selector, Silent, Source, copy};
use memory::{Kept, takes};
use std::path::Path;
use std::sync::Arc;
use support::docker_dir::tar_of;
use support::program::Output;
use support::storage_dir::StorageDir;

const BOTH: [Resolution; 2] = [Resolution::Kernel, Resolution::ByHand];

fn open(root: &Path, resolution: Resolution) -> Result<ContainersStorageStore> {
    ContainersStorageStore::open(Some(root), resolution, Arc::new(Silent))
}

fn by_name(name: &str) -> Selector {
    Selector::Name(name.to_owned())
}

/// Copies into memory, where everything is hashed.
fn take(store: ContainersStorageStore, selectors: &[Selector]) -> Result<(Kept, Report)> {
    let sink = Kept::new(takes());
    let options = Options { selectors: selectors.to_vec(), ..Options::default() };
    let report = copy(Source::Store(Arc::new(store)), &sink, &options, None, &Silent, &Cancel::default())?;
    Ok((sink, report))
}

/// Runs the program on the storage `root`; it has to succeed.
fn imgmv(root: &Path, arguments: &[&str]) -> Output {
    let done = try_imgmv(root, arguments);
    assert!(done.status.success(), "{arguments:?}: {}", done.stderr);
    done
}

fn try_imgmv(root: &Path, arguments: &[&str]) -> Output {
    let root = root.display().to_string();
    support::program::imgmv(&[arguments, &["--src-root", &root]].concat(), None)
}

/// One image of two layers, under `docker.io/t/app:1`. The first layer has `etc/passwd` and `etc/conf`.
fn app(driver: &'static str) -> StorageDir {
    let mut storage = StorageDir::new(driver);
    storage.add(&["docker.io/t/app:1"], &app_layers());
    storage
}

fn app_layers() -> [Vec<u8>; 2] {
    let passwd = std::fs::read("/etc/passwd").unwrap();
    [tar_of(&[("etc/passwd", &passwd), ("etc/conf", b"conf = 1\n")]), tar_of(&[("usr/bin/app", &[7; 300_000])])]
}
