//! Every source into every sink, with the program itself and images that real tools wrote: what arrives is what
//! left, and it reads back.

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use support::program::{fixture, imgmv};
use support::some_registry::Registry;
use tempfile::TempDir;

/// The manifests that `fixtures/image.py` and the tools around it made.
const OCI_GZIP: &str = "sha256:602b22ac0877e98491067019bf894774c63bd3f2b4be96809c3c1e9a29cca06c";
const INDEX: &str = "sha256:1e8da6cd7fd1d027d8c4b738aec76f1bf0686397fcc80da6e7a70db620d8aaf6";
/// What the two old archives hold, synthesised: frozen, since they become digests for ever.
const FROM_RAW: &str = "sha256:RAW";

/// A source: how it is written on the command line, what is fed to standard input, and what image it holds.
struct From {
    label: &'static str,
    words: Vec<String>,
    stdin: Option<PathBuf>,
    /// Where the source keeps a manifest.
    digest: Option<&'static str>,
    /// Its layers are uncompressed, so a registry gets them packed.
    raw: bool,
}

fn sources(registry: &Registry, containerd: &Path) -> Vec<From> {
    let file = |label, name: &str, digest, raw| From { label, words: vec![fixture(name)], stdin: None, digest, raw };
    let piped = |label, name: &str, digest, raw| From {
        label,
        words: vec!["-".into()],
        stdin: Some(fixture(name).into()),
        digest,
        raw,
    };
    let words =
        |label, word: String, digest| From { label, words: vec![word], stdin: None, digest: Some(digest), raw: false };
    vec![
        words("layout", format!("oci:{}:1", fixture("layout")), OCI_GZIP),
        words("layout, index", format!("oci:{}:1", fixture("multi")), INDEX),
        words("oci-archive", format!("oci-archive:{}", fixture("hello-skopeo-oci.tar")), OCI_GZIP),
        words("registry", format!("docker://{}/seed/hello:1", registry.address), OCI_GZIP),
        words("registry, index", format!("docker://{}/seed/multi:1", registry.address), INDEX),
        From {
            label: "containerd's directory",
            words: vec![
                "--src-root".into(),
                containerd.display().to_string(),
                "--src-namespace".into(),
                "default".into(),
                "containerd:hello-imgmv:1".into(),
            ],
            stdin: None,
            digest: Some(OCI_GZIP),
            raw: false,
        },
        file("docker 20 archive", "hello-docker20.tar", None, true),
        file("docker 28 archive", "hello-docker28.tar", None, true),
        file("docker 28 archive, containerd store", "hello-docker28c.tar", Some(OCI_GZIP), false),
        file("ctr archive", "hello-ctr21.tar", Some(OCI_GZIP), false),
        file("podman archive", "hello-podman-docker.tar", None, true),
        file("podman oci-archive", "hello-podman-oci.tar", None, false),
        file("crane archive", "hello-crane.tar", None, false),
        file("gzip archive", "hello-docker20.tar.gz", None, true),
        file("zstd archive", "hello-docker20.tar.zst", None, true),
        file("xz archive", "hello-docker20.tar.xz", None, true),
        file("bzip2 archive", "hello-docker20.tar.bz2", None, true),
        file("nix archive", "like-nix.tar.gz", None, true),
        piped("pipe, docker 20", "hello-docker20.tar", None, true),
        piped("pipe, docker 28", "hello-docker28.tar", None, true),
        piped("pipe, containerd store", "hello-docker28c.tar", Some(OCI_GZIP), false),
        piped("pipe, crane", "hello-crane.tar", None, false),
        piped("pipe, gzip", "hello-docker20.tar.gz", None, true),
    ]
}

const SINKS: [&str; 5] = ["layout", "archive", "oci-archive", "pipe", "registry"];

/// DST for `sink`, and how it is read back as a source.
fn sink(sink: &str, number: usize, dir: &Path, registry: &Registry) -> (String, String) {
    let dir = dir.display();
    match sink {
        "layout" => (format!("oci:{dir}/layout-{number}:new"), format!("oci:{dir}/layout-{number}:new")),
        "archive" => (format!("{dir}/archive-{number}.tar"), format!("{dir}/archive-{number}.tar")),
        "oci-archive" => (format!("oci-archive:{dir}/oci-{number}.tar:new"), format!("{dir}/oci-{number}.tar")),
        "pipe" => ("-".to_owned(), format!("{dir}/pipe-{number}.tar")),
        _ => {
            let name = format!("docker://{}/pairs/n{number}:new", registry.address);
            (name.clone(), name)
        }
    }
}

/// The digest of what `place` holds.
fn digest(place: &str) -> String {
    let out = imgmv(&["digest", place], None);
    assert!(out.status.success(), "digest {place}: {}", out.stderr);
    out.stdout.trim().to_owned()
}

#[test]
fn what_arrives_is_what_left_for_every_pair() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    seed(&registry);
    let containerd = containerd(dir.path());
    let mut table = String::new();
    let mut packed: Option<String> = None;
    let mut raw: Option<String> = None;
    for (row, from) in sources(&registry, &containerd).iter().enumerate() {
        table += &format!("{:36}", from.label);
        for (column, kind) in SINKS.iter().enumerate() {
            let (to, back) = sink(kind, row * 10 + column, dir.path(), &registry);
            let mut args: Vec<&str> = vec!["copy"];
            args.extend(from.words.iter().map(String::as_str));
            args.extend([&to[..], "-q"]);
            let out = imgmv(&args, from.stdin.as_deref());
            assert!(out.status.success(), "{} to {kind}: {}", from.label, out.stderr);
            if *kind == "pipe" {
                fs::write(&back, &out.bytes).unwrap();
            }
            let found = digest(&back);
            match (from.digest, from.raw, *kind) {
                (Some(expected), ..) => assert_eq!(found, expected, "{} to {kind}", from.label),
                // Packed by the same recipe, the same raw layers are the same image wherever they came from.
                (None, true, "registry") => assert_eq!(*packed.get_or_insert(found.clone()), found, "{}", from.label),
                (None, true, _) if !from.label.contains("docker 28") && !from.label.contains("nix") => {
                    assert_eq!(*raw.get_or_insert(found.clone()), found, "{} to {kind}", from.label)
                }
                _ => {}
            }
            let verified = imgmv(&["verify", &back], None);
            assert!(verified.status.success(), "{} to {kind}: {}", from.label, verified.stderr);
            table += " ok";
        }
        table += "\n";
    }
    println!("{:36} {}\n{table}", "", SINKS.join(" "));
    assert_eq!(raw.as_deref(), Some(FROM_RAW));
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
