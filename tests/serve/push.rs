//! The specification's second category: pushing.

use super::*;
use client::request;
use std::io::{Read, Write};

fn begin(server: &Server, repository: &str) -> String {
    let begun = server.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
    assert_eq!(begun.status, 202);
    assert!(!begun.header("docker-upload-uuid").is_empty());
    begun.header("location").to_owned()
}

fn has(server: &Server, repository: &str, bytes: &[u8]) {
    let got = server.get(&format!("/v2/{repository}/blobs/{}", Digest::of(bytes)));
    assert!(got.status == 200 && got.body == bytes);
}

#[test]
fn a_blob_comes_in_one_request() {
    let server = Server::writable();
    for bytes in [noise(1, 100_000), Vec::new(), b"x".to_vec()] {
        let digest = Digest::of(&bytes);
        let done = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"), &[], &bytes);
        assert_eq!((done.status, done.header("docker-content-digest")), (201, &*digest.to_string()));
        assert_eq!(done.header("location"), format!("/v2/app/blobs/{digest}"));
        has(&server, "app", &bytes);
    }
}

#[test]
fn a_blob_comes_in_two_requests() {
    let server = Server::writable();
    let bytes = noise(2, 1_000_000);
    let digest = server.push_blob("team/app", &bytes);
    has(&server, "team/app", &bytes);
    // Once more is no error.
    assert_eq!(server.push_blob("team/app", &bytes), digest);
}

#[test]
fn a_blob_comes_streamed_without_a_length() {
    let server = Server::writable();
    let (bytes, at) = (noise(3, 300_000), begin(&server, "app"));
    let mut stream = server.connect();
    let headers = [("Transfer-Encoding", "chunked")];
    stream.write_all(&request(&server.host, "PATCH", &at, &headers, None)).unwrap();
    for piece in bytes.chunks(70_000) {
        write!(stream, "{:x}\r\n", piece.len()).unwrap();
        stream.write_all(piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let reply = Reply::read(&mut stream, "PATCH").unwrap();
    assert_eq!((reply.status, reply.header("range")), (202, "0-299999"));
    let done = server.ask("PUT", &format!("{}?digest={}", reply.header("location"), Digest::of(&bytes)), &[], b"");
    assert_eq!(done.status, 201);
    has(&server, "app", &bytes);
}

#[test]
fn chunks_come_in_order_or_not_at_all() {
    let server = Server::writable();
    let bytes = noise(4, 250_000);
    let chunk = |at: &str, method: &str, from: usize, to: usize| {
        let range = format!("{from}-{}", to - 1);
        let headers = [("Content-Range", &*range), ("Content-Type", media_type::OCTETS)];
        server.ask(method, at, &headers, &bytes[from..to])
    };
    let at = begin(&server, "app");
    let early = chunk(&at, "PATCH", 100_000, 200_000);
    assert_eq!((early.status, early.code().as_str()), (416, "BLOB_UPLOAD_INVALID"));
    let first = chunk(&at, "PATCH", 0, 100_000);
    assert_eq!((first.status, first.header("range")), (202, "0-99999"));
    let again = chunk(&at, "PATCH", 0, 100_000);
    assert_eq!((again.status, again.header("range")), (416, "0-99999"));
    let second = chunk(first.header("location"), "PATCH", 100_000, 200_000);
    assert_eq!((second.status, second.header("range")), (202, "0-199999"));
    let status = server.get(second.header("location"));
    assert_eq!((status.status, status.header("range")), (204, "0-199999"));
    assert_eq!(server.head(second.header("location")).header("range"), "0-199999");
    let with_digest = format!("{}?digest={}", second.header("location"), Digest::of(&bytes));
    assert_eq!(chunk(&with_digest, "PUT", 0, 50_000).status, 416);
    assert_eq!(chunk(&with_digest, "PUT", 200_000, 250_000).status, 201);
    has(&server, "app", &bytes);
    assert_eq!(server.get(&at).code(), "BLOB_UPLOAD_UNKNOWN");
    // A length that belies the range.
    let at = begin(&server, "app");
    let reply = server.ask("PATCH", &at, &[("Content-Range", "0-9")], b"123");
    assert_eq!((reply.status, reply.code().as_str()), (400, "SIZE_INVALID"));
    assert_eq!(server.ask("PATCH", &at, &[("Content-Range", "nine")], b"123").status, 400);
}

#[test]
fn an_upload_that_was_cut_goes_on_by_the_byte() {
    let server = Server::writable();
    let bytes = noise(5, 3_000_000);
    for (cut, alive) in [(1, false), (1_234_567, false), (70_000, true), (2_999_999, true)] {
        let at = begin(&server, "app");
        let mut stream = server.connect();
        let head = request(&server.host, "PATCH", &at, &[("Expect", "100-continue")], Some(bytes.len() as u64));
        stream.write_all(&head).unwrap();
        // From here on the server is on this request.
        stream.read_exact(&mut [0; 25]).unwrap();
        stream.write_all(&bytes[..cut]).unwrap();
        // Either the connection breaks, or its client is gone without a word and the server does not know.
        let kept_open = alive.then_some(stream);
        let status = server.get(&at);
        assert_eq!(status.status, 204);
        let kept: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
        // `0-0` is nothing: a single byte is not kept.
        let kept = if kept == 0 { 0 } else { kept + 1 };
        assert!(kept <= cut);
        let range = format!("{kept}-{}", bytes.len() - 1);
        let rest = server.ask("PATCH", &at, &[("Content-Range", &range)], &bytes[kept..]);
        assert_eq!((rest.status, rest.header("range")), (202, "0-2999999"), "{cut}");
        let digest = Digest::of(&bytes);
        assert_eq!(server.ask("PUT", &format!("{at}?digest={digest}"), &[], b"").status, 201, "{cut}");
        has(&server, "app", &bytes);
        drop(kept_open);
    }
}

#[test]
fn a_cut_push_that_nobody_can_go_on_with_leaves_nothing() {
    let server = Server::writable();
    let bytes = noise(13, 500_000);
    let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::of(&bytes));
    let mut stream = server.connect();
    stream.write_all(&request(&server.host, "POST", &path, &[("Expect", "100-continue")], Some(500_000))).unwrap();
    stream.read_exact(&mut [0; 25]).unwrap();
    stream.write_all(&bytes[..400_000]).unwrap();
    drop(stream);
    server.says(" 408 ");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while client::files(&server.store()) != ["app/index.json", "app/oci-layout"] {
        assert!(std::time::Instant::now() < until, "{:?}", client::files(&server.store()));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn what_has_another_digest_is_not_kept() {
    let server = Server::writable();
    let (wrong, bytes) = (Digest::of(b"other"), noise(6, 10_000));
    let posted = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={wrong}"), &[], &bytes);
    assert_eq!((posted.status, posted.code().as_str()), (400, "DIGEST_INVALID"));
    let at = begin(&server, "app");
    let put = server.ask("PUT", &format!("{at}?digest={wrong}"), &[], &bytes);
    assert_eq!((put.status, put.code().as_str()), (400, "DIGEST_INVALID"));
    for missing in [at.clone(), format!("{at}?digest=md5:12"), format!("{at}?digest=")] {
        assert_eq!(server.ask("PUT", &missing, &[], &bytes).code(), "DIGEST_INVALID");
    }
    assert_eq!(server.get(&format!("/v2/app/blobs/{wrong}")).status, 404);
    assert_eq!(server.get(&format!("/v2/app/blobs/{}", Digest::of(&bytes))).status, 404);
    assert_eq!(client::files(&server.store()), ["app/index.json", "app/oci-layout"]);
}

#[test]
fn an_upload_can_be_cancelled() {
    let server = Server::writable();
    let at = begin(&server, "app");
    assert_eq!(server.ask("PATCH", &at, &[], b"some").status, 202);
    assert_eq!(server.delete(&at).status, 204);
    assert_eq!((server.get(&at).status, server.delete(&at).status), (404, 404));
    assert_eq!(client::files(&server.store()), ["app/index.json", "app/oci-layout"]);
    // It belongs to its repository.
    let at = begin(&server, "app");
    assert_eq!(server.get(&at.replace("/app/", "/other/")).status, 404);
}

#[test]
fn a_blob_is_mounted_from_another_repository() {
    use std::os::unix::fs::MetadataExt;
    let server = Server::writable();
    let bytes = noise(7, 100_000);
    let digest = server.push_blob("from/here", &bytes);
    let mount = |into: &str, from: &str| {
        server.ask("POST", &format!("/v2/{into}/blobs/uploads/?mount={digest}{from}"), &[], b"")
    };
    let mounted = mount("to/there", "&from=from/here");
    assert_eq!((mounted.status, mounted.header("location")), (201, &*format!("/v2/to/there/blobs/{digest}")));
    has(&server, "to/there", &bytes);
    let automatic = mount("and/there", "");
    assert_eq!(automatic.status, 201);
    has(&server, "and/there", &bytes);
    // Its bytes lie on the disk once.
    let file = server.store().join("to/there/blobs/sha256").join(digest.hex());
    assert_eq!(std::fs::metadata(file).unwrap().nlink(), 4);
    // From where it is not, an upload begins in its place.
    for from in ["&from=no/where", "&from=..%2F..", "&from=to/nowhere"] {
        let begun = mount("else/where", from);
        assert_eq!(begun.status, 202, "{from}");
        assert!(begun.header("location").starts_with("/v2/else/where/blobs/uploads/"));
    }
    let absent = server.ask("POST", &format!("/v2/app/blobs/uploads/?mount={}", Digest::of(b"absent")), &[], b"");
    assert_eq!(absent.status, 202);
}

#[test]
fn the_same_blob_in_two_repositories_takes_its_space_once() {
    use std::os::unix::fs::MetadataExt;
    let server = Server::writable();
    let bytes = noise(8, 100_000);
    let digest = server.push_blob("one", &bytes);
    server.push_blob("two", &bytes);
    let file = |repository: &str| server.store().join(repository).join("blobs/sha256").join(digest.hex());
    let inode = |repository: &str| std::fs::metadata(file(repository)).unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
}

#[test]
fn sha512_is_a_digest_too() {
    let server = Server::writable();
    let (config, layer) = (b"{}".to_vec(), noise(9, 100_000));
    for bytes in [&config, &layer] {
        let digest = sha512(bytes);
        let at = begin(&server, "app");
        assert_eq!(server.ask("PATCH", &at, &[], bytes).status, 202);
        assert_eq!(server.ask("PUT", &format!("{at}?digest={digest}"), &[], b"").status, 201);
        assert!(server.get(&format!("/v2/app/blobs/{digest}")).body == *bytes);
    }
    let whole = noise(10, 5000);
    let posted = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={}", sha512(&whole)), &[], &whole);
    assert_eq!(posted.status, 201);
    assert_eq!(server.ask("POST", "/v2/app/blobs/uploads/?digest-algorithm=sha512", &[], b"").status, 202);
    let descriptor = |bytes: &[u8]| Descriptor::new(media_type::OCI_CONFIG, sha512(bytes), bytes.len() as u64);
    let more = json!({ "config": descriptor(&config), "layers": [descriptor(&layer)] });
    let manifest = manifest(&config, &[], more);
    let digest = sha512(&manifest);
    let put = server.push_manifest("app", &digest.to_string(), &manifest);
    assert_eq!((put.status, put.header("docker-content-digest")), (201, &*digest.to_string()));
    let got = server.get(&format!("/v2/app/manifests/{digest}"));
    assert!(got.body == manifest && got.header("docker-content-digest") == digest.to_string());
    let tagged = server.push_manifest("app", &format!("v1?digest={digest}"), &manifest);
    assert_eq!((tagged.status, tagged.header("docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(server.head("/v2/app/manifests/v1").header("docker-content-digest"), digest.to_string());
}

#[test]
fn a_manifest_comes_after_what_it_points_at() {
    let server = Server::writable();
    let (config, layer) = (b"{\"os\":\"linux\"}".to_vec(), noise(11, 1000));
    let manifest = manifest(&config, &[&layer], Value::Null);
    for bytes in [&config, &layer] {
        let early = server.push_manifest("app", "v1", &manifest);
        assert_eq!((early.status, early.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
        server.push_blob("app", bytes);
    }
    let early = server.push_manifest("app", "all", &index(&[&manifest]));
    assert_eq!((early.status, early.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    let put = server.push_manifest("app", "v1", &manifest);
    let digest = Digest::of(&manifest).to_string();
    assert_eq!((put.status, put.header("docker-content-digest")), (201, &*digest));
    assert_eq!(put.header("location"), format!("/v2/app/manifests/{digest}"));
    assert_eq!(server.push_manifest("app", "all", &index(&[&manifest])).status, 201);
    assert!(server.get("/v2/app/manifests/v1").body == manifest);
    // In another repository its blobs are not.
    assert_eq!(server.push_manifest("other", "v1", &manifest).code(), "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn a_manifest_pushed_by_digest_takes_its_tags_along() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    let image = manifest(b"{}", &[], Value::Null);
    let put = server.push_manifest("app", &format!("{}?tag=v1&tag=latest", Digest::of(&image)), &image);
    assert_eq!((put.status, put.header("oci-tag")), (201, "v1, latest"));
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!(["latest", "v1"]));
    assert_eq!(server.push_manifest("app", &format!("{}?tag=..", Digest::of(&image)), &image).status, 400);
}

#[test]
fn a_large_manifest_is_taken_and_given() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    let long: serde_json::Map<String, Value> = (0..390).map(|n| (format!("n{n}"), json!("A".repeat(10_000)))).collect();
    let image = manifest(b"{}", &[], json!({ "annotations": long }));
    assert_eq!(server.push_manifest("app", "large", &image).status, 201);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert!(server.get("/v2/app/manifests/large").body == image));
        }
    });
    assert!(server.memory().1 < 100_000, "{} kB", server.memory().1);
}

#[test]
fn a_repository_that_was_removed_from_the_disk_begins_anew() {
    let server = Server::writable();
    server.push_image("app", "v1", 1000);
    std::fs::remove_dir_all(server.store().join("app")).unwrap();
    assert_eq!(server.get("/v2/app/manifests/v1").status, 404);
    let [_, _, image] = server.push_image("app", "v2", 1000);
    assert!(server.get("/v2/app/manifests/v2").body == image);
}

#[test]
fn a_repository_that_is_just_being_made_is_not_there_yet() {
    let server = Server::writable();
    std::fs::create_dir_all(server.store().join("app")).unwrap();
    std::fs::write(server.store().join("app/oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    assert_eq!(server.get("/v2/app/manifests/v1").status, 404);
    let [_, _, image] = server.push_image("app", "v1", 1000);
    assert!(server.get("/v2/app/manifests/v1").body == image);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let server = Server::writable();
    let put = |reference: &str, media_type: &str, bytes: &[u8]| {
        let path = format!("/v2/app/manifests/{reference}");
        server.ask("PUT", &path, &[("Content-Type", media_type)], bytes)
    };
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    for (media_type, bytes) in [
        (media_type::OCI_MANIFEST, &b"not json"[..]),
        (media_type::OCI_MANIFEST, b"{}"),
        (media_type::OCI_MANIFEST, b""),
        (media_type::OCI_INDEX, both),
        ("application/vnd.example+json", b"{}"),
        (media_type::DOCKER_SCHEMA1[0], br#"{"schemaVersion":1,"fsLayers":[]}"#),
    ] {
        let reply = put("v1", media_type, bytes);
        assert_eq!((reply.status, reply.code().as_str()), (400, "MANIFEST_INVALID"), "{media_type}");
    }
    let empty = index(&[]);
    let other = put(&Digest::of(b"other").to_string(), media_type::OCI_INDEX, &empty);
    assert_eq!((other.status, other.code().as_str()), (400, "DIGEST_INVALID"));
    let large = vec![b' '; (4 << 20) + 1];
    assert_eq!(put("v1", media_type::OCI_INDEX, &large).status, 413);
    assert_eq!(put("v1", media_type::OCI_INDEX, &empty).status, 201);
}

#[test]
fn a_subject_is_acknowledged_and_need_not_be_there() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    let subject = Descriptor::of(media_type::OCI_MANIFEST, b"not here");
    let artifact = manifest(b"{}", &[], json!({ "subject": subject, "artifactType": "application/vnd.example" }));
    let put = server.push_manifest("app", &Digest::of(&artifact).to_string(), &artifact);
    assert_eq!((put.status, put.header("oci-subject")), (201, &*subject.digest.to_string()));
    let plain = server.push_manifest("app", "plain", &manifest(b"{}", &[], Value::Null));
    assert_eq!((plain.status, plain.find("oci-subject")), (201, None));
}

#[test]
fn the_same_blob_is_pushed_by_many_at_once() {
    let server = Server::writable();
    let bytes = noise(12, 2_000_000);
    std::thread::scope(|scope| {
        for nth in 0..16 {
            let (server, bytes) = (&server, &bytes);
            scope.spawn(move || server.push_blob(if nth % 2 == 0 { "one" } else { "two" }, bytes));
        }
    });
    has(&server, "one", &bytes);
    has(&server, "two", &bytes);
    let blob = format!("blobs/sha256/{}", Digest::of(&bytes).hex());
    let expected: Vec<String> = [".imgmv-shared", "one", "two"].iter().map(|place| format!("{place}/{blob}")).collect();
    let there: Vec<String> = client::files(&server.store()).into_iter().filter(|name| name.contains("blobs")).collect();
    assert_eq!(there, expected);
}

#[test]
fn many_tags_are_pushed_at_once_and_none_is_lost() {
    let server = Server::writable();
    server.push_blob("app", b"{}");
    let second = Server::writable_in(server.dir.clone(), &[]);
    std::thread::scope(|scope| {
        for nth in 0..24 {
            let server = if nth % 2 == 0 { &server } else { &second };
            scope.spawn(move || {
                let one = manifest(b"{}", &[], json!({ "annotations": { "nth": nth.to_string() } }));
                assert_eq!(server.push_manifest("app", &format!("v{nth}"), &one).status, 201);
            });
        }
    });
    for server in [&server, &second] {
        assert_eq!(server.get("/v2/app/tags/list").json()["tags"].as_array().unwrap().len(), 24);
    }
}

#[test]
fn what_was_pushed_is_a_layout_for_everybody() {
    let server = Server::writable();
    let [_, _, manifest] = server.push_image("team/app", "v1", 100_000);
    let layout = server.store().join("team/app");
    let (from, to) = (format!("oci:{}:v1", layout.display()), server.dir.path().join("copy").display().to_string());
    let said = super::support::program::imgmv(&["copy", "-q", &from, &format!("oci:{to}")], None);
    assert!(said.status.success(), "{}", said.stderr);
    assert!(said.stdout.contains(&Digest::of(&manifest).to_string()), "{}", said.stdout);
    // And what another writes there is served.
    let tagged = super::support::program::imgmv(&["tag", &format!("oci:{}:v1", layout.display()), "v2", "-q"], None);
    assert!(tagged.status.success(), "{}", tagged.stderr);
    assert!(server.get("/v2/team/app/manifests/v2").body == manifest);
    assert_eq!(server.get("/v2/team/app/tags/list").json()["tags"], json!(["v1", "v2"]));
}
