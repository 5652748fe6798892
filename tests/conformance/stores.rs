//! The stores under test. A store is one line in `every_store`.

use crate::harness::{self, Except};
use crate::memory::tar;
use crate::registry_tree::RegistryTree;
use crate::sample::{BYE, HELLO, Sample};
use crate::support::containerd_stand_in::{self, StandIn, field};
use crate::support::docker_dir::DockerDir;
use crate::support::registry::Double;
use crate::support::storage_dir::StorageDir;
use imgmv::internals::archive::{Input, open};
use imgmv::internals::containerd::{Connection, ContainerdStore, Limits, LocalSocket, SocketStore};
use imgmv::internals::containers_storage::ContainersStorageStore;
use imgmv::internals::disk::Resolution;
use imgmv::internals::docker_dir::DockerDirStore;
use imgmv::internals::engine::{DetectedEngine, FetchStore, Loader};
use imgmv::internals::fanout::{FanoutLimits, SharedStore};
use imgmv::internals::image::media_type;
use imgmv::internals::layout::LayoutStore;
use imgmv::internals::rate_limit::{Limit, Limited};
use imgmv::internals::registry::{Access, ForeignStore, MirroredStore, Registry, RepositoryStore};
use imgmv::internals::registry_dir::RegistryDirStore;
use imgmv::internals::remote::Local;
use imgmv::internals::source::{Several, Wrapper};
use imgmv::internals::tarball::StreamedStore;
use imgmv::{
    ArchiveStream, Cancel, Descriptor, Digest, Error, Name, Platform, Result, Selector, Silent, Source, Store,
};
use std::any::Any;
use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A store with the images of a [`Sample`].
pub struct Case {
    pub store: Arc<dyn Store>,
    /// The images as this store has them.
    pub sample: Sample,
    /// The names in the store.
    pub hello: String,
    pub bye: String,
    /// A blob that the store can open.
    pub blob: Descriptor,
    /// The number of blobs and manifests that were read so far, where that can be counted.
    pub reads: Option<Box<dyn Fn() -> usize>>,
    _guard: Box<dyn Any>,
}

type Build = fn(Sample) -> Result<Case>;

const SYNTHESISED: Except = &[&[
    ("a_digest_selects_an_unnamed_manifest", "manifests are synthesised"),
    ("a_wrong_manifest_is_never_returned_as_right", "manifests are synthesised"),
    ("a_manifest_above_the_limit_is_refused", "manifests are synthesised"),
    ("names_do_not_read_manifests", "manifests are synthesised"),
]];
const REBUILT: Except = &[&[
    ("a_digest_selects_an_unnamed_manifest", "the manifest of an image has the layers of its config"),
    ("a_wrong_manifest_is_never_returned_as_right", "a damaged manifest is replaced by a synthesised one"),
    ("a_manifest_above_the_limit_is_refused", "only the manifests of images are read"),
    ("names_do_not_read_manifests", "manifests are synthesised"),
]];
const ONE_REPOSITORY: Except = &[&[
    ("an_ambiguous_name_is_usage", "tags are unique"),
    ("a_missing_name_lists_the_images", "a list costs requests"),
]];

/// One line for each store: its name, the promises that do not apply, its constructor.
fn every_store() -> Vec<(&'static str, Except, Build)> {
    vec![
        ("layout", &[], layout),
        ("archive, OCI form", &[], oci_archive),
        ("archive, docker-save form", SYNTHESISED, docker_archive),
        ("archive, both forms", &[&[("names_do_not_read_manifests", "compares both lists")]], both_forms),
        ("streamed archive's documents", &[&[("names_do_not_read_manifests", "all was read")]], streamed),
        ("containerd's directory", &[], containerd),
        ("containerd by ctr", &[], fetch),
        ("containerd by its socket", &[], containerd_socket),
        ("docker's directory, overlay2", SYNTHESISED, |sample| docker_dir(sample, "overlay2", Resolution::Kernel)),
        ("docker's directory, vfs", SYNTHESISED, |sample| docker_dir(sample, "vfs", Resolution::ByHand)),
        ("containers-storage, overlay", REBUILT, |sample| containers_storage(sample, "overlay", Resolution::Kernel)),
        ("containers-storage, vfs", REBUILT, |sample| containers_storage(sample, "vfs", Resolution::ByHand)),
        ("registry's tree", &[], registry_dir),
        ("registry", ONE_REPOSITORY, registry),
        ("registry, mirrored", ONE_REPOSITORY, mirrored),
        ("several stores", &[], several),
        ("foreign layers", &[], foreign),
        ("rate limit", &[], rate_limited),
        ("fan-out", &[], fan_out),
    ]
}

pub fn check(promise: &str, check: impl Fn(&Build)) {
    harness::check(promise, every_store(), check);
}

#[test]
fn exceptions_of_stores_name_promises() {
    let rows = every_store().into_iter().map(|(name, except, _)| (name, except));
    harness::names_promises(rows, &[include_str!("store_promises.rs")]);
}

fn case(sample: Sample, store: Arc<dyn Store>, guard: impl Any) -> Case {
    let [hello, bye] = [0, 1].map(|at| sample.memory.roots[at].name.as_ref().unwrap().to_string());
    let blob = sample.layer().clone();
    Case { store, sample, hello, bye, blob, reads: None, _guard: Box::new(guard) }
}

fn write(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn layout(sample: Sample) -> Result<Case> {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &sample.layout_files());
    Ok(case(sample, Arc::new(LayoutStore::open(dir.path())?), dir))
}

fn archive(sample: Sample, files: &[(String, Vec<u8>)]) -> Result<Case> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.tar");
    fs::write(&path, tar(files)).unwrap();
    match open(&Input::File(path), Arc::new(Silent))? {
        Source::Store(store) => Ok(case(sample, store, dir)),
        _ => Err(Error::failed("a plain tar in a file is not a store")),
    }
}

fn oci_archive(sample: Sample) -> Result<Case> {
    let files = sample.layout_files();
    archive(sample, &files)
}

fn both_forms(sample: Sample) -> Result<Case> {
    let mut files = sample.layout_files();
    files.push(sample.saved(|blob| blob.digest.blob_path()));
    archive(sample, &files)
}

fn docker_archive(sample: Sample) -> Result<Case> {
    let sample = sample.uncompressed();
    let path = |blob: &Descriptor| match blob.media_type == media_type::OCI_LAYER {
        true => format!("{}/layer.tar", blob.digest.hex()),
        false => format!("{}.json", blob.digest.hex()),
    };
    let blobs = sample.hello.blobs().into_iter().chain(sample.bye.blobs());
    let mut files: Vec<_> = blobs.map(|blob| (path(blob), sample.bytes(blob).to_vec())).collect();
    files.sort();
    files.dedup();
    files.push(sample.saved(path));
    let case = archive(sample, &files)?;
    // The old form's digests are known after the roots were asked for.
    case.store.roots(&[])?;
    Ok(case)
}

fn streamed(sample: Sample) -> Result<Case> {
    let mut stream = ArchiveStream::new(Box::new(Cursor::new(tar(&sample.layout_files()))), "a.tar");
    let mut blobs = std::collections::HashSet::new();
    assert!(stream.digests_known()?);
    while let Some(blob) = stream.next_blob()? {
        blobs.extend(blob.claim.digest);
    }
    let store = StreamedStore { summary: stream.finish()?, blobs };
    let config = sample.hello.config().unwrap().clone();
    Ok(Case { blob: config, ..case(sample, Arc::new(store), ()) })
}

/// The database of a real containerd, and the blobs that it lists.
fn containerd(sample: Sample) -> Result<Case> {
    let dir = TempDir::new().unwrap();
    let mut database = Vec::new();
    let compressed = fs::File::open("fixtures/bolt/ctr21.meta.db.gz").unwrap();
    flate2::read::GzDecoder::new(compressed).read_to_end(&mut database).unwrap();
    let blob = |(digest, bytes): (&Digest, &Vec<u8>)| {
        (format!("io.containerd.content.v1.content/{}", digest.blob_path()), bytes.clone())
    };
    let mut files: Vec<_> = sample.memory.blobs.iter().map(blob).collect();
    files.push(("io.containerd.metadata.v1.bolt/meta.db".to_owned(), database));
    write(dir.path(), &files);
    Ok(case(sample, Arc::new(ContainerdStore::open(dir.path(), Some("default"))?), dir))
}

fn containerd_socket(sample: Sample) -> Result<Case> {
    let number = |value: u64| containerd_stand_in::number(3, value as i64);
    let target = |at: &Descriptor| {
        [field(1, at.media_type.as_bytes()), field(2, at.digest.to_string().as_bytes()), number(at.size)].concat()
    };
    let roots = &sample.memory.roots;
    let images = roots.iter().map(|root| (root.name.as_ref().unwrap().to_string(), target(&root.descriptor)));
    let blobs = sample.memory.blobs.iter().map(|(digest, bytes)| (digest.to_string(), bytes.clone()));
    let reads = Arc::new(AtomicUsize::new(0));
    let stand_in = StandIn::with_images(images.collect(), blobs.collect(), reads.clone());
    let limits = Limits { timeout: Duration::from_secs(30), rate: None, cancel: Cancel::default() };
    let socket = LocalSocket::new(&stand_in.socket().display().to_string());
    let connection = Arc::new(Connection::new(Box::new(socket), limits)?);
    let store = SocketStore::open(connection, None, Arc::new(Silent))?;
    let case = case(sample, Arc::new(store), stand_in);
    Ok(Case { reads: Some(Box::new(move || reads.load(Ordering::SeqCst))), ..case })
}

fn docker_dir(sample: Sample, driver: &'static str, resolution: Resolution) -> Result<Case> {
    let sample = sample.uncompressed();
    let mut docker = DockerDir::new(driver);
    for (name, image) in [("hello-imgmv:1", &sample.hello), ("bye-imgmv:1", &sample.bye)] {
        let layers: Vec<Vec<u8>> = image.layers().iter().map(|layer| sample.bytes(layer).to_vec()).collect();
        docker.add_config(&[name], sample.bytes(image.config().unwrap()), &layers);
    }
    let store = DockerDirStore::open(Some(docker.dir.path()), resolution, Arc::new(Silent))?;
    // Layers have their digests after the roots were asked for.
    store.roots(&[])?;
    Ok(case(sample, Arc::new(store), docker))
}

/// Manifests of uncompressed layers, which are kept.
fn containers_storage(sample: Sample, driver: &'static str, resolution: Resolution) -> Result<Case> {
    let sample = sample.uncompressed();
    let mut storage = StorageDir::new(driver);
    for (name, image) in [(HELLO, &sample.hello), (BYE, &sample.bye)] {
        let layers: Vec<Vec<u8>> = image.layers().iter().map(|layer| sample.bytes(layer).to_vec()).collect();
        let config = sample.bytes(image.config().unwrap());
        storage.add_image(&[name], config, &layers, std::slice::from_ref(&image.bytes));
    }
    let store = ContainersStorageStore::open(Some(storage.dir.path()), resolution, Arc::new(Silent))?;
    // Layers have their digests after the roots were asked for.
    store.roots(&[])?;
    Ok(case(sample, Arc::new(store), storage))
}

/// A tree with each image in a repository of its path.
fn registry_dir(mut sample: Sample) -> Result<Case> {
    let dir = TempDir::new().unwrap();
    let tree = RegistryTree::at(dir.path());
    for root in &mut sample.memory.roots {
        let name = root.name.take().unwrap().reference().unwrap();
        let tag = name.tag.unwrap();
        tree.put_tag(&name.repository, &tag, &root.descriptor.digest);
        for (digest, bytes) in &sample.memory.blobs {
            match sample.manifests.contains(digest) {
                true => tree.put_manifest(&name.repository, digest, bytes),
                false => tree.put_layer(&name.repository, digest, bytes),
            }
        }
        let link = tree.revision_link(&name.repository, &root.descriptor.digest);
        crate::registry_tree::write(&link, root.descriptor.digest.to_string().as_bytes());
        root.name = Some(Name::new(format!("localhost/{}:{tag}", name.repository)).unwrap());
    }
    Ok(case(sample, Arc::new(RegistryDirStore::open(dir.path())?), dir))
}

/// A script in place of ctr, over a directory.
fn fetch(sample: Sample) -> Result<Case> {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &sample.layout_files());
    let at = dir.path().display();
    let rows: Vec<String> = sample
        .memory
        .roots
        .iter()
        .map(|root| {
            let (name, digest) = (root.name.as_ref().unwrap(), root.descriptor.digest);
            format!("{name} {} {digest} 1 KiB linux/amd64 -", media_type::OCI_MANIFEST)
        })
        .collect();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{at}/log\ncase \"$3 $4\" in\n\"images ls\") echo 'REF TYPE'; echo '{}';;\n\
         \"content ls\") ls {at}/blobs/sha256 | sed s/^/sha256:/;;\n\
         \"content get\") f={at}/blobs/sha256/${{5#sha256:}}\n\
         [ -e $f ] || {{ echo \"ctr: content digest $5: not found\" >&2; exit 1; }}; cat $f;;\n*) exit 9;; esac\n",
        rows.join("\n")
    );
    let ctr = dir.path().join("ctr");
    fs::write(&ctr, script).unwrap();
    fs::set_permissions(&ctr, fs::Permissions::from_mode(0o755)).unwrap();
    let found = DetectedEngine {
        loader: Loader::Ctr,
        argv: vec![ctr.display().to_string()],
        namespace: Some("k8s.io".to_owned()),
        platform: Platform::new("linux", "amd64", None),
        version: None,
    };
    let cancel = Cancel::default();
    let store = FetchStore::open(Arc::new(Local::new(&cancel)), &found, Arc::new(Silent), &cancel)?;
    let log = dir.path().join("log");
    let reads = move || fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("content get")).count();
    Ok(Case { reads: Some(Box::new(reads)), ..case(sample, Arc::new(store.expect("ctr was detected")), dir) })
}

/// Access that reads no files of the user.
pub fn access() -> Access {
    Access {
        authfile: Some("/nonexistent/auth.json".into()),
        certs_dirs: Vec::new(),
        retry_pause: Duration::from_millis(1),
        ..Access::default()
    }
}

const REPOSITORY: &str = "t/app";

/// A registry in memory, with the images under the tags `hello` and `bye`.
fn double(sample: &mut Sample) -> (Double, RepositoryStore) {
    let double = Double::start();
    for (digest, bytes) in &sample.memory.blobs {
        match sample.manifests.contains(digest) {
            true => double.put_manifest_at(REPOSITORY, *digest, media_type::OCI_MANIFEST, bytes),
            false => double.put_blob_at(REPOSITORY, *digest, bytes),
        }
    }
    for (root, tag) in sample.memory.roots.iter_mut().zip(["hello", "bye"]) {
        double.tag_as(REPOSITORY, tag, root.descriptor.digest);
        root.name = Some(Name::new(format!("{}/{REPOSITORY}:{tag}", double.host())).unwrap());
    }
    let registry = Registry::new(&double.host(), access(), Arc::new(Silent), Cancel::default()).unwrap();
    let store = registry.repository(REPOSITORY);
    (double, store)
}

fn registry(mut sample: Sample) -> Result<Case> {
    let (double, store) = double(&mut sample);
    let double = Arc::new(double);
    let counted = double.clone();
    let reads = move || counted.count("GET", "/blobs/") + counted.count("GET", "/manifests/");
    Ok(Case { reads: Some(Box::new(reads)), ..case(sample, Arc::new(store), double) })
}

/// A mirror that has all blobs, and the registry.
fn mirrored(mut sample: Sample) -> Result<Case> {
    let (mirror, at_mirror) = double(&mut sample);
    let (home, at_home) = double(&mut sample);
    let store = MirroredStore::new(at_home, vec![(at_mirror, true)], Arc::new(Silent), Cancel::default());
    Ok(case(sample, Arc::new(store), (mirror, home)))
}

/// Two layouts, each with one of the named images.
fn several(sample: Sample) -> Result<Case> {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for (dir, root) in dirs.iter().zip(&sample.memory.roots) {
        let mut part = sample.clone();
        part.memory.roots = vec![root.clone()];
        write(dir.path(), &part.layout_files());
        stores.push(Arc::new(LayoutStore::open(dir.path())?));
    }
    Ok(case(sample, Arc::new(Several::new(stores, Arc::new(Silent))), dirs))
}

fn foreign(sample: Sample) -> Result<Case> {
    let case = layout(sample)?;
    let store = Arc::new(ForeignStore::new(case.store.clone(), access(), &Cancel::default()));
    Ok(Case { store, ..case })
}

struct RateLimited(Arc<dyn Store>, Arc<Limit>);

impl Wrapper for RateLimited {
    fn wrapped(&self) -> &dyn Store {
        &*self.0
    }
    fn open_blob(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Limited::new(self.0.open(blob, from)?, Some(&self.1))))
    }
}

fn rate_limited(sample: Sample) -> Result<Case> {
    let case = layout(sample)?;
    let store = Arc::new(RateLimited(case.store.clone(), Limit::new(u64::MAX >> 1, &Cancel::default())));
    Ok(Case { store, ..case })
}

fn fan_out(sample: Sample) -> Result<Case> {
    let case = layout(sample)?;
    let shared = SharedStore::new(case.store.clone(), FanoutLimits::default(), &Cancel::default());
    Ok(Case { store: Arc::new(shared.subscribe()), ..case })
}

pub fn by_name(name: &str) -> Selector {
    Selector::Name(name.to_owned())
}
