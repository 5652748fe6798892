//! Tar-splits with invalid lines, wrong sizes and too much text.

use super::tar_split::gzip;
use super::{LABEL, Layer, file, tar_split};
use crate::disk::rooted::{Resolution, Rooted};
use crate::error::{Error, Kind};
use crate::image::Digest;
use crate::tarsplit::{LayerTar, Measured, Recorded, measure};
use serde_json::{Value, json};
use std::io::Read;

impl Layer {
    /// The error with line `at` changed by `change`.
    fn refused(mut self, at: usize, change: impl Fn(&mut Value)) -> String {
        change(&mut self.parts.lines[at]);
        let error = self.read().expect_err("the changed layer was accepted");
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().starts_with(LABEL), "{error}");
        error.to_string()
    }
}

#[test]
fn invalid_lines_are_refused_by_their_position() {
    // Line 3 is the entry of etc/passwd.
    for (change, told) in [
        ((|line| line["position"] = 4.into()) as fn(&mut Value), "invalid line 3: its position is 4"),
        (|line| line["type"] = 7.into(), "invalid line 3: its type is 7"),
        (|line| line["size"] = (-1).into(), "invalid line 3"),
        (|line| line["size"] = 14.into(), "expected 14 bytes, found 15"),
        (|line| line["payload"] = "AAAA".into(), "a checksum of 3 bytes"),
        (|line| line["payload"] = "%".into(), "invalid line 3: payload"),
        (|line| line["name"] = Value::Null, "a file without a name"),
        (|line| line["name_raw"] = "%".into(), "name_raw"),
        (|line| line["name"] = "a\0b".into(), "cannot be the path"),
        (|line| line["name"] = "x".repeat(5_000).into(), "cannot be the path"),
        (|line| line["name"] = "x".repeat(100_000).into(), "a name of 100000 bytes"),
        (|line| line["name"] = "x".repeat(2 << 20).into(), "a line of more than 262144 bytes that is not a segment"),
        (|line| line["name"] = "../../../etc/shadow".into(), "file ../../../etc/shadow is damaged: it is missing"),
        (|line| *line = json!([]), "invalid line 3"),
    ] {
        let error = Layer::new().refused(3, change);
        assert!(error.contains(told), "{told}: {error}");
    }
    for (change, told) in [
        ((|line| line["payload"] = "AA=A".into()) as fn(&mut Value), "not base64"),
        (|line| line["payload"] = "AAA".into(), "not base64"),
        (|line| line["payload"] = "ä".into(), "not base64"),
    ] {
        let error = Layer::new().refused(0, change);
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn sizes_that_lie_are_refused_before_a_file_is_opened() {
    let recorded = |size: u64| {
        let text = json!({ "type": 1, "name": "f", "size": size, "position": 0 }).to_string();
        measure(file(text.as_bytes()), Recorded::Contents(1_000_000_000), LABEL)
    };
    assert_eq!(recorded(1_100_000_000).unwrap().bytes, 1_100_000_000);
    for size in [1_100_000_000 + (16 << 20) + 1, 1 << 50, u64::MAX] {
        let error = recorded(size).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("recorded size of 1000000000 bytes"), "{error}");
    }
    let many: String = (0..100)
        .map(|at| json!({ "type": 1, "name": "f", "size": u64::MAX / 50, "position": at }).to_string() + "\n")
        .collect();
    assert!(measure(file(many.as_bytes()), Recorded::Contents(u64::MAX / 2), LABEL).is_err());
    // The tar's own size counts headers too.
    let layer = Layer::new();
    let small = measure(file(&layer.parts.compressed()), Recorded::Tar(0), LABEL).unwrap();
    assert_eq!(small.bytes, layer.tar.len() as u64, "the allowance");
}

#[test]
fn long_lines_and_bombs_are_refused() {
    let line = |length: usize| json!({ "type": 2, "payload": "A".repeat(length), "position": 0 }).to_string();
    let padding = measure(file(&gzip(line(12 << 20).as_bytes())), Recorded::Tar(0), LABEL);
    assert_eq!(padding.unwrap().bytes, 9 << 20);
    let long = measure(file(&gzip(line(17 << 20).as_bytes())), Recorded::Tar(0), LABEL).unwrap_err();
    assert!(long.to_string().contains("line of more than 16777216 bytes"), "{long}");
    let spaces = vec![b' '; 17 << 20];
    assert!(measure(file(&gzip(&spaces)), Recorded::Tar(0), LABEL).unwrap_err().to_string().contains("line of more"));
    let many: String = (0..600)
        .map(|at| json!({ "type": 2, "payload": "", "position": at, "x": " ".repeat(200 << 10) }).to_string() + "\n")
        .collect();
    let bomb = measure(file(&gzip(many.as_bytes())), Recorded::Tar(0), LABEL).unwrap_err();
    assert!(bomb.to_string().contains("decompression bomb"), "{bomb}");
    for damaged in [&b"\x1f\x8b\x08\x00garbage"[..], &gzip(b"{}")[..12], b"\x28\xb5\x2f\xfdgarbage"] {
        let error = measure(file(damaged), Recorded::Tar(0), LABEL).unwrap_err();
        assert!(error.to_string().starts_with(LABEL) && error.kind() == Kind::Invalid, "{error}");
    }
    assert_eq!(measure(file(b""), Recorded::Tar(0), LABEL).unwrap().bytes, 0);
}

#[test]
fn a_layer_without_a_recorded_size_is_bounded_too() {
    let text = |size: u64| json!({ "type": 1, "name": "f", "size": size, "position": 0 }).to_string();
    let found = |size: u64| measure(file(text(size).as_bytes()), Recorded::Unknown, LABEL);
    assert_eq!(found(256 << 30).unwrap().bytes, 256 << 30);
    let error = found((256 << 30) + 1).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("without a recorded size"), "{error}");
}

/// A frame decides how much memory its decompression needs: up to 2 GiB.
#[test]
fn zstd_with_a_large_window_is_refused() {
    use std::io::Write;
    let compressed = |window_log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&[b'\n'; 100]).unwrap();
        encoder.finish().unwrap()
    };
    let told =
        |window_log: u32| measure(file(&compressed(window_log)), Recorded::Tar(0), LABEL).unwrap_err().to_string();
    assert!(told(23).contains("invalid line 0"), "{}", told(23));
    assert!(told(24).contains("its tar-split is damaged"), "{}", told(24));
}

#[test]
fn a_tar_split_that_changes_while_it_is_read_is_refused() {
    let layer = Layer::new();
    let measured = measure(file(&layer.parts.compressed()), Recorded::Tar(800_000), LABEL).unwrap();
    for bytes in [measured.bytes - 1, measured.bytes + 1] {
        let rooted = Rooted::open(layer.dir.path(), Resolution::Kernel).unwrap();
        let other = Measured { bytes, ..measured };
        let split = file(&layer.parts.compressed());
        let mut tar = LayerTar::new(split, &other, Digest::of(&layer.tar), LABEL, |name| rooted.file(name)).unwrap();
        let error = Error::from(tar.read_to_end(&mut Vec::new()).unwrap_err());
        assert!(error.to_string().contains("changed while it was read"), "{error}");
    }
}

#[test]
fn a_layer_with_pax_sparse_files_says_why_it_is_wrong() {
    let header = b"22 GNU.sparse.major=1\n";
    let mut layer = Layer::new();
    let first = json!({ "type": 2, "payload": tar_split::base64(header), "position": 0 });
    layer.parts.lines = vec![first];
    let error = layer.read().unwrap_err();
    assert!(error.to_string().contains("sparse files of the PAX format"), "{error}");
    // The same bytes are right if the digest says so.
    layer.tar = header.to_vec();
    assert!(layer.read().unwrap() == header);
}

#[test]
fn a_tar_split_with_any_byte_changed_ends_in_an_answer() {
    let mut layer = Layer::new();
    layer.parts.lines.truncate(8);
    let text = layer.parts.text().into_bytes();
    for (at, replacement) in
        (0..text.len()).step_by(7).zip([0, b'"', b'{', b'0', b'9', b'=', 0xff, b'\n'].into_iter().cycle())
    {
        let mut changed = text.clone();
        changed[at] = replacement;
        if let Err(error) = layer.read_split(&changed, 0) {
            assert!(error.to_string().starts_with(LABEL), "{error}");
        }
    }
}
