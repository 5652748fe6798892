//! Images out of engines on other hosts: through a real sshd where there are peers, and with a stand-in for ctr.

#[path = "support/engines.rs"]
mod engines;
#[path = "support/program.rs"]
mod program;
#[path = "support/sshd.rs"]
mod sshd;

use engines::{Kind, Peer};
use imgmv::internals::engine::{DetectedEngine, Engine, FetchStore, Loader, detect, save};
use imgmv::internals::layout::{BlobCheck, LayoutSink, LayoutStore};
use imgmv::internals::remote::{Host, Local, Running};
use imgmv::{
    Cancel, Digest, Event, Kind as Failure, Options, Platform, Report, Result, Selector, Silent, Sink, Source, Store,
    Watch, copy,
};
use program::{Output, fixture, imgmv};
use sshd::{Sshd, Way};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const NAME: &str = "docker.io/t/hello:1";
/// `fixtures/layout`'s `1`: its manifest and its config.
const HELLO: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const CONFIG: &str = "sha256:54e28c1bb2d5d187a1e809dd97d69756369d677b2d105af1678620f9383bd14e";

/// An archive of the image that every engine loads.
fn archive(dir: &Path) -> String {
    let file = dir.join("hello.tar").display().to_string();
    let made = imgmv(&["copy", &format!("oci:{}:1", fixture("layout")), &file, "--as", NAME], None);
    assert!(made.status.success(), "{}", made.stderr);
    file
}

fn load(peer: &Peer, dir: &Path) {
    let file = archive(dir);
    match peer.kind.engine() {
        Engine::Ctr | Engine::Nerdctl => peer.client(&["images", "import", &file]),
        Engine::Docker | Engine::Podman => peer.client(&["load", "-i", &file]),
    };
}

fn source(host: Arc<dyn Host>, engine: Engine, watch: Arc<dyn Watch>) -> Result<Source> {
    let found = detect(&*host, &[engine], None, None)?;
    Ok(match FetchStore::open(host.clone(), &found, watch, &Cancel::default())? {
        Some(store) => Source::Store(Arc::new(store)),
        None => Source::Stream(Box::new(save(host, &found, &[NAME.to_owned()])?.stream())),
    })
}

fn to_layout(source: Source, layout: &Path) -> Result<Report> {
    let sink = LayoutSink::open(layout, BlobCheck::Size, Arc::new(Silent))?;
    let options = Options { selectors: vec![Selector::Name(NAME.to_owned())], ..Options::default() };
    copy(source, &sink as &dyn Sink, &options, None, &Silent, &Cancel::default())
}

/// A host that counts the blobs that are fetched from it.
struct Counted(Arc<dyn Host>, AtomicUsize);

impl Host for Counted {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn run(&self, command: &[&str]) -> Result<Running> {
        self.1.fetch_add(usize::from(command.contains(&"get")), Ordering::SeqCst);
        self.0.run(command)
    }
}

#[test]
fn what_went_into_an_engine_comes_out_of_it_over_ssh() {
    for kind in Kind::ALL {
        let Some(peer) = Peer::start(kind) else { continue };
        let Some(sshd) = Sshd::start("", &peer.environment) else { return };
        let dir = TempDir::new().unwrap();
        load(&peer, dir.path());
        for way in Way::BOTH {
            let layout = dir.path().join(format!("{way:?}"));
            let source = source(sshd.host(way).unwrap().into(), kind.engine(), Arc::new(Silent)).unwrap();
            let report = to_layout(source, &layout).unwrap_or_else(|error| panic!("{kind:?} {way:?}: {error}"));
            let digest = report.images[0].digest;
            assert_eq!(report.images[0].names[0].as_str(), NAME, "{kind:?}");
            if matches!(kind, Kind::Containerd16 | Kind::Containerd21 | Kind::Docker28c) {
                assert_eq!(digest.to_string(), HELLO, "{kind:?}");
            }
            let manifest = fs::read_to_string(layout.join("blobs/sha256").join(digest.hex())).unwrap();
            assert!(manifest.contains(CONFIG), "{kind:?}: {manifest}");
        }
    }
}

#[test]
fn of_containerds_blobs_only_those_that_are_lacking_are_fetched() {
    for kind in [Kind::Containerd16, Kind::Containerd21] {
        let Some(peer) = Peer::start(kind) else { continue };
        let Some(sshd) = Sshd::start("", &peer.environment) else { return };
        let dir = TempDir::new().unwrap();
        load(&peer, dir.path());
        let layout = dir.path().join("layout");
        let host = Arc::new(Counted(sshd.host(Way::Client).unwrap().into(), AtomicUsize::new(0)));
        let fetched = || {
            let before = host.1.load(Ordering::SeqCst);
            let report = to_layout(source(host.clone(), Engine::Ctr, Arc::new(Silent)).unwrap(), &layout).unwrap();
            (report.transferred.blobs, host.1.load(Ordering::SeqCst) - before)
        };
        // The manifest is always looked at.
        assert_eq!(fetched(), (4, 5), "{kind:?}");
        assert_eq!(fetched(), (0, 1), "{kind:?}");
        fs::remove_file(layout.join("blobs/sha256").join(CONFIG.replace("sha256:", ""))).unwrap();
        fs::remove_file(layout.join("index.json")).unwrap();
        assert_eq!(fetched(), (1, 2), "{kind:?}");
    }
}

fn said(out: &Output) -> &str {
    assert!(out.status.success(), "{}", out.stderr);
    out.stdout.trim()
}

#[test]
fn the_program_lists_inspects_verifies_and_copies_what_another_host_has() {
    for kind in [Kind::Docker20, Kind::Containerd16, Kind::Podman4] {
        let (Some(peer), Some(other)) = (Peer::start(kind), Peer::start(Kind::Containerd16)) else { continue };
        let (Some(near), Some(far)) = (Sshd::start("", &peer.environment), Sshd::start("", &other.environment)) else {
            return;
        };
        near.client_config("");
        // The second host in the same configuration.
        let text = fs::read_to_string(near.at("home/.ssh/config")).unwrap();
        let second = format!(
            "Host node2\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
            far.port,
            far.at("home/.ssh/id_ed25519"),
            far.known_hosts()
        );
        let config = near.at("both");
        fs::write(&config, second + &text).unwrap();
        let dir = TempDir::new().unwrap();
        load(&peer, dir.path());
        let ssh = format!("ssh -F {config}");
        let on = |args: &[&str]| imgmv(&[args, &["--ssh", &ssh, "--src-engine", kind.engine().name()]].concat(), None);
        assert_eq!(said(&on(&["list", "ssh://node1"])), NAME, "{kind:?}");
        let place = format!("ssh://node1/{NAME}");
        let digest = said(&on(&["digest", &place])).to_owned();
        assert!(digest.contains("sha256:"), "{kind:?}: {digest}");
        assert!(said(&on(&["inspect", &place])).contains(CONFIG), "{kind:?}");
        said(&on(&["verify", &place]));
        let absent = on(&["copy", "ssh://node1/docker.io/t/absent:1", &dir.path().join("x.tar").display().to_string()]);
        assert_eq!(absent.status.code(), Some(3), "{kind:?}: {}", absent.stderr);
        // From host to host; the first byte that goes into a file would end it.
        let mut copy = program::command("prlimit");
        copy.args(["--fsize=0", "--core=0", env!("CARGO_BIN_EXE_imgmv"), "copy", &place, "ssh://node2", "--ssh", &ssh]);
        copy.args(["--src-engine", kind.engine().name(), "--engine", "ctr", "--namespace", "default"]);
        let copied = copy.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(copied.status.success(), "{kind:?}: {}", String::from_utf8_lossy(&copied.stderr));
        let name = other.client(&["images", "ls", "-q"]);
        assert!(name.contains("hello:1"), "{kind:?}: {name}");
    }
}

/// A ctr that gives what lies in a layout, and writes down what it was asked.
struct StandIn {
    dir: TempDir,
    found: DetectedEngine,
}

impl StandIn {
    fn new() -> StandIn {
        let dir = TempDir::new().unwrap();
        let copied =
            std::process::Command::new("cp").args(["-r", &fixture("layout")]).arg(dir.path().join("layout")).status();
        assert!(copied.unwrap().success());
        let stand_in = StandIn {
            found: DetectedEngine {
                loader: Loader::Ctr,
                argv: vec![dir.path().join("ctr").display().to_string()],
                namespace: Some("k8s.io".to_owned()),
                platform: Platform::new("linux", "amd64", None),
                version: None,
            },
            dir,
        };
        stand_in.gives(&format!("{NAME} application/vnd.oci.image.manifest.v1+json {HELLO} 1 KiB linux/amd64 -"), "");
        stand_in
    }

    /// `cut`: what is done with a blob's bytes.
    fn gives(&self, rows: &str, cut: &str) {
        let dir = self.dir.path().display();
        let cut = if cut.is_empty() { "cat" } else { cut };
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{dir}/asked\ncase \"$3 $4\" in\n\"images ls\") echo 'REF TYPE'; echo '{rows}';;\n\
             \"content ls\") ls {dir}/layout/blobs/sha256 | sed s/^/sha256:/;;\n\
             \"content get\") f={dir}/layout/blobs/sha256/${{5#sha256:}}; [ -e $f ] || {{ echo \"content digest $5: not found\" >&2; exit 1; }}; cat $f | {cut};;\n\
             *) exit 9;; esac\n"
        );
        fs::write(self.dir.path().join("ctr"), script).unwrap();
        fs::set_permissions(self.dir.path().join("ctr"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn store(&self, watch: Arc<dyn Watch>) -> Result<FetchStore> {
        let cancel = Cancel::default();
        let store = FetchStore::open(Arc::new(Local::new(&cancel)), &self.found, watch, &cancel)?;
        Ok(store.expect("it is ctr"))
    }

    fn copy(&self, watch: Arc<dyn Watch>) -> (Result<Report>, PathBuf) {
        let out = self.dir.path().join("out");
        (self.store(watch).and_then(|store| to_layout(Source::Store(Arc::new(store)), &out)), out)
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default()
    }
}

#[derive(Default)]
struct Retries(Mutex<Vec<String>>);

impl Watch for Retries {
    fn event(&self, event: Event<'_>) {
        if let Event::Retry { why, .. } = event {
            self.0.lock().unwrap().push(why.to_owned());
        }
    }
}

#[test]
fn a_blob_that_breaks_off_goes_on_at_its_byte() {
    let stand_in = StandIn::new();
    let row = format!("{NAME} application/vnd.oci.image.manifest.v1+json {HELLO} 1 KiB linux/amd64 -");
    // Each time 5,000 bytes more than what the reader has: the largest blob has 19,078.
    let dir = stand_in.dir.path().display();
    stand_in.gives(
        &row,
        &format!("{{ n=$(cat {dir}/n-$5 2>/dev/null || echo 0); n=$((n + 5000)); echo $n >{dir}/n-$5; head -c $n; }}"),
    );
    let retries = Arc::new(Retries::default());
    let (done, out) = stand_in.copy(retries.clone());
    done.unwrap();
    assert_eq!(retries.0.lock().unwrap().len(), 3, "{:?}", retries.0.lock().unwrap());
    let largest = stand_in.asked().lines().filter(|line| line.contains("content get")).count();
    assert_eq!(largest, 5 + 3);
    assert!(LayoutStore::open(&out).unwrap().roots(&[]).unwrap().len() == 1);
}

#[test]
fn a_blob_that_never_comes_ends_after_a_few_tries_and_names_its_byte() {
    let stand_in = StandIn::new();
    let row = format!("{NAME} application/vnd.oci.image.manifest.v1+json {HELLO} 1 KiB linux/amd64 -");
    stand_in.gives(&row, "head -c 1000");
    let (done, _) = stand_in.copy(Arc::new(Silent));
    let error = done.unwrap_err();
    assert_eq!(error.kind(), Failure::RemoteHost);
    assert!(error.to_string().contains("at byte 1000"), "{error}");
}

#[test]
fn a_layer_that_containerd_has_discarded_is_said() {
    let stand_in = StandIn::new();
    let manifest =
        fs::read_to_string(stand_in.dir.path().join("layout/blobs/sha256").join(HELLO.replace("sha256:", ""))).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap();
    fs::remove_file(stand_in.dir.path().join("layout/blobs/sha256").join(layer.replace("sha256:", ""))).unwrap();
    let error = stand_in.copy(Arc::new(Silent)).0.unwrap_err();
    assert!(error.to_string().contains("discard") && error.to_string().contains(layer), "{error}");
}

#[test]
fn what_a_host_says_is_hashed_and_its_names_are_data() {
    let stand_in = StandIn::new();
    let other = Digest::of(b"another manifest");
    for rows in [
        format!("$(touch x) application/vnd.oci.image.manifest.v1+json {HELLO} 1 KiB - -"),
        format!("{NAME} application/vnd.oci.image.manifest.v1+json $(touch${{IFS}}x) 1 KiB - -"),
        format!("{NAME} application/vnd.oci.image.manifest.v1+json {other} 1 KiB - -"),
    ] {
        stand_in.gives(&rows.replace('\'', ""), "");
        assert!(stand_in.copy(Arc::new(Silent)).0.is_err(), "{rows}");
    }
    assert!(!Path::new("x").exists() && !stand_in.dir.path().join("x").exists());
    // Wrong bytes under a right name.
    let blob = stand_in.dir.path().join("layout/blobs/sha256").join(CONFIG.replace("sha256:", ""));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[10] ^= 1;
    fs::write(&blob, bytes).unwrap();
    stand_in.gives(&format!("{NAME} application/vnd.oci.image.manifest.v1+json {HELLO} 1 KiB linux/amd64 -"), "");
    assert_eq!(stand_in.copy(Arc::new(Silent)).0.unwrap_err().kind(), Failure::Invalid);
}

#[test]
fn a_part_of_a_blob_is_fetched_from_its_offset() {
    let stand_in = StandIn::new();
    let store = stand_in.store(Arc::new(Silent)).unwrap();
    let root = store.roots(&[]).unwrap().remove(0);
    let manifest = imgmv::Manifest::parse(store.manifest(&root.descriptor).unwrap(), &root.descriptor).unwrap();
    let layer = &manifest.layers()[1];
    let mut rest = Vec::new();
    store.open(layer, 19_000).unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() as u64, layer.size - 19_000);
}

#[test]
fn nerdctls_images_are_read_by_the_ctr_beside_it_else_nerdctl_saves_them() {
    let stand_in = StandIn::new();
    let cancel = Cancel::default();
    let beside = stand_in.dir.path().display().to_string();
    let path = format!("{beside}:{}", std::env::var("PATH").unwrap());
    let nerdctl =
        DetectedEngine { loader: Loader::Nerdctl, argv: vec![format!("{beside}/nerdctl")], ..stand_in.found.clone() };
    let host: Arc<dyn Host> = Arc::new(Local::new(&cancel).with_env("PATH", &path));
    let store = FetchStore::open(host.clone(), &nerdctl, Arc::new(Silent), &cancel).unwrap();
    assert_eq!(store.unwrap().names().unwrap()[0].as_str(), NAME);
    assert!(stand_in.asked().starts_with("--namespace k8s.io images ls"), "{}", stand_in.asked());
    let archive = archive(stand_in.dir.path());
    let script = format!("#!/bin/sh\n[ \"$*\" = '--namespace k8s.io save {NAME}' ] && cat {archive}\n");
    fs::write(stand_in.dir.path().join("nerdctl"), script).unwrap();
    fs::set_permissions(stand_in.dir.path().join("nerdctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let stream = save(host, &nerdctl, &[NAME.to_owned()]).unwrap().stream();
    let report = to_layout(Source::Stream(Box::new(stream)), &stand_in.dir.path().join("saved")).unwrap();
    assert_eq!(report.images[0].digest.to_string(), HELLO);
}
