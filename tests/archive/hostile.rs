//! Archives that are cut, lie, contradict themselves or try to get out: each ends in a sentence, and nothing of it is
//! named.

use crate::make::*;
use imgmv::Kind;
use imgmv::copy::Options;
use imgmv::image::Digest;
use imgmv::transport::archive::ArchiveSink;
use serde_json::json;
use tar::EntryType;

/// An archive that is right but for what `change` adds to it.
fn with(change: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let image = Image::new(2);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in image.old_files() {
        add(&mut tar, &name, &bytes);
    }
    change(&mut tar);
    let (name, bytes) = saved(json!([image.saved(&["app:2"])]));
    add(&mut tar, &name, &bytes);
    tar.into_inner().unwrap()
}

/// An entry whose name the tar crate would not write.
fn raw(tar: &mut tar::Builder<Vec<u8>>, name: &[u8], kind: EntryType, link: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
}

#[test]
fn entries_that_have_no_business_there_are_refused() {
    let cases: [(&[u8], EntryType, &str); 8] = [
        (b"../../etc/cron.d/x", EntryType::Regular, "points outside"),
        (b"/etc/passwd", EntryType::Regular, "points outside"),
        (b"a/../../b", EntryType::Directory, "points outside"),
        (b"dev/sda", EntryType::Block, "device node"),
        (b"dev/tty", EntryType::Char, "device node"),
        (b"pipe", EntryType::Fifo, "named pipe"),
        (b"hole", EntryType::GNUSparse, "sparse"),
        (b"\x1b[2J\xff", EntryType::Regular, "UTF-8"),
    ];
    for (name, kind, words) in cases {
        for error in refused(&with(|tar| raw(tar, name, kind, b""))) {
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains(words) && !error.to_string().contains('\x1b'), "{error}");
        }
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    for name in ["manifest.json", "./manifest.json", ".//manifest.json"] {
        for error in refused(&with(|tar| add(tar, name, b"[]"))) {
            assert!(error.to_string().contains("two entries named"), "{error}");
        }
    }
}

#[test]
fn links_that_lead_out_or_round_are_refused_where_they_are_used() {
    let image = Image::new(2);
    for (target, words) in
        [("/etc/passwd", "points outside"), ("../../../etc/passwd", "points outside"), ("layer.tar", "circular")]
    {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "config.json", &image.config);
        add(&mut tar, "one/layer.tar", &image.raw[0]);
        raw(&mut tar, b"two/layer.tar", EntryType::Symlink, target.as_bytes());
        let layers = ["one/layer.tar", "two/layer.tar"];
        let list = json!([{ "Config": "config.json", "RepoTags": ["app:2"], "Layers": layers }]);
        add(&mut tar, "manifest.json", list.to_string().as_bytes());
        for error in refused(&tar.into_inner().unwrap()) {
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

#[test]
fn lists_that_disagree_are_refused() {
    let (image, other) = (Image::new(2), Image::new(3));
    let swapped = json!([{ "Config": blob(&image.config), "RepoTags": ["app:2"],
        "Layers": [blob(&image.gzip[1]), blob(&image.gzip[0])] }]);
    let short = json!([{ "Config": blob(&image.config), "RepoTags": ["app:2"], "Layers": [blob(&image.gzip[0])] }]);
    let renamed = json!([other.both(json!(["app:3"]))]);
    for list in [json!([other.both(json!(["app:2"]))]), renamed, swapped, short] {
        let mut files = image.oci_files();
        files.extend(other.oci_files());
        files.sort();
        files.dedup();
        files.extend([index(json!([image.entry(named(NAME, "2"))])), saved(list.clone()), layout_file()]);
        for error in refused(&tar(&files)) {
            assert!(error.to_string().contains("disagree"), "{list}: {error}");
        }
    }
}

#[test]
fn one_name_for_two_images_is_refused() {
    let (image, other) = (Image::new(2), Image::new(3));
    let mut files = image.old_files();
    files.extend(other.old_files());
    files.sort();
    files.dedup();
    files.push(saved(json!([image.saved(&["app:2"]), other.saved(&["docker.io/library/app:2"])])));
    for error in refused(&tar(&files)) {
        assert!(error.to_string().contains("two images"), "{error}");
    }
}

/// `files` with one byte in the middle of the first whose name ends with `part` changed.
fn spoiled(mut files: Vec<(String, Vec<u8>)>, part: &str) -> Vec<(String, Vec<u8>)> {
    let (_, bytes) = files.iter_mut().find(|(name, _)| name.ends_with(part)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    files
}

#[test]
fn wrong_bytes_are_refused_wherever_they_are() {
    let image = Image::new(2);
    let layers: Vec<String> = image.gzip.iter().map(|layer| format!("{}.tar.gz", hex(layer))).collect();
    let mut packed: Vec<_> = layers.iter().cloned().zip([image.gzip[0].clone(), gzip(b"another layer")]).collect();
    packed.push(("config.json".into(), image.config.clone()));
    packed.push(saved(json!([{ "Config": "config.json", "RepoTags": ["app:2"], "Layers": layers }])));
    let mut old = image.old_files();
    old.push(saved(json!([image.saved(&["app:2"])])));
    let mut oci = image.oci_files();
    oci.extend([index(json!([image.entry(named(NAME, "2"))])), layout_file()]);
    let archives = [
        packed,
        spoiled(old, &format!("{}/layer.tar", hex(&image.raw[1]))),
        spoiled(oci.clone(), &blob(&image.gzip[1])),
        spoiled(oci.clone(), &blob(&image.config)),
        spoiled(oci, &blob(&image.gzip_manifest().bytes)),
    ];
    for files in archives {
        for error in refused(&tar(&files)) {
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    }
}

#[test]
fn a_layer_that_is_absent_or_too_many_is_refused() {
    let image = Image::new(2);
    let without = |part: &str| {
        let mut files = image.old_files();
        let at = files.iter().position(|(name, _)| name.ends_with(part)).unwrap();
        files.remove(at);
        files.push(saved(json!([image.saved(&["app:2"])])));
        tar(&files)
    };
    let mut more = image.saved(&["app:2"]);
    let first = more["Layers"][0].clone();
    more["Layers"].as_array_mut().unwrap().push(first);
    let mut files = image.old_files();
    files.push(saved(json!([more])));
    for (bytes, words) in [
        (without("layer.tar"), "not in the archive"),
        (without(".json"), "not in the archive"),
        (tar(&files), "3 layers in manifest.json and 2 in its config"),
    ] {
        for error in refused(&bytes) {
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

#[test]
fn a_cut_archive_never_arrives() {
    let image = Image::new(2);
    let whole = [
        old(&image, &["app:2"]),
        both(&image, named(NAME, "2"), json!(["app:2"])),
        fixture("hello-crane.tar"),
        fixture("hello-docker28c.tar"),
    ];
    for bytes in whole {
        let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        // The end mark is at least one block of zeros behind the last entry's.
        let end = end.next_multiple_of(512);
        assert!(arrive(&bytes[..end + 512]).iter().all(Result::is_ok));
        for at in (0..end).step_by(97).chain(end..end + 512).step_by(3) {
            for (way, arrived) in arrive(&bytes[..at]).into_iter().enumerate() {
                let error = arrived.err().unwrap_or_else(|| panic!("cut at {at} of {end} and taken, way {way}"));
                assert_eq!(error.kind(), Kind::Invalid, "cut at {at}: {error}");
            }
        }
    }
}

#[test]
fn a_cut_packed_archive_never_arrives() {
    let image = Image::new(2);
    let bytes = old(&image, &["app:2"]);
    for packed in [gzip(&bytes), zstd::encode_all(&bytes[..], 3).unwrap()] {
        for at in (20..packed.len() - 1).step_by(packed.len() / 40) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cut.tar.gz");
            std::fs::write(&path, &packed[..at]).unwrap();
            let input = imgmv::transport::archive::Input::File(path.clone());
            let source = imgmv::transport::archive::open(&input, std::sync::Arc::new(imgmv::progress::Silent)).unwrap();
            let sink = ArchiveSink::to_file(&folder.path().join("out.tar")).unwrap();
            let error = run(source, &sink, &Options::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "cut at {at}: {error}");
            drop(sink);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for size in [u64::MAX >> 1, 1 << 61, 1 << 40] {
        let mut bytes = with(|_| {});
        let mut header = tar::Header::new_gnu();
        header.set_path("huge").unwrap();
        header.set_size(size);
        header.set_cksum();
        bytes.splice(..0, header.as_bytes().iter().copied());
        for error in refused(&bytes) {
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    }
    // A document as large as a layer is not read into memory.
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "manifest.json", &vec![b'['; 5 << 20]);
    for error in refused(&tar.into_inner().unwrap()) {
        assert!(error.to_string().contains("bytes, more than"), "{error}");
    }
}

#[test]
fn a_hundred_thousand_small_entries_are_taken_and_more_than_the_bound_refused() {
    let filled = |count: usize| {
        with(|tar| {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_mode(0o644);
            for n in 0..count {
                header.set_path(format!("junk/{n}")).unwrap();
                header.set_cksum();
                tar.append(&header, &[][..]).unwrap();
            }
        })
    };
    assert!(arrive(&filled(100_000)).iter().all(Result::is_ok));
    for error in refused(&filled(200_000)) {
        assert!(error.to_string().contains("too many entries"), "{error}");
    }
}

#[test]
fn a_bomb_of_what_belongs_to_no_image_is_refused() {
    let mut bomb = tar::Header::new_gnu();
    bomb.set_path("junk").unwrap();
    bomb.set_size(4 << 30);
    bomb.set_cksum();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.tar.zst");
    let mut out = zstd::stream::write::Encoder::new(std::fs::File::create(&path).unwrap(), 1).unwrap();
    std::io::Write::write_all(&mut out, bomb.as_bytes()).unwrap();
    std::io::Write::write_all(&mut out, &vec![b'x'; 8 << 20]).unwrap();
    out.finish().unwrap();
    let input = imgmv::transport::archive::Input::File(path);
    let source = imgmv::transport::archive::open(&input, std::sync::Arc::new(imgmv::progress::Silent)).unwrap();
    let sink = ArchiveSink::to_file(&folder.path().join("out.tar")).unwrap();
    let error = run(source, &sink, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("do not belong to an image"), "{error}");
}

#[test]
fn indexes_that_lie_are_refused() {
    let image = Image::new(2);
    let mut entry = image.entry(named("app\u{1b}]0;x\u{7}:2", "2"));
    let escapes = json!([entry]);
    entry["annotations"] = named(NAME, "2");
    entry["size"] = json!(7);
    let size = json!([entry]);
    entry["digest"] = json!("sha256:../../../../etc/passwd");
    let path = json!([entry]);
    entry["digest"] = json!(Digest::of(b"absent"));
    let absent = json!([entry]);
    for list in [escapes, size, path, absent] {
        let mut files = image.oci_files();
        files.extend([index(list.clone()), layout_file()]);
        for error in refused(&tar(&files)) {
            assert_eq!(error.kind(), Kind::Invalid, "{list}: {error}");
            assert!(!error.to_string().contains('\x1b'));
        }
    }
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_vec();
    for (name, bytes) in [("index.json", both), ("oci-layout", br#"{"imageLayoutVersion":"9"}"#.to_vec())] {
        let mut files = image.oci_files();
        files.extend([index(json!([image.entry(named(NAME, "2"))])), layout_file()]);
        files.iter_mut().find(|(other, _)| other == name).unwrap().1 = bytes;
        assert!(refused(&tar(&files)).iter().all(|error| error.kind() == Kind::Invalid));
    }
}

/// Nothing panics on bytes that are almost an archive; a fuzzer's first steps, repeatable.
#[test]
fn flipped_bytes_never_panic() {
    let image = Image::new(2);
    let whole = [old(&image, &["app:2"]), both(&image, named(NAME, "2"), json!(["app:2"]))];
    for bytes in whole {
        let mut state = 88172645463325252u64;
        for _ in 0..400 {
            let mut changed = bytes.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state % changed.len() as u64) as usize;
                changed[at] = (state >> 32) as u8;
            }
            let _ = arrive(&changed);
        }
    }
}
