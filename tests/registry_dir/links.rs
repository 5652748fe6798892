//! Links that a registry needs to serve an image, and that imgmv can read past: `verify` and `copy` name them.

use super::*;
use rustix::fs::{CWD, Mode, mkfifoat};
use support::program::imgmv;

type Break = fn(&Path);

/// Each way to break a link, and what the message says of it.
const BREAKS: [(&str, Break); 6] = [
    ("is missing", |_| ()),
    ("the link is broken: expected sha256:HEX", |link| fs::write(link, "garbage").unwrap()),
    ("found an empty file", |link| {
        fs::write(link, "").unwrap();
        fs::File::options().write(true).open(link).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }),
    ("more than the 200 bytes", |link| fs::File::create(link).unwrap().set_len(1 << 30).unwrap()),
    ("found a FIFO", |link| mkfifoat(CWD, link, Mode::RWXU).unwrap()),
    ("leads to", |link| fs::write(link, Digest::of(b"other").to_string()).unwrap()),
];

/// The links of `t/multi:1` that no tag has: those of a child, a layer and a config.
fn links(dir: &Dir, memory: &Memory) -> [PathBuf; 3] {
    let child = manifest(memory, 0).children()[1].clone();
    let image = Manifest::parse(memory.blobs[&child.digest].clone(), &child).unwrap();
    [
        dir.tree.revision_link("t/multi", &child.digest),
        dir.tree.layer_link("t/multi", &image.layers()[0].digest),
        dir.tree.layer_link("t/multi", &image.config().unwrap().digest),
    ]
}

#[test]
fn a_link_without_which_a_registry_cannot_serve_the_image_is_named() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    for link in links(&dir, &memory) {
        let path = link.display().to_string();
        for (told, break_it) in BREAKS {
            fs::remove_file(&link).unwrap();
            break_it(&link);
            for address in [dir.address("t/multi:1"), dir.address("")] {
                let done = imgmv(&["verify", &address], None);
                assert_eq!(done.status.code(), Some(5), "{told}: {}", done.stderr);
                assert!(done.stderr.contains(&path) && done.stderr.contains(told), "{told}: {}", done.stderr);
                let line = done.stdout.lines().find(|line| line.starts_with("localhost/t/multi:1@")).unwrap();
                assert!(line.ends_with(" broken, 1 link"), "{told}: {line}");
            }
            let other = imgmv(&["verify", &dir.address("library/app:2")], None);
            assert!(other.status.success(), "{}", other.stderr);
            // The content is there, so it can be rescued.
            let out = TempDir::new().unwrap();
            let copied = imgmv(&["copy", &dir.address("t/multi:1"), &format!("oci:{}", out.path().display())], None);
            assert!(copied.status.success(), "{}", copied.stderr);
            assert!(copied.stderr.contains(&path) && copied.stderr.contains(told), "{told}: {}", copied.stderr);
            assert!(copied.stderr.contains("localhost/t/multi:1: "), "{}", copied.stderr);
            // A copy over it repairs it.
            if told == "found a FIFO" {
                fs::remove_file(&link).unwrap();
            }
            dir.put(&memory).unwrap();
            assert_eq!(dir.tree.resolves(), 2, "{told}");
        }
    }
    let done = imgmv(&["verify", &dir.address("")], None);
    assert!(done.status.success(), "{}", done.stderr);
}

/// A made index has no links, and an image by its digest does not need them.
#[test]
fn only_the_links_of_the_repository_count() {
    let (dir, memory) = (Dir::new(), sample());
    dir.put(&memory).unwrap();
    let several = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    let address = dir.address("t/multi:1");
    let done = imgmv(&[&["verify", &address][..], &several].concat(), None);
    assert!(done.status.success(), "{}", done.stderr);
    let [child, layer, _] = links(&dir, &memory);
    fs::remove_file(layer).unwrap();
    fs::remove_file(child).unwrap();
    // Of a chosen platform only its own links count.
    let done = imgmv(&["verify", &address, "--platform", "linux/amd64"], None);
    assert!(done.status.success(), "{}", done.stderr);
    let by_digest = dir.address(&format!("@{}", memory.roots[0].descriptor.digest));
    let done = imgmv(&["verify", &by_digest], None);
    assert!(done.status.success(), "{}", done.stderr);
    let done = imgmv(&["verify", &address, "--json"], None);
    assert!(done.stdout.contains("_layers/sha256/") && done.stdout.contains("\"ok\": false"), "{}", done.stdout);
}

#[test]
fn many_missing_links_are_counted() {
    let (dir, mut memory) = (Dir::new(), Memory::default());
    let layers: Vec<Vec<u8>> = (0..30).map(|seed| layer(seed, 100)).collect();
    let root = memory.image("linux/amd64", &layers);
    memory.name("h.lan/t/app:1", &root);
    dir.put(&memory).unwrap();
    fs::remove_dir_all(dir.tree.repository("t/app").join("_layers")).unwrap();
    let done = imgmv(&["verify", &dir.address("t/app:1")], None);
    assert!(done.stdout.contains("broken, 31 links"), "{}", done.stdout);
    assert!(done.stderr.contains("11 more"), "{}", done.stderr);
}
