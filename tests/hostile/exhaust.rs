//! Small inputs that would cost a lot: memory, time, disk. Each runs in a process of its own that may have so much
//! memory and so many seconds of the processor, and must end by itself with the right error.

use super::target::Target;
use super::tars::Tar;
use super::ways::{Way, oci_archive, open_archive, repeated};
use super::world::World;
use imgmv::internals::image::media_type;
use imgmv::{Digest, Kind, Result, Source};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Address space, in KiB: what the copy may need (64 MiB), threads' stacks, and windows of the packings (128 MiB).
const MEMORY: u64 = 512 << 10;
/// Seconds of the processor, of a build without optimisation.
const SECONDS: u64 = 60;

type Make = fn(&Path) -> Result<Source>;

/// What a case is called, how the source is made in a folder, and the kind it ends in; none where it may be taken.
const CASES: &[(&str, Make, Option<Kind>)] = &[
    ("indexes_that_branch_layout", |dir| branching(Way::Layout, dir), None),
    ("indexes_that_branch_file", |dir| branching(Way::File, dir), None),
    ("indexes_that_branch_chosen", |dir| branching(Way::Layout, dir), Some(Kind::NotFound)),
    ("many_images_of_the_same_large_manifests", shared_manifests, Some(Kind::Invalid)),
    ("an_index_of_empty_objects", |dir| index_json(dir, "{\"\":0}"), Some(Kind::Invalid)),
    ("an_index_of_empty_lists", |dir| index_json(dir, "[]"), Some(Kind::Invalid)),
    ("a_list_of_empty_objects", list_of_objects, Some(Kind::Invalid)),
    ("link_targets_of_a_megabyte_file", |dir| open_archive(dir, &links(60)), Some(Kind::Invalid)),
    ("link_targets_of_a_megabyte_stream", packed_links, Some(Kind::Invalid)),
    ("hard_links_with_long_targets", packed_hard_links, Some(Kind::Invalid)),
    ("one_config_for_ten_thousand_images", one_config, Some(Kind::Invalid)),
    ("one_config_for_ten_thousand_images_stream", one_config_stream, Some(Kind::Invalid)),
    ("a_window_of_two_gigabytes", large_window, Some(Kind::Invalid)),
    ("zeros_without_end", zeros, Some(Kind::Invalid)),
    ("a_layer_of_sixteen_terabytes", sixteen_terabytes, Some(Kind::Unwritable)),
    ("documents_without_end", documents, Some(Kind::Invalid)),
    ("a_sparse_archive", sparse, Some(Kind::Invalid)),
];

#[test]
fn what_costs_a_stranger_little_costs_nobody_much() {
    let only = std::env::var("HOSTILE_CASE").unwrap_or_default();
    for (what, _, _) in CASES.iter().filter(|(what, _, _)| what.contains(&*only)) {
        let limited = format!("ulimit -v {MEMORY}; ulimit -t {SECONDS}; exec \"$0\" \"$@\"");
        let child = Command::new("sh")
            .args(["-c", &limited])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "exhaust::child"])
            // Each arena of the C library's would reserve 64 MiB of addresses.
            .envs([("HOSTILE_CASE", *what), ("MALLOC_ARENA_MAX", "1")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        println!("{}", said.lines().find(|line| line.starts_with(what)).unwrap_or(what));
        assert!(child.status.success(), "{what}: {}: {said}", child.status);
    }
}

#[test]
#[ignore = "run by what_costs_a_stranger_little_costs_nobody_much"]
fn child() {
    let Ok(wanted) = std::env::var("HOSTILE_CASE") else { return };
    let (what, make, kind) = CASES.iter().find(|(what, _, _)| *what == wanted).unwrap();
    let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
    let mut options = imgmv::Options::default();
    if what.ends_with("chosen") {
        let wanted = vec!["linux/s390x".parse().unwrap()];
        options.platforms = imgmv::Platforms::Only(wanted);
    }
    let done = make(folder.path()).and_then(|source| target.take_with(source, &options));
    println!("{what}: {done:?}, peak {}", peak());
    if let Some(kind) = kind {
        assert_eq!(done.map(|_| ()).map_err(|error| error.kind()), Err(*kind));
    }
    target.sound();
}

/// The most memory this process ever had, by the system's word.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap_or_default().to_owned()
}

/// Each index lists the next one a thousand times; the last is empty.
fn branching(way: Way, dir: &Path) -> Result<Source> {
    let mut world = World::default();
    let mut root = world.index(&[]);
    for _ in 0..7 {
        root = world.index(&vec![root; 1000]);
    }
    open(way, &world.name(root), dir)
}

fn open(way: Way, world: &World, dir: &Path) -> Result<Source> {
    match way {
        Way::Layout => {
            super::ways::write_layout(world, dir);
            let store = imgmv::internals::layout::LayoutStore::open(dir)?;
            Ok(Source::Store(std::sync::Arc::new(store)))
        }
        _ => open_archive(dir, &oci_archive(world)),
    }
}

/// Four hundred small indexes over the same five manifests of almost 4 MiB each.
fn shared_manifests(dir: &Path) -> Result<Source> {
    let mut world = World::default();
    let config = world.config(&[]);
    let large: Vec<Value> = (0..5)
        .map(|n| {
            let padding = " ".repeat(4_100_000 + n);
            let text = json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string() + &padding;
            world.keep(media_type::OCI_MANIFEST, text)
        })
        .collect();
    for n in 0..400 {
        let index = json!({ "schemaVersion": 2, "manifests": large, "annotations": { "n": n.to_string() } });
        let root = world.document(media_type::OCI_INDEX, &index);
        world = world.name_as(&format!("registry.lan/app:{n}"), root);
    }
    open(Way::Layout, &world, dir)
}

/// An `index.json` of 4 MiB that consists of `thing`s.
fn index_json(dir: &Path, thing: &str) -> Result<Source> {
    super::ways::write_layout(&World::default(), dir);
    let things = vec![thing; (4 << 20) / (thing.len() + 1) - 20].join(",");
    fs::write(dir.join("index.json"), format!("{{\"manifests\":[],\"x\":[{things}]}}")).unwrap();
    let store = imgmv::internals::layout::LayoutStore::open(dir)?;
    Ok(Source::Store(std::sync::Arc::new(store)))
}

/// A `manifest.json` of 4 MiB of the smallest objects there are.
fn list_of_objects(dir: &Path) -> Result<Source> {
    let list = format!("[{}]", vec!["{\"\":0}"; 580_000].join(","));
    open_archive(dir, &Tar::new().file("manifest.json", list.as_bytes()).end())
}

/// Symbolic links whose targets have almost a megabyte each.
fn links(count: usize) -> Vec<u8> {
    let target = vec![b'a'; (1 << 20) - 1];
    (0..count).fold(Tar::new(), |tar, n| tar.long(b'K', &target).entry(&format!("link-{n}"), b'2', "")).end()
}

fn packed_links(dir: &Path) -> Result<Source> {
    let target = vec![b'a'; (1 << 20) - 1];
    packed(dir, |out| {
        for n in 0..3000 {
            let link = Tar::new().long(b'K', &target).entry(&format!("link-{n}"), b'2', "");
            out.write_all(&link.open())?;
        }
        out.write_all(&[0; 1024])
    })
}

fn packed_hard_links(dir: &Path) -> Result<Source> {
    let target = vec![b'a'; 4096];
    packed(dir, |out| {
        for n in 0..190_000 / 3 {
            let link = Tar::new().long(b'K', &target).entry(&format!("link-{n}"), b'1', "");
            out.write_all(&link.open())?;
        }
        out.write_all(&[0; 1024])
    })
}

/// An archive that `write` writes, packed.
fn packed(dir: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Source> {
    let path = dir.join("archive.tar.zst");
    let mut out = zstd::stream::write::Encoder::new(File::create(&path).unwrap(), 1).unwrap();
    write(&mut out).unwrap();
    out.finish().unwrap();
    let input = imgmv::internals::archive::Input::File(path);
    imgmv::internals::archive::open(&input, std::sync::Arc::new(imgmv::Silent))
}

/// A list of ten thousand images that all have one config of 4 MiB, and another layer count than it says.
fn ten_thousand(list: &mut dyn Write) -> io::Result<()> {
    let mut config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "diff_ids": [] } }).to_string();
    config.push_str(&" ".repeat((4 << 20) - config.len()));
    let images: Vec<Value> = (0..10_000)
        .map(|n| json!({ "Config": "config.json", "RepoTags": [format!("registry.lan/app:{n}")], "Layers": [] }))
        .collect();
    let tar =
        Tar::new().file("config.json", config.as_bytes()).file("manifest.json", json!(images).to_string().as_bytes());
    list.write_all(&tar.end())
}

fn one_config(dir: &Path) -> Result<Source> {
    let mut bytes = Vec::new();
    ten_thousand(&mut bytes).unwrap();
    open_archive(dir, &bytes)
}

fn one_config_stream(dir: &Path) -> Result<Source> {
    packed(dir, |out| ten_thousand(out))
}

/// A zstd frame that asks for a window of 2 GiB.
fn large_window(dir: &Path) -> Result<Source> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    frame.extend_from_slice(&[0x03, 0x00, 0x00, 0x00]);
    frame.resize(4096, 0x03);
    open_archive(dir, &frame)
}

/// An archive's end, and zeros behind it for ever.
fn zeros(dir: &Path) -> Result<Source> {
    packed(dir, |out| io::copy(&mut repeated(0, 1 << 30), out).map(drop))
}

/// A layer of more than any disk has, of which a little is there.
fn sixteen_terabytes(dir: &Path) -> Result<Source> {
    let path = format!("blobs/sha256/{}", Digest::of(b"whatever").hex());
    packed(dir, |out| {
        let tar = Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        out.write_all(&tar.header(path.as_bytes(), b'0', b"", 1 << 44).open())?;
        io::copy(&mut repeated(0, 64 << 20), out).map(drop)
    })
}

/// Documents of 4 MiB, one after the other.
fn documents(dir: &Path) -> Result<Source> {
    packed(dir, |out| {
        for n in 0..200 {
            let text = format!("{{\"n\":{n}}}{}", " ".repeat(4_000_000));
            let tar = Tar::new().file(&format!("blobs/sha256/{}", Digest::of(text.as_bytes()).hex()), text.as_bytes());
            out.write_all(&tar.open())?;
        }
        out.write_all(&[0; 1024])
    })
}

/// A file of 64 TiB that is all hole behind its first header.
fn sparse(dir: &Path) -> Result<Source> {
    let path = dir.join("archive.tar");
    let header = Tar::new().header(b"layer.tar", b'0', b"", (1 << 42) - 4096).open();
    fs::write(&path, header).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
    let input = imgmv::internals::archive::Input::File(path);
    imgmv::internals::archive::open(&input, std::sync::Arc::new(imgmv::Silent))
}
