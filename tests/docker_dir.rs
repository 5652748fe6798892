//! docker's own directory as a source: made by hand, hostile, and of real dockers.

#[path = "docker_dir/hostile.rs"]
mod hostile;
#[path = "docker_dir/images.rs"]
mod images;
#[path = "support/memory.rs"]
mod memory;
#[path = "docker_dir/peers.rs"]
mod peers;
#[path = "docker_dir/roots.rs"]
mod roots;
#[path = "support/mod.rs"]
mod support;

use imgmv::internals::disk::Resolution;
use imgmv::internals::docker_dir::DockerDirStore;
use imgmv::{Cancel, Options, Report, Result, Selector, Silent, Source, copy};
use memory::{Kept, takes};
use std::path::Path;
use std::sync::Arc;
use support::docker_dir::{DockerDir, tar_of};
use support::program::Output;

const BOTH: [Resolution; 2] = [Resolution::Kernel, Resolution::ByHand];

fn open(root: &Path, resolution: Resolution) -> Result<DockerDirStore> {
    DockerDirStore::open(Some(root), resolution, Arc::new(Silent))
}

fn by_name(name: &str) -> Selector {
    Selector::Name(name.to_owned())
}

/// Copies into memory, where everything is hashed.
fn take(store: DockerDirStore, selectors: &[Selector]) -> Result<(Kept, Report)> {
    let sink = Kept::new(takes());
    let options = Options { selectors: selectors.to_vec(), ..Options::default() };
    let report = copy(Source::Store(Arc::new(store)), &sink, &options, None, &Silent, &Cancel::default())?;
    Ok((sink, report))
}

/// Runs the program on the directory `root`; it has to succeed.
fn imgmv(root: &Path, arguments: &[&str]) -> Output {
    let done = try_imgmv(root, arguments);
    assert!(done.status.success(), "{arguments:?}: {}", done.stderr);
    done
}

fn try_imgmv(root: &Path, arguments: &[&str]) -> Output {
    let root = root.display().to_string();
    support::program::imgmv(&[arguments, &["--src-root", &root]].concat(), None)
}

/// One image of two layers, under `t/app:1`. The first layer has `etc/passwd` and `etc/conf`.
fn app(driver: &'static str) -> DockerDir {
    let mut docker = DockerDir::new(driver);
    docker.add(&["t/app:1"], &app_layers());
    docker
}

fn app_layers() -> [Vec<u8>; 2] {
    let passwd = std::fs::read("/etc/passwd").unwrap();
    [tar_of(&[("etc/passwd", &passwd), ("etc/conf", b"conf = 1\n")]), tar_of(&[("usr/bin/app", &[7; 300_000])])]
}
