//! containerd's directory as a source: off a disk, and while containerd is writing it.

#[path = "support/memory.rs"]
mod memory;

use imgmv::internals::containerd::{ContainerdStore, images_in};
use imgmv::{Cancel, Digest, Kind, Manifest, Name, Options, Report, Result, Selector, Silent, Source, Store, copy};
use memory::{Kept, takes};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

const HELLO: &str = "docker.io/library/hello-imgmv:1";
const BYE: &str = "docker.io/library/bye-imgmv:1";
const BLOBS: &str = "io.containerd.content.v1.content/blobs/sha256";
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// A containerd directory put together of a database that containerd left and the blobs that it names.
fn disk(database: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in [BLOBS, "io.containerd.metadata.v1.bolt"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for blob in fs::read_dir("fixtures/layout/blobs/sha256").unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), dir.path().join(BLOBS).join(blob.file_name())).unwrap();
    }
    let packed = fs::File::open(format!("fixtures/bolt/{database}.meta.db.gz")).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    fs::write(dir.path().join(DATABASE), bytes).unwrap();
    dir
}

fn open(dir: &Path, namespace: Option<&str>) -> Result<ContainerdStore> {
    ContainerdStore::open(dir, namespace)
}

fn named(names: &[&str]) -> Vec<Selector> {
    names.iter().map(|name| Selector::Name(name.to_string())).collect()
}

/// Copies into memory, where everything is hashed.
fn take(store: ContainerdStore, selectors: Vec<Selector>) -> Result<(Kept, Report)> {
    let sink = Kept::new(takes());
    let options = Options { selectors, ..Options::default() };
    let report = copy(Source::Store(Arc::new(store)), &sink, &options, None, &Silent, &Cancel::default())?;
    Ok((sink, report))
}

fn names(store: &ContainerdStore) -> Vec<String> {
    store.names().unwrap().iter().map(Name::to_string).collect()
}

fn blob(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(BLOBS).join(digest.hex())
}

/// Digests of an image's layers.
fn layers(store: &ContainerdStore, name: &str) -> Vec<Digest> {
    let root = store.roots(&named(&[name])).unwrap().remove(0).descriptor;
    let manifest = Manifest::parse(store.manifest(&root).unwrap(), &root).unwrap();
    manifest.layers().iter().map(|layer| layer.digest).collect()
}

#[test]
fn images_come_off_a_dead_disk() {
    for database in ["ctr16", "ctr21"] {
        let dir = disk(database);
        let store = open(dir.path(), Some("default")).unwrap();
        assert_eq!(store.namespaces(), ["default", "k8s.io"], "{database}");
        assert_eq!(names(&store), [BYE, HELLO]);
        let (sink, report) = take(store, vec![]).unwrap();
        assert_eq!((report.images.len(), report.transferred.blobs), (2, 6));
        let state = sink.state();
        assert_eq!(state.names[HELLO], Digest::of(&state.blobs[&state.names[HELLO]]));
        assert_eq!(state.names.len(), 2);
    }
}

#[test]
fn a_name_is_looked_for_in_every_namespace_unless_one_is_given() {
    let dir = disk("ctr16");
    for (namespace, asked) in [(None, "hello-imgmv:1"), (None, BYE), (Some("k8s.io"), HELLO)] {
        let roots = open(dir.path(), namespace).unwrap().roots(&named(&[asked])).unwrap();
        assert_eq!(roots.len(), 1);
    }
    let lacking = open(dir.path(), Some("k8s.io")).unwrap().roots(&named(&[BYE])).unwrap_err();
    assert_eq!(lacking.kind(), Kind::NotFound);
    assert!(lacking.to_string().contains(HELLO), "{lacking}");
    let error = open(dir.path(), Some("nowhere")).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("default, k8s.io"), "{error}");
}

#[test]
fn a_name_that_differs_between_namespaces_has_to_be_told() {
    let dir = disk("ctr16");
    let path = dir.path().join(DATABASE);
    let mut bytes = fs::read(&path).unwrap();
    let [hello, bye] = [HELLO, BYE].map(|name| {
        let record = images_in(&bytes).unwrap().into_iter().find(|record| record.name == name).unwrap();
        record.target.digest.to_string()
    });
    // One of the places where `hello`'s digest stands is its record in one of the namespaces: that becomes `bye`'s.
    let places: Vec<usize> =
        bytes.windows(hello.len()).enumerate().filter(|(_, w)| *w == hello.as_bytes()).map(|(at, _)| at).collect();
    let differs = places.into_iter().any(|at| {
        bytes[at..at + bye.len()].copy_from_slice(bye.as_bytes());
        let records = images_in(&bytes).unwrap();
        let of = |namespace: &str| {
            records.iter().find(|r| r.namespace == namespace && r.name == HELLO).map(|r| r.target.digest)
        };
        let found = of("default") != of("k8s.io");
        if !found {
            bytes[at..at + hello.len()].copy_from_slice(hello.as_bytes());
        }
        found
    });
    assert!(differs);
    fs::write(&path, bytes).unwrap();
    let error = open(dir.path(), None).unwrap().roots(&named(&[HELLO])).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("default (sha256:"), "{error}");
    assert!(error.to_string().contains("--src-namespace"), "{error}");
    assert!(open(dir.path(), Some("k8s.io")).unwrap().roots(&named(&[HELLO])).is_ok());
    assert!(open(dir.path(), None).unwrap().roots(&named(&[BYE])).is_ok());
}

#[test]
fn layers_that_were_discarded_are_said_to_be() {
    let dir = disk("ctr21");
    let store = open(dir.path(), Some("default")).unwrap();
    let layer = layers(&store, HELLO).remove(1);
    drop(store);
    fs::remove_file(blob(dir.path(), &layer)).unwrap();
    let error = take(open(dir.path(), Some("default")).unwrap(), named(&[HELLO])).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    for word in ["discard_unpacked_layers", "ctr -n default content fetch", &layer.to_string()] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn blobs_that_are_collected_after_the_plan_still_arrive() {
    let dir = disk("ctr16");
    let store = open(dir.path(), Some("default")).unwrap();
    let root = store.roots(&named(&[HELLO])).unwrap().remove(0).descriptor;
    let manifest = Manifest::parse(store.manifest(&root).unwrap(), &root).unwrap();
    fs::remove_dir_all(dir.path().join(BLOBS)).unwrap();
    for blob in manifest.blobs() {
        for from in [0, blob.size / 2] {
            let mut bytes = Vec::new();
            store.open(blob, from).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, blob.size - from);
            assert!(from > 0 || Digest::of(&bytes) == blob.digest);
        }
    }
}

#[test]
fn what_is_not_containerds_is_said_to_be_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |kind: Kind, says: &str| {
        let error = open(&dir.path().join("root"), None).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    fails(Kind::NotFound, "--src-root");
    let database = dir.path().join("root").join(DATABASE);
    fs::create_dir_all(database.parent().unwrap()).unwrap();
    fails(Kind::Invalid, "is not containerd's directory");
    fs::write(&database, vec![7; 100_000]).unwrap();
    fails(Kind::Invalid, "not a bolt database");
    fs::remove_file(&database).unwrap();
    symlink("/etc/passwd", &database).unwrap();
    fails(Kind::Invalid, "symbolic link");
}

#[test]
fn a_blob_that_is_a_link_is_not_followed() {
    let dir = disk("ctr16");
    let layer = layers(&open(dir.path(), None).unwrap(), HELLO).remove(0);
    fs::remove_file(blob(dir.path(), &layer)).unwrap();
    symlink("/dev/zero", blob(dir.path(), &layer)).unwrap();
    let error = take(open(dir.path(), None).unwrap(), named(&[HELLO])).err().unwrap();
    assert!(error.to_string().contains("symbolic link"), "{error}");
}

/// Whether the peers are here; a run that must have them fails without.
fn peers(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = |program: &&&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    match programs.iter().find(|program| !here(program)) {
        Some(lacking) => {
            assert_ne!(std::env::var("IMGMV_REQUIRE_PEERS").as_deref(), Ok("1"), "no {lacking} on PATH");
            println!("skipped: no {lacking} on PATH");
            false
        }
        // containerd does not start for anyone else.
        None if !rustix::process::geteuid().is_root() => {
            println!("skipped: containerd wants root");
            false
        }
        None => true,
    }
}

/// A containerd of the test's own.
struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
    ctr: &'static str,
}

impl Daemon {
    fn start(containerd: &str, ctr: &'static str) -> Daemon {
        // Not under the usual place for temporary files when that is deep: a socket's path is short.
        let dir = tempfile::Builder::new().prefix("ctr").tempdir_in("/tmp").unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n[grpc]\n  address = \"{}\"\n",
            at("data"),
            at("state"),
            at("sock")
        );
        fs::write(at("config"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let arguments =
            ["--config", &at("config"), "--root", &at("data"), "--state", &at("state"), "--address", &at("sock")];
        let child = Command::new(containerd).args(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let daemon = Daemon { dir, child, ctr };
        for _ in 0..600 {
            if daemon.command(&["version"]).stderr(Stdio::null()).output().unwrap().status.success() {
                return daemon;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("{containerd} does not answer: {}", fs::read_to_string(daemon.dir.path().join("log")).unwrap());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.ctr);
        command.arg("-a").arg(self.dir.path().join("sock")).args(arguments);
        command
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn import(&self, namespace: &str, archive: &str) {
        self.ctr(&["-n", namespace, "images", "import", "--no-unpack", archive]);
    }

    fn open(&self, namespace: Option<&str>) -> ContainerdStore {
        open(&self.dir.path().join("data"), namespace).unwrap()
    }

    /// Name and digest of every image, as ctr lists them.
    fn images(&self, namespace: &str) -> Vec<(String, String)> {
        let lines = self.ctr(&["-n", namespace, "images", "ls"]);
        let words = lines.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.map(|words| (words[0].to_owned(), words[2].to_owned())).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn read(store: &ContainerdStore, namespace: &str) -> Vec<(String, String)> {
    let of = store.records().iter().filter(|record| record.namespace == namespace);
    of.map(|record| (record.name.clone(), record.target.digest.to_string())).collect()
}

fn live(containerd: &str, ctr: &'static str) {
    if !peers(&[containerd, ctr]) {
        return;
    }
    let daemon = Daemon::start(containerd, ctr);
    daemon.import("default", "fixtures/hello-ctr16.tar");
    daemon.import("default", "fixtures/two-images-ctr21.tar");
    daemon.import("other", "fixtures/hello-ctr21-v2s2.tar");
    for namespace in ["default", "other"] {
        assert_eq!(read(&daemon.open(None), namespace), daemon.images(namespace));
        assert_eq!(read(&daemon.open(Some(namespace)), namespace), daemon.images(namespace));
    }
    let (sink, _) = take(daemon.open(Some("default")), vec![]).unwrap();
    let content = daemon.ctr(&["-n", "default", "content", "ls", "-q"]);
    assert!(sink.state().blobs.keys().all(|digest| content.contains(&digest.to_string())));

    // What CRI would call it is no name of its own, and is found.
    let id = format!("sha256:{}", "5".repeat(64));
    daemon.ctr(&["-n", "other", "images", "tag", &daemon.images("other")[0].0, &id]);
    let store = daemon.open(Some("other"));
    assert_eq!((names(&store).len(), store.records().len(), store.roots(&[]).unwrap().len()), (1, 2, 1));
    assert_eq!(store.roots(&named(&[&id])).unwrap()[0].descriptor, store.roots(&[]).unwrap()[0].descriptor);

    // Names come and go while it is read: what stays is there each time, and no name leads anywhere else.
    let stays = daemon.images("default");
    let digests: Vec<&String> = stays.iter().map(|(_, digest)| digest).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..12 {
                let name = format!("docker.io/library/{}:{round}", "long-".repeat(round % 7 * 3) + "name");
                daemon.ctr(&["-n", "default", "images", "tag", &stays[0].0, &name]);
                daemon.import(&format!("n{}", round % 5), "fixtures/hello-ctr16.tar");
                if round % 3 > 0 {
                    daemon.ctr(&["-n", "default", "images", "rm", &name]);
                }
            }
        });
        let mut readings = 0;
        while !writer.is_finished() {
            let found = read(&daemon.open(None), "default");
            assert!(stays.iter().all(|image| found.contains(image)));
            assert!(found.iter().all(|(_, digest)| digests.contains(&digest)));
            readings += 1;
            sleep(Duration::from_millis(1));
        }
        assert!(readings > 0);
        writer.join().unwrap();
    });
    assert_eq!(read(&daemon.open(None), "default"), daemon.images("default"));

    // A layer that is taken away, as discarding does.
    let layer = layers(&daemon.open(Some("other")), &daemon.images("other")[0].0).remove(0);
    for namespace in daemon.ctr(&["namespaces", "ls", "-q"]).lines() {
        let _ = daemon.command(&["-n", namespace, "content", "rm", &layer.to_string()]).output().unwrap();
    }
    let gone = || !blob(&daemon.dir.path().join("data"), &layer).exists();
    for _ in 0..200 {
        if gone() {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    assert!(gone());
    let error = take(daemon.open(Some("other")), vec![]).err().unwrap();
    assert!(error.to_string().contains("discard_unpacked_layers"), "{error}");
}

#[test]
fn a_running_containerd_is_read_as_ctr_lists_it() {
    live("containerd", "ctr");
}

#[test]
fn a_newer_running_containerd_is_read_as_ctr_lists_it() {
    live("containerd-new", "ctr-new");
}
