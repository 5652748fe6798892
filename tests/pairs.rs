//! Every source into every sink, with the program itself and images that real tools wrote: what arrives is what
//! left, and it reads back.

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use support::engines::{Kind, Peer};
use support::program::{fixture, imgmv};
use support::shell::Shell;
use support::signing::{Signatures, sign};
use support::some_registry::Registry;
use support::sshd::Sshd;
use tempfile::TempDir;

/// The manifests that `fixtures/image.py` and the tools around it made.
const OCI_GZIP: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const INDEX: &str = "sha256:1e8da6cd7fd1d027d8c4b738aec76f1bf0686397fcc80da6e7a70db620d8aaf6";
/// podman packs layers anew.
const PODMAN: &str = "sha256:1385efb8720acec88c6dc21f2957e45dab8a7acb4e6d9ad3f068a5376bdde593";
/// podman's manifest of an archive that it loads: the layers are uncompressed, but labelled as compressed with gzip.
const PODMAN_LOADED: &str = "sha256:0ce2d058fc0c683c82bfc74ce3e5d810f7afd2da9b3204b9eacb72d04d17f1af";
/// Of the image with its layers unpacked: docker 28's own, and what is made for an archive that has none. Frozen, since
/// such a digest is known elsewhere from the day it is made. (The config, then base, text and whiteout as
/// fixtures/README.md has them, 10240, 40960 and 10240 bytes.)
const RAW: &str = "sha256:b5460fd902613226e30a3fd4108b565c8786729d7340208367cbbb74cc7bbcc1";
/// The same for the imitation of nix, whose image has the first layer twice.
const RAW_NIX: &str = "sha256:8be265d1068cd085cfac2553683a8ca283529e7e4fefa79a3bd7edf158adb940";

/// A source: how it is written on the command line, what is fed to standard input, and what it holds.
struct From {
    label: &'static str,
    words: Vec<String>,
    stdin: Option<String>,
    holds: Holds,
}

/// The manifest of a source's image.
#[derive(Clone, Copy)]
enum Holds {
    /// It stands in the source.
    Manifest(&'static str),
    /// It stands there, of layers that are not packed.
    Raw(&'static str),
    /// The source has none: this is what is made of its files.
    Files(&'static str),
    /// The same, of layers that are not packed.
    RawFiles(&'static str),
    /// It stands in the source, with what belongs to it: a referrer, and a manifest under cosign's tag.
    Signed(&'static str),
}

use Holds::{Files, Manifest, Raw, RawFiles, Signed};

impl Holds {
    fn digest(self) -> &'static str {
        match self {
            Manifest(digest) | Raw(digest) | Files(digest) | RawFiles(digest) | Signed(digest) => digest,
        }
    }

    fn is_raw(self) -> bool {
        matches!(self, Raw(_) | RawFiles(_))
    }
}

impl From {
    /// A stream whose manifest would have to be made: an engine gets it in its own form, and makes one itself.
    fn passes_as_it_is(&self) -> bool {
        let is_file = |word: &String| word.ends_with(".tar") || word.starts_with("docker-dir:");
        let streams = self.stdin.is_some() || !self.words.iter().any(is_file);
        streams && matches!(self.holds, Files(_) | RawFiles(_))
    }
}

fn sources(world: &World) -> Vec<From> {
    let from = |label, words: &[&str], holds| From {
        label,
        words: words.iter().map(|&word| word.to_owned()).collect(),
        stdin: None,
        holds,
    };
    let file = |label, name: &str, holds| from(label, &[&fixture(name)], holds);
    let piped = |label, name: &str, holds| From { stdin: Some(fixture(name)), ..from(label, &["-"], holds) };
    let registry = &world.registry.address;
    let directory = world.containerd.display().to_string();
    let mut sources = vec![
        from("layout", &[&format!("oci:{}:1", fixture("layout"))], Manifest(OCI_GZIP)),
        from("layout, index", &[&format!("oci:{}:1", fixture("multi"))], Manifest(INDEX)),
        from("registry", &[&format!("docker://{registry}/seed/hello:1")], Manifest(OCI_GZIP)),
        from("registry, index", &[&format!("docker://{registry}/seed/multi:1")], Manifest(INDEX)),
        from(
            "containerd's directory",
            &["--src-root", &directory, "--src-namespace", "default", "containerd:hello-imgmv:1"],
            Manifest(OCI_GZIP),
        ),
        file("oci-archive (skopeo)", "hello-skopeo-oci.tar", Manifest(OCI_GZIP)),
        file("oci-archive (podman)", "hello-podman-oci.tar", Manifest(PODMAN)),
        file("docker 20", "hello-docker20.tar", RawFiles(RAW)),
        file("docker 28", "hello-docker28.tar", Raw(RAW)),
        file("docker 28, containerd store", "hello-docker28c.tar", Manifest(OCI_GZIP)),
        file("ctr", "hello-ctr21.tar", Manifest(OCI_GZIP)),
        file("podman", "hello-podman-docker.tar", RawFiles(RAW)),
        file("crane", "hello-crane.tar", Files(OCI_GZIP)),
        file("like nix", "like-nix.tar.gz", RawFiles(RAW_NIX)),
        file("docker 20, gzip", "hello-docker20.tar.gz", RawFiles(RAW)),
        file("docker 20, zstd", "hello-docker20.tar.zst", RawFiles(RAW)),
        file("docker 20, xz", "hello-docker20.tar.xz", RawFiles(RAW)),
        file("docker 20, bzip2", "hello-docker20.tar.bz2", RawFiles(RAW)),
        piped("pipe: docker 20", "hello-docker20.tar", RawFiles(RAW)),
        piped("pipe: docker 20, gzip", "hello-docker20.tar.gz", RawFiles(RAW)),
        piped("pipe: docker 28", "hello-docker28.tar", Raw(RAW)),
        piped("pipe: docker 28, containerd store", "hello-docker28c.tar", Manifest(OCI_GZIP)),
        piped("pipe: podman", "hello-podman-docker.tar", RawFiles(RAW)),
        piped("pipe: crane", "hello-crane.tar", Files(OCI_GZIP)),
        piped("pipe: oci-archive", "hello-skopeo-oci.tar", Manifest(OCI_GZIP)),
    ];
    let signed = world.dir.path().join("signed").display().to_string();
    sources.extend([
        from("layout, signed", &[&format!("oci:{signed}:1")], Signed(INDEX)),
        from("registry, signed", &[&format!("docker://{registry}/seed/signed:1")], Signed(INDEX)),
        from("registry's tree, signed", &[&format!("registry-dir:{signed}.tree:seed/signed:1")], Signed(INDEX)),
        from("archive, signed", &[&format!("{signed}.tar")], Signed(INDEX)),
        From { stdin: Some(format!("{signed}.tar")), ..from("pipe: archive, signed", &["-"], Signed(INDEX)) },
    ]);
    let tree = world.dir.path().join("registry");
    if tree.exists() {
        let address = format!("registry-dir:{}:seed/hello:1", tree.display());
        sources.push(from("registry's tree", &[&address], Manifest(OCI_GZIP)));
        let address = format!("registry-dir:{}:seed/multi:1", tree.display());
        sources.push(from("registry's tree, index", &[&address], Manifest(INDEX)));
    }
    if world.docker.is_some() {
        sources.push(from("docker-daemon (28)", &["docker-daemon:seed:1"], Raw(RAW)));
    }
    if let Some(docker) = &world.docker {
        let root = docker.folder.path().join("data").display().to_string();
        sources.push(from("docker's directory (28)", &["--src-root", &root, "docker-dir:seed:1"], RawFiles(RAW)));
    }
    if let Some(podman) = &world.podman {
        let root = podman.folder.path().join("data").display().to_string();
        let words = ["--src-root", &root, "containers-storage:hello-imgmv:1"];
        sources.push(from("podman's storage (5)", &words, Manifest(PODMAN_LOADED)));
    }
    sources
}

/// A sink: its column's name, DST, and how it is read back.
enum To {
    /// As a source of imgmv.
    Place { label: &'static str, dst: String, back: String },
    /// An engine, which has it under this name. One that keeps manifests keeps them as they are.
    Engine { label: &'static str, dst: String, name: String, keeps_manifests: bool },
}

fn sinks(world: &World, number: usize) -> Vec<To> {
    let dir = world.dir.path().display();
    let place = |label, dst: String, back: String| To::Place { label, dst, back };
    let layout = format!("oci:{dir}/layout-{number}:new");
    let registry = format!("docker://{}/pairs/n{number}:new", world.registry.address);
    let tree = format!("registry-dir:{dir}/tree:pairs/n{number}:new");
    let archive = format!("{dir}/archive-{number}.tar");
    let oci = format!("{dir}/oci-{number}.tar");
    let mut sinks = vec![
        place("layout", layout.clone(), layout),
        place("archive", archive.clone(), archive),
        place("oci-archive", format!("oci-archive:{oci}:new"), oci),
        place("pipe", "-".to_owned(), format!("{dir}/pipe-{number}.tar")),
        place("registry", registry.clone(), registry),
        place("registry's tree", tree.clone(), tree),
    ];
    let name = format!("docker.io/t/n{number}:1");
    for (label, peer, scheme) in [
        ("docker-daemon", &world.docker, "docker-daemon:"),
        ("containerd", &world.ctr, "containerd:"),
        ("ssh", &world.far_docker, "ssh://node1/"),
    ] {
        if let Some(peer) = peer {
            let keeps_manifests = peer.kind != Kind::Docker28;
            sinks.push(To::Engine { label, dst: format!("{scheme}{name}"), name: name.clone(), keeps_manifests });
        }
    }
    sinks
}

/// Everything that a source or a sink needs, and a user to whom all of it is at hand.
struct World {
    dir: TempDir,
    registry: Registry,
    /// What belongs to the signed index.
    signatures: Signatures,
    containerd: PathBuf,
    docker: Option<Peer>,
    podman: Option<Peer>,
    ctr: Option<Peer>,
    far_docker: Option<Peer>,
    _far: Option<Sshd>,
    user: Shell,
}

impl World {
    fn new() -> World {
        let dir = TempDir::new().unwrap();
        let registry = Registry::start(dir.path());
        let containerd = containerd(dir.path());
        let [docker, podman, ctr, far_docker] =
            [Kind::Docker28, Kind::Podman5, Kind::Containerd21, Kind::Docker28c].map(Peer::start);
        if let Some(podman) = &podman {
            podman.client(&["load", "-q", "-i", &fixture("hello-docker20.tar")]);
        }
        let far = far_docker.as_ref().and_then(|peer| Sshd::start("", &peer.environment));
        let mut environment: Vec<(String, String)> = Vec::new();
        for peer in [&docker, &ctr].into_iter().flatten() {
            environment.extend(peer.environment.clone());
        }
        if let Some(far) = &far {
            far.client_config("");
            environment.push(("HOME".to_owned(), far.at("home")));
            environment
                .push(("IMGMV_SSH".to_owned(), format!("ssh -F {} -o BatchMode=yes", far.at("home/.ssh/config"))));
        }
        let user = Shell::with(&environment);
        let far_docker = far_docker.filter(|_| far.is_some());
        seed(&registry);
        let signatures = seed_signed(dir.path(), &registry);
        let world = World { dir, registry, signatures, containerd, docker, podman, ctr, far_docker, _far: far, user };
        if world.docker.is_some() {
            world.user.run("imgmv copy -q oci:$FIXTURES/layout:1 docker-daemon:seed:1");
        }
        world
    }

    fn engine(&self, label: &str) -> &Peer {
        let peer = match label {
            "docker-daemon" => &self.docker,
            "containerd" => &self.ctr,
            _ => &self.far_docker,
        };
        peer.as_ref().expect("a column only where there is one")
    }

    /// Copies, and answers what became of the manifest, as a word of the table.
    fn pair(&self, from: &From, to: &To, packed: &mut Option<String>) -> &'static str {
        let label = match to {
            To::Place { label, .. } | To::Engine { label, .. } => label,
        };
        let what = format!("{} to {label}", from.label);
        let (dst, into) = match to {
            To::Place { dst, back, .. } if dst == "-" => (dst, format!(" >{back}")),
            To::Place { dst, .. } | To::Engine { dst, .. } => (dst, String::new()),
        };
        let input = from.stdin.as_ref().map(|file| format!("cat {file} | ")).unwrap_or_default();
        self.user.run(&format!("{input}imgmv copy -q {} {dst}{into}", from.words.join(" ")));
        let word = match from.holds {
            Manifest(_) | Raw(_) | Signed(_) => "kept",
            Files(_) | RawFiles(_) => "made",
        };
        match to {
            To::Place { back, .. } => {
                let verified = self.user.run(&format!("imgmv verify -q {back}"));
                let found = verified.rsplit('@').next().and_then(|rest| rest.split(' ').next()).unwrap_or_default();
                if label.starts_with("registry") && from.holds.is_raw() {
                    assert_ne!(found, from.holds.digest(), "{what}");
                    // Packed by the same recipe, the same layers are the same image wherever they came from.
                    if from.holds.digest() == RAW {
                        assert_eq!(*packed.get_or_insert(found.to_owned()), found, "{what}");
                    }
                    return "packed";
                }
                assert_eq!(found, from.holds.digest(), "{what}: {verified}");
                if let Signed(_) = from.holds {
                    let listed = self.user.run(&format!("imgmv list --referrers --json {back}"));
                    for belonging in [self.signatures.referrer, self.signatures.tagged] {
                        assert!(listed.contains(&belonging.to_string()), "{what}: {listed}");
                    }
                    return "kept, signed";
                }
                word
            }
            To::Engine { name, keeps_manifests, .. } => {
                let id = self.engine(label).id(name).unwrap_or_else(|| panic!("{what}: not there"));
                if !keeps_manifests || from.passes_as_it_is() {
                    return "loaded";
                }
                assert_eq!(id, from.holds.digest(), "{what}");
                word
            }
        }
    }
}

#[test]
fn what_arrives_is_what_left_for_every_pair() {
    let world = World::new();
    let label = |to: &To| match to {
        To::Place { label, .. } | To::Engine { label, .. } => *label,
    };
    let columns: Vec<&str> = sinks(&world, 0).iter().map(label).collect();
    let mut table = format!("| | {} |\n|---{}|\n", columns.join(" | "), "|---".repeat(columns.len()));
    let mut packed = None;
    for (row, from) in sources(&world).iter().enumerate() {
        let sinks = sinks(&world, row);
        let cells: Vec<&str> = sinks.iter().map(|to| world.pair(from, to, &mut packed)).collect();
        table += &format!("| {} | {} |\n", from.label, cells.join(" | "));
    }
    println!("{table}");
}

/// The digest of what `place` holds.
fn digest(place: &str) -> String {
    let out = imgmv(&["digest", place], None);
    assert!(out.status.success(), "digest {place}: {}", out.stderr);
    out.stdout.trim().to_owned()
}

#[test]
fn a_round_trip_keeps_the_digest() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    seed(&registry);
    for (name, expected) in [("hello", OCI_GZIP), ("multi", INDEX)] {
        let archive = dir.path().join(format!("{name}.tar")).display().to_string();
        let layout = format!("oci:{}/{name}:1", dir.path().display());
        let there = format!("docker://{}/seed/{name}:1", registry.address);
        let again = format!("docker://{}/again/{name}:1", registry.address);
        for (from, to) in [(&there, &archive), (&archive, &layout), (&layout, &again)] {
            let out = imgmv(&["copy", from, to], None);
            assert!(out.status.success(), "{from} {to}: {}", out.stderr);
            assert_eq!(out.stdout.trim().rsplit('@').next(), Some(expected));
        }
        assert_eq!(digest(&again), expected);
    }
}

#[test]
fn the_same_images_give_the_same_archive() {
    let dir = TempDir::new().unwrap();
    let source = format!("oci:{}", fixture("layout"));
    let bytes: Vec<Vec<u8>> = ["1", "4"]
        .iter()
        .map(|jobs| {
            let file = dir.path().join(format!("{jobs}.tar"));
            let out = imgmv(&["copy", &source, file.to_str().unwrap(), "--jobs", jobs], None);
            assert!(out.status.success(), "{}", out.stderr);
            fs::read(file).unwrap()
        })
        .collect();
    assert!(bytes[0] == bytes[1]);
}

fn seed(registry: &Registry) {
    for (layout, name) in [("layout", "hello"), ("multi", "multi")] {
        let (from, to) = (format!("oci:{}:1", fixture(layout)), format!("docker://{}/seed/{name}:1", registry.address));
        let out = imgmv(&["copy", &from, &to], None);
        assert!(out.status.success(), "{}", out.stderr);
    }
}

/// The index with what belongs to it, in each kind of source.
fn seed_signed(dir: &Path, registry: &Registry) -> Signatures {
    let at = dir.join("signed").display().to_string();
    let layout = format!("oci:{at}:1");
    let copy = |from: &str, to: &str| {
        let out = imgmv(&["copy", from, to], None);
        assert!(out.status.success(), "{from} {to}: {}", out.stderr);
    };
    copy(&format!("oci:{}:1", fixture("multi")), &layout);
    let signatures = sign(&dir.join("signed"), INDEX);
    copy(&layout, &format!("docker://{}/seed/signed:1", registry.address));
    copy(&layout, &format!("registry-dir:{at}.tree:seed/signed:1"));
    copy(&layout, &format!("{at}.tar"));
    signatures
}

/// containerd's directory put together from a recorded database and the blobs it names.
fn containerd(dir: &Path) -> PathBuf {
    let root = dir.join("containerd");
    let bolt = root.join("io.containerd.metadata.v1.bolt");
    let blobs = root.join("io.containerd.content.v1.content/blobs/sha256");
    fs::create_dir_all(&bolt).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    let unpacked =
        Command::new("gzip").args(["-dc", &fixture("bolt/ctr21.meta.db.gz")]).stdout(Stdio::piped()).output().unwrap();
    fs::write(bolt.join("meta.db"), unpacked.stdout).unwrap();
    for blob in fs::read_dir(fixture("layout/blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), blobs.join(blob.file_name())).unwrap();
    }
    root
}
