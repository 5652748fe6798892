//! Tars that try to get out, mean two things or end early, on their way into a layout. What `tests/archive` shows of
//! single entries is not shown again here: this is what extension records, links and cuts can do.

use super::images::plain;
use super::support::program::fixture;
use super::target::Target;
use super::tars::Tar;
use super::ways::{gzip, open_archive};
use super::world::layer;
use imgmv::{Digest, Kind};
use serde_json::json;
use std::fs;

/// An archive of the old form, right but for what `change` puts between its layers and its list.
fn with(change: impl FnOnce(Tar) -> Tar) -> Vec<u8> {
    listing(json!("config.json"), json!(["app:1"]), json!(["one/layer.tar"]), change)
}

/// The same with a list that says so much.
fn listing(
    config: serde_json::Value,
    tags: serde_json::Value,
    layers: serde_json::Value,
    change: impl FnOnce(Tar) -> Tar,
) -> Vec<u8> {
    let layer = layer(1);
    let diff_ids = [Digest::of(&layer)];
    let about = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let list = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string();
    let tar = Tar::new().file("one/layer.tar", &layer).file("config.json", about.to_string().as_bytes());
    change(tar).file("manifest.json", list.as_bytes()).end()
}

/// What `bytes` end in as a file and packed, when both refuse.
fn refused(bytes: &[u8]) -> Vec<imgmv::Error> {
    [bytes.to_vec(), gzip(bytes)]
        .iter()
        .map(|bytes| {
            let target = Target::new();
            let folder = tempfile::tempdir().unwrap();
            target.refuse(open_archive(folder.path(), bytes))
        })
        .collect()
}

/// `bytes` may be taken or not: the target is sound, and at most one image has a name.
fn harmless(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), gzip(bytes)] {
        let target = Target::new();
        let folder = tempfile::tempdir().unwrap();
        if let Ok(source) = open_archive(folder.path(), &bytes) {
            let _ = target.take(source);
        }
        assert!(target.sound() <= 1);
    }
}

#[test]
fn an_honest_archive_arrives() {
    for bytes in [with(|tar| tar), gzip(&with(|tar| tar))] {
        let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
        target.take(open_archive(folder.path(), &bytes).unwrap()).unwrap();
        assert_eq!(target.sound(), 1);
    }
}

#[test]
fn extension_records_neither_lead_out_nor_mean_two_things() {
    let long = vec![b'a'; (1 << 20) + 1];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a PAX path that leads out", with(|tar| tar.records(b'x', &[("path", b"../../outside")]).file("x", b"y"))),
        ("an absolute PAX path", with(|tar| tar.records(b'x', &[("path", b"/etc/passwd")]).file("x", b"y"))),
        ("a PAX path with a NUL", with(|tar| tar.records(b'x', &[("path", b"a\0b")]).file("x", b"y"))),
        ("two PAX paths", with(|tar| tar.records(b'x', &[("path", b"a"), ("path", b"b")]).file("x", b"y"))),
        ("a PAX and a GNU name", with(|tar| tar.records(b'x', &[("path", b"a")]).long(b'L', b"b\0").file("x", b"y"))),
        ("two PAX sizes", with(|tar| tar.records(b'x', &[("size", b"1"), ("size", b"2")]).file("x", b"y"))),
        ("a PAX size of less than nothing", with(|tar| tar.records(b'x', &[("size", b"-1")]).file("x", b"y"))),
        (
            "a PAX size of all there is",
            with(|tar| tar.records(b'x', &[("size", b"18446744073709551615")]).file("x", b"y")),
        ),
        ("a PAX size that hides a header", with(|tar| tar.records(b'x', &[("size", b"1024")]).file("x", b"y"))),
        ("a name for every entry", with(|tar| tar.records(b'g', &[("path", b"manifest.json")]))),
        ("a size for every entry", with(|tar| tar.records(b'g', &[("size", b"3")]))),
        ("a sparse file by PAX", with(|tar| tar.records(b'x', &[("GNU.sparse.major", b"1")]).file("x", b"y"))),
        ("records without a length", with(|tar| tar.header(b"r", b'x', b"", 9).data(b"path=abc\n").file("x", b"y"))),
        ("a record longer than all", with(|tar| tar.header(b"r", b'x', b"", 9).data(b"99 p=abc\n").file("x", b"y"))),
        ("a record of no length", with(|tar| tar.header(b"r", b'x', b"", 9).data(b"0 p=abcd\n").file("x", b"y"))),
        ("a record of a megabyte", with(|tar| tar.long(b'L', &long).file("x", b"y"))),
        ("a GNU name that leads out", with(|tar| tar.long(b'L', b"a/../../outside\0").file("x", b"y"))),
        ("a GNU name of no length", with(|tar| tar.long(b'L', b"").file("x", b"y"))),
        ("a second list by a PAX path", with(|tar| tar.records(b'x', &[("path", b"manifest.json")]).file("x", b"[]"))),
        ("a hard link that leads out", with(|tar| tar.entry("x", b'1', "../../outside"))),
        ("a hard link in the list's place", with(|tar| tar.entry("manifest.json", b'1', "config.json"))),
        ("a symbolic link in the list's place", with(|tar| tar.entry("./manifest.json", b'2', "/etc/passwd"))),
        ("a part of several volumes", with(|tar| tar.entry("x", b'M', ""))),
        ("a kind that nobody knows", with(|tar| tar.entry("x", b'\x1b', ""))),
        ("an entry of an exabyte", with(|tar| tar.header(b"x", b'0', b"", 1 << 60))),
        ("records and then nothing", with(|tar| tar.records(b'x', &[("path", b"a")]))),
    ];
    for (what, bytes) in cases {
        for error in refused(&bytes) {
            println!("{what}: {error}");
            assert_eq!(error.kind(), Kind::Invalid, "{what}: {error}");
            assert!(plain(&error.to_string()), "{what}: {error:?}");
        }
    }
}

#[test]
fn a_list_leads_to_nothing_outside() {
    let layers = |layer: &str| listing(json!("config.json"), json!(["app:1"]), json!([layer]), |tar| tar);
    let config = |config: &str| listing(json!(config), json!(["app:1"]), json!(["one/layer.tar"]), |tar| tar);
    let links = |target: &'static str| {
        listing(json!("config.json"), json!(["app:1"]), json!(["two/layer.tar"]), move |tar| {
            tar.entry("two/layer.tar", b'2', target)
        })
    };
    for bytes in [
        layers("../../../etc/passwd"),
        layers("/etc/passwd"),
        layers("/proc/self/mem"),
        layers("one/layer.tar/"),
        layers("config.json"),
        layers("manifest.json"),
        config("../config.json"),
        config("/etc/passwd"),
        config("manifest.json"),
        config("one/layer.tar"),
        links("../../../../etc/passwd"),
        links("/dev/zero"),
        links("../two/layer.tar"),
        links(""),
        links("../one"),
    ] {
        // `one/layer.tar/` is the same file once it is cleaned; nothing else here is anything.
        let clean = bytes.windows(16).any(|text| text == b"\"one/layer.tar/\"");
        match clean {
            true => harmless(&bytes),
            false => assert!(refused(&bytes).iter().all(|error| error.kind() == Kind::Invalid)),
        }
    }
}

#[test]
fn links_that_nobody_asks_for_do_nothing() {
    for (name, flag, target) in [
        ("blobs", b'2', "/etc"),
        ("blobs/sha256", b'2', "../../../outside"),
        ("index.json.old", b'2', "/dev/zero"),
        ("a", b'1', "a"),
        ("b", b'2', "b"),
    ] {
        harmless(&with(|tar| tar.entry(name, flag, target)));
    }
}

#[test]
fn tags_that_are_paths_or_escapes_stay_text() {
    for tag in ["../../outside:1", "/etc/passwd", "a\u{1b}[2J:1", "a\nb", "-rf:1", "..", "a:b:c", "h/@sha256:zz", ""] {
        harmless(&listing(json!("config.json"), json!([tag]), json!(["one/layer.tar"]), |tar| tar));
    }
}

/// Where the archive `bytes` has its headers and its data, and some places between.
fn places(bytes: &[u8], end: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ bytes.len() as u64;
    let mut places: Vec<usize> = (0..end).step_by(512).collect();
    places.extend((0..60).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end as u64) as usize
    }));
    places
}

#[test]
fn an_archive_that_is_cut_names_nothing_in_a_layout() {
    let whole = with(|tar| tar);
    // Behind the last entry one block of zeros is an end.
    let end = whole.len() - 1024;
    for at in places(&whole, end) {
        for bytes in [whole[..at].to_vec(), gzip(&whole[..at])] {
            let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
            assert_eq!(target.refuse(open_archive(folder.path(), &bytes)).kind(), Kind::Invalid, "cut at {at}");
        }
    }
}

#[test]
fn a_packed_archive_that_is_cut_names_nothing_in_a_layout() {
    for name in ["hello-docker20.tar.gz", "hello-docker20.tar.zst", "hello-docker20.tar.xz", "hello-docker20.tar.bz2"] {
        let whole = fs::read(fixture(name)).unwrap();
        let last = whole.len() - 1;
        for at in (0..last).step_by(whole.len() / 24 + 1).chain([last]) {
            let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
            let error = target.refuse(open_archive(folder.path(), &whole[..at]));
            assert_eq!(error.kind(), Kind::Invalid, "{name} cut at {at}: {error}");
        }
        let mut flipped = whole.clone();
        for at in (0..last).step_by(whole.len() / 40 + 1) {
            flipped[at] ^= 0x55;
            let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
            // A flip in a packing's unused fields (a file's time) is no damage.
            if let Ok(source) = open_archive(folder.path(), &flipped) {
                let _ = target.take(source);
            }
            target.sound();
            flipped[at] ^= 0x55;
        }
    }
}

/// What fuzzing found, each once a panic or another image than the file's; `fixtures/hostile/README.md` says which.
#[test]
fn what_fuzzing_found_is_taken_alike_on_both_ways() {
    let mut count = 0;
    for entry in fs::read_dir(fixture("hostile")).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != "tar") {
            continue;
        }
        count += 1;
        let bytes = fs::read(&path).unwrap();
        let taken = |bytes: &[u8]| {
            let (target, folder) = (Target::new(), tempfile::tempdir().unwrap());
            let done = open_archive(folder.path(), bytes).and_then(|source| target.take(source));
            (done.map(|report| report.images.len()), target.sound())
        };
        let (file, stream) = (taken(&bytes), taken(&gzip(&bytes)));
        assert!(file.0.is_ok() || stream.0.is_err(), "{path:?}: only the stream was taken: {file:?}, {stream:?}");
        if let (Ok(in_place), Ok(passed)) = (&file.0, &stream.0) {
            assert_eq!((in_place, file.1), (passed, stream.1), "{path:?}");
        }
    }
    assert!(count > 0);
}
