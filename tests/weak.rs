//! Weak lines: the program itself, through a proxy that misbehaves, and what goes over the wire meanwhile.

#[path = "support/mod.rs"]
mod support;

#[path = "weak/archives.rs"]
mod archives;
#[path = "weak/both.rs"]
mod both;
#[path = "weak/disk.rs"]
mod disk;
#[path = "weak/far.rs"]
mod far;
#[path = "weak/killed.rs"]
mod killed;
#[path = "weak/limit.rs"]
mod limit;
#[path = "weak/mirrors.rs"]
mod mirrors;
#[path = "weak/pull.rs"]
mod pull;
#[path = "weak/push.rs"]
mod push;
#[path = "weak/real.rs"]
mod real;
#[path = "weak/signatures.rs"]
mod signatures;
#[path = "weak/silent.rs"]
mod silent;

use imgmv::{Digest, Manifest};
use std::path::Path;
use support::fault_proxy::{Proxy, Seen};
use support::noise::noise;
use support::program::{Output, imgmv};
use support::registry::Double;
use tempfile::TempDir;

/// A registry with one image of one layer, a line to it, and a place for what is pulled.
struct Scene {
    double: Double,
    line: Proxy,
    dir: TempDir,
    image: Manifest,
    size: u64,
}

impl Scene {
    fn new(size: usize) -> Scene {
        let double = Double::start();
        let layer = noise(size as u64, size);
        let image = double.image("team/app", "1", &[&layer]);
        let line = Proxy::start(&double.host());
        Scene { double, line, dir: TempDir::new().unwrap(), image, size: size as u64 }
    }

    fn layer(&self) -> Digest {
        self.image.layers()[0].digest
    }

    fn layout(&self) -> std::path::PathBuf {
        self.dir.path().join("out")
    }

    /// One copy from the registry to a layout, through the line.
    fn pull(&self, options: &[&str]) -> Output {
        let (src, dst) = (format!("{}/team/app:1", self.line.host()), format!("oci:{}", self.layout().display()));
        imgmv(&[&["copy", &src, &dst], options].concat(), None)
    }

    /// Everything that asked for the layer.
    fn asked(&self) -> Vec<Seen> {
        self.line.seen("GET", &self.layer().to_string())
    }

    /// The image lies there, byte for byte, and nothing beside it.
    fn is_there(&self) {
        whole(&self.layout(), &self.image);
        assert_eq!(top(&self.layout()), ["blobs", "index.json", "oci-layout"]);
    }
}

fn whole(layout: &Path, image: &Manifest) {
    let blobs = image.blobs().iter().map(|blob| blob.digest).chain([image.digest()]).collect::<Vec<_>>();
    for digest in blobs {
        let found = std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!(Digest::of(&found), digest);
    }
    assert!(std::fs::read_to_string(layout.join("index.json")).unwrap().contains(&image.digest().to_string()));
}

fn top(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn good(out: Output) -> Output {
    assert_eq!(out.status.code(), Some(0), "{}", out.stderr);
    out
}
