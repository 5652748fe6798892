//! A registry's storage tree as a source and a destination: promises, hostile trees, kills, and the real registry.

mod damaged;
mod gone;
mod hostile;
mod killed;
mod links;
#[path = "../support/memory.rs"]
mod memory;
mod owner;
mod peers;
mod read;
mod recipes;
mod referrers;
#[path = "../support/registry_tree.rs"]
mod registry_tree;
#[path = "../support/mod.rs"]
mod support;
mod write;

use imgmv::internals::image::{Algorithm, media_type};
use imgmv::internals::layout::BlobCheck;
use imgmv::internals::registry_dir::{RegistryDirSink, RegistryDirStore};
use imgmv::{
    Cancel, Compress, Descriptor, Digest, Error, Event, Hasher, Kind, Manifest, Name, Options, ReferrerList, Report,
    Result, Selector, Silent, Sink, Source, Store, Watch, copy,
};
use memory::{Memory, layer};
use registry_tree::{RegistryTree, write as write_file};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// The messages that were sent.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Watch for Told {
    fn event(&self, event: Event<'_>) {
        if let Event::Info(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// A `rootdirectory` that goes with the test.
struct Dir {
    dir: TempDir,
    tree: RegistryTree,
}

impl Dir {
    fn new() -> Dir {
        let dir = TempDir::new().unwrap();
        let tree = RegistryTree::at(&dir.path().join("registry"));
        Dir { dir, tree }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sink(&self) -> RegistryDirSink {
        RegistryDirSink::open(self.tree.root(), BlobCheck::Size, Arc::new(Silent)).unwrap()
    }

    fn store(&self) -> RegistryDirStore {
        RegistryDirStore::open(self.tree.root()).unwrap()
    }

    fn put(&self, memory: &Memory) -> Result<Report> {
        put(Arc::new(memory.clone()), &self.sink())
    }

    /// The address of the tree with `reference` behind it.
    fn address(&self, reference: &str) -> String {
        let root = self.tree.root().display();
        if reference.is_empty() { format!("registry-dir:{root}") } else { format!("registry-dir:{root}:{reference}") }
    }
}

/// Copies everything, with its bytes unchanged.
fn put(store: Arc<dyn Store>, sink: &dyn Sink) -> Result<Report> {
    let options = Options { compress: Compress::Keep, ..Options::default() };
    copy(Source::Store(store), sink, &options, None, &Silent, &Cancel::default())
}

/// An index of two images under `quay.io/t/multi:1`, and one image under `docker.io/library/app:2`.
fn sample() -> Memory {
    let mut memory = Memory::default();
    let amd = memory.image("linux/amd64", &[layer(1, 300_000), layer(2, 2_000)]);
    let arm = memory.image("linux/arm64", &[layer(3, 5_000), layer(2, 2_000)]);
    let index = memory.index(&[amd.clone(), arm]);
    memory.name("quay.io/t/multi:1", &index);
    let other = memory.image("linux/amd64", &[layer(4, 1_000)]);
    memory.name("docker.io/library/app:2", &other);
    memory
}

/// An image with one layer of `size` bytes, under `name`.
fn one(seed: u8, size: usize, name: &str) -> Memory {
    let mut memory = Memory::default();
    let root = memory.image("linux/amd64", &[layer(seed, size)]);
    memory.name(name, &root);
    memory
}

/// The manifest of the image `nth`.
fn manifest(memory: &Memory, nth: usize) -> Manifest {
    let root = &memory.roots[nth].descriptor;
    Manifest::parse(memory.blobs[&root.digest].clone(), root).unwrap()
}

fn names(store: &dyn Store) -> Vec<String> {
    let mut names: Vec<String> = store.names().unwrap().iter().map(Name::to_string).collect();
    names.sort();
    names
}

fn by_name(name: &str) -> Selector {
    Selector::Name(name.to_owned())
}

/// The digest of the image that `text` selects.
fn selected(store: &dyn Store, text: &str) -> Result<Digest> {
    Ok(store.roots(&[by_name(text)])?.remove(0).descriptor.digest)
}
