//! A containerd that lies, or is none: each case ends in a sentence that says what was wrong, and nothing panics.

use crate::support::containerd_stand_in::{Answer, Answers, StandIn, field, framed, number};
use crate::support::program::{Output, imgmv};
use imgmv::Digest;
use std::path::Path;
use tempfile::TempDir;

const NAME: &str = "docker.io/t/app:1";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// The fields of `types.Descriptor`.
fn descriptor(media_type: &str, digest: &str, size: i64) -> Vec<u8> {
    [field(1, media_type.as_bytes()), field(2, digest.as_bytes()), number(3, size)].concat()
}

/// A list with one image.
fn image(digest: &str, size: i64) -> Vec<u8> {
    let target = descriptor(MANIFEST_TYPE, digest, size);
    field(1, &[field(1, NAME.as_bytes()), field(3, &target)].concat())
}

/// A part of a blob.
fn part(offset: i64, data: &[u8]) -> Vec<u8> {
    framed(&[number(1, offset), field(2, data)].concat())
}

/// One namespace without images.
fn honest() -> Answers {
    let namespace = field(1, &field(1, b"default"));
    Answers::from([
        ("Namespaces/List", Answer::message(&namespace)),
        ("Images/List", Answer::message(&image(&Digest::of(b"x").to_string(), 1))),
        ("Introspection/Plugins", Answer::message(b"")),
        ("Leases/Create", Answer::message(b"")),
        ("Leases/Delete", Answer::message(b"")),
    ])
}

fn list(socket: &Path) -> Output {
    imgmv(&["list", "containerd:", "--src-address", socket.to_str().unwrap(), "--timeout", "1"], None)
}

fn told(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(status), "{}", output.stderr);
    for word in words {
        assert!(output.stderr.contains(word), "{word:?}: {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    assert!(!output.stderr.contains('\u{1b}'), "{}", output.stderr);
}

/// The start of a message that says it is so long.
fn long(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

#[test]
fn answers_to_a_list_are_not_believed() {
    let good = Digest::of(b"x").to_string();
    let cases: Vec<(&'static str, Answer, i32, &[&str])> = vec![
        ("Namespaces/List", Answer::bytes(long(2 << 20)), 5, &["message of 2097152 bytes", "at most"]),
        ("Images/List", Answer::bytes(long((64 << 20) + 1)), 5, &["message of 67108865 bytes", "at most 67108864"]),
        ("Images/List", Answer::bytes(vec![1, 0, 0, 0, 0]), 5, &["compressed message"]),
        ("Images/List", Answer::bytes(vec![0, 0, 0, 0, 9, 1]), 5, &["cut off"]),
        ("Images/List", Answer::bytes(Vec::new()), 5, &["no message"]),
        ("Images/List", Answer::bytes([framed(b""), framed(b"")].concat()), 5, &["two messages"]),
        ("Images/List", Answer::message(&[0xff; 40]), 5, &["cannot be decoded"]),
        ("Images/List", Answer::message(&image("sha256:12", 1)), 5, &["wrong digest"]),
        ("Images/List", Answer::message(&image(&good, -1)), 5, &["negative size"]),
        ("Images/List", Answer::message(&[0x0a, 0x00].repeat(100_001)), 5, &["more than"]),
        ("Images/List", Answer::status("7", "not%20for%1b%5b31myou"), 4, &["not for", "status 7"]),
        ("Images/List", Answer::status("2", "boom"), 7, &["boom"]),
        ("Images/List", Answer::silence(), 7, &["no progress", "--timeout"]),
        ("Images/List", Answer::message(&image(&good, 1)).trickling(), 7, &["no progress", "--timeout"]),
        (
            "Images/List",
            Answer {
                headers: vec![("content-type", "application/grpc".into()), ("grpc-status", "5".into())],
                trailers: Some(Vec::new()),
                ..Answer::silence()
            },
            3,
            &["status 5"],
        ),
        (
            "Images/List",
            Answer {
                status: 404,
                headers: vec![("content-type", "text/html".into())],
                body: b"<html>".to_vec(),
                trailers: Some(Vec::new()),
                ..Answer::silence()
            },
            5,
            &["HTTP 404", "not containerd's"],
        ),
        (
            "Images/List",
            Answer { trailers: Some(vec![("x-big", "y".repeat(100_000))]), ..Answer::message(b"") },
            7,
            &["listing images failed"],
        ),
    ];
    for (call, answer, status, words) in cases {
        let mut answers = honest();
        answers.insert(call, answer);
        told(&list(&StandIn::start(answers).socket()), status, words);
    }
    let honest = list(&StandIn::start(honest()).socket());
    assert!(honest.status.success() && honest.stdout.contains(NAME), "{}", honest.stderr);
}

#[test]
fn what_does_not_speak_http_2_is_said_to_be_no_containerd() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0; 4096]] {
        let words = ["listing images failed", "does not speak HTTP/2", "another program's"];
        told(&list(&StandIn::sending(bytes).socket()), 5, &words);
    }
    told(&list(&StandIn::sending(b"").socket()), 7, &["listing images failed"]);
}

#[test]
fn bytes_of_a_blob_are_checked_as_they_come() {
    let layer = vec![7; 3000];
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let pointer = |media_type: &str, bytes: &[u8]| {
        let (digest, size) = (Digest::of(bytes), bytes.len());
        format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{digest}\",\"size\":{size}}}")
    };
    let (config, blob) = (pointer(CONFIG_TYPE, config), pointer(LAYER_TYPE, &layer));
    let manifest = format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{blob}]}}").into_bytes();
    let cases: Vec<(Answer, i32, &str)> = vec![
        (Answer::bytes(part(5, &manifest)), 5, "offset 5 instead of 0"),
        (Answer::bytes(part(0, &vec![b' '; 3 << 20])), 5, "more than the 339 bytes announced"),
        (Answer::bytes(part(0, &manifest[1..])), 5, "does not match"),
        (Answer::bytes(part(0, b"")), 5, "without bytes"),
        (Answer::bytes([part(0, &manifest), part(0, &manifest)].concat()), 5, "at offset 0 instead of 339"),
        (Answer::status("5", "gone"), 3, "is not in the content store"),
        (Answer { trailers: None, ..Answer::bytes(part(0, &manifest)) }, 5, "more than the 339 bytes announced"),
        (Answer::silence(), 7, "made no progress for 1 seconds (--timeout)"),
        (Answer::bytes(part(0, &manifest)).trickling(), 7, "made no progress for 1 seconds (--timeout)"),
        (Answer::bytes(long((16 << 20) + 1)), 5, "message of 16777217 bytes; at most"),
    ];
    for (answer, status, word) in cases {
        let mut answers = honest();
        let listed = image(&Digest::of(&manifest).to_string(), manifest.len() as i64);
        answers.insert("Images/List", Answer::message(&listed));
        answers.insert("Content/Read", answer);
        let stand_in = StandIn::start(answers);
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.tar");
        let (socket, file) = (stand_in.socket(), file.to_str().unwrap());
        let socket = socket.to_str().unwrap();
        let copied = imgmv(&["copy", "containerd:", file, "--src-address", socket, "--timeout", "1"], None);
        told(&copied, status, &[word]);
        assert!(!Path::new(file).exists());
    }
}

#[test]
fn answers_to_a_write_are_not_believed() {
    let state = |offset: i64| framed(&[number(1, 0), number(4, offset)].concat());
    let cases: Vec<(&'static str, Answer, i32, &str)> = vec![
        ("Content/Write", Answer { trailers: None, ..Answer::bytes(state(1 << 40)) }, 5, "of an ingest of"),
        ("Content/Write", Answer { trailers: None, ..Answer::bytes(state(-1)) }, 5, "-1 bytes of an ingest"),
        (
            "Content/Write",
            Answer { trailers: None, ..Answer::bytes([state(0), state(3)].concat()) },
            5,
            "acknowledged 3 bytes",
        ),
        ("Content/Write", Answer::bytes(Vec::new()), 5, "without an answer"),
        ("Content/Write", Answer::bytes(long((16 << 20) + 1)), 5, "message of 16777217 bytes; at most"),
        ("Content/Write", Answer::silence(), 7, "no progress"),
        ("Content/Write", Answer::status("8", "no space left on device"), 8, "no space left"),
        ("Leases/Create", Answer::status("7", "no"), 4, "creating a lease"),
        ("Introspection/Plugins", Answer::bytes(vec![0, 0xff, 0xff, 0xff, 0xff]), 5, "at most"),
    ];
    for (call, answer, status, word) in cases {
        let mut answers = honest();
        answers.insert(call, answer);
        let stand_in = StandIn::start(answers);
        let socket = stand_in.socket();
        let arguments = ["copy", "fixtures/hello-crane.tar", "containerd:a:1", "--timeout", "1", "--dst-address"];
        let copied = imgmv(&[&arguments[..], &[socket.to_str().unwrap()]].concat(), None);
        told(&copied, status, &[word]);
    }
}
