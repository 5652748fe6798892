//! The specification's first category: pulling.

use super::*;

#[test]
fn the_base_says_that_the_api_is_here() {
    let server = Server::writable();
    for path in ["/v2/", "/v2"] {
        let base = server.get(path);
        assert_eq!((base.status, base.header("docker-distribution-api-version")), (200, "registry/2.0"));
        assert_eq!(server.head(path).status, 200);
    }
}

#[test]
fn what_is_not_there_is_404_with_the_specifications_codes() {
    let server = Server::writable();
    server.push_image("app", "v1", 1000);
    let absent = Digest::of(b"absent");
    for (path, code) in [
        (format!("/v2/app/blobs/{absent}"), "BLOB_UNKNOWN"),
        (format!("/v2/app/manifests/{absent}"), "MANIFEST_UNKNOWN"),
        ("/v2/app/manifests/absent".into(), "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/v1".into(), "NAME_UNKNOWN"),
        ("/v2/other/tags/list".into(), "NAME_UNKNOWN"),
        ("/v2/app/blobs/uploads/0123456789abcdef0123456789abcdef".into(), "BLOB_UPLOAD_UNKNOWN"),
    ] {
        let reply = server.get(&path);
        assert_eq!((reply.status, reply.code().as_str()), (404, code), "{path}");
        let head = server.head(&path);
        assert_eq!((head.status, head.body.len()), (404, 0), "{path}");
    }
    assert_eq!(server.get("/v2/app/blobs/sha256:12").code(), "DIGEST_INVALID");
    assert_eq!(server.get("/v2/App/tags/list").code(), "NAME_INVALID");
}

#[test]
fn a_manifest_is_had_by_tag_and_by_digest() {
    let server = Server::writable();
    let [_, _, manifest] = server.push_image("team/app", "v1", 1000);
    let digest = Digest::of(&manifest).to_string();
    for reference in ["v1", &digest] {
        let path = format!("/v2/team/app/manifests/{reference}");
        let (got, head) = (server.get(&path), server.head(&path));
        assert!(got.status == 200 && got.body == manifest, "{path}");
        for reply in [&got, &head] {
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("content-type"), media_type::OCI_MANIFEST);
            assert_eq!(reply.header("content-length"), manifest.len().to_string());
            assert_eq!(reply.header("docker-content-digest"), digest);
        }
        let known = server.ask("GET", &path, &[("If-None-Match", got.header("etag"))], b"");
        assert_eq!((known.status, known.body.len()), (304, 0));
    }
}

#[test]
fn accept_is_heeded() {
    let server = Server::writable();
    server.push_image("app", "v1", 10);
    let ask = |accept: &[&str]| {
        let headers: Vec<_> = accept.iter().map(|accept| ("Accept", *accept)).collect();
        server.ask("GET", "/v2/app/manifests/v1", &headers, b"").status
    };
    assert_eq!(ask(&[]), 200);
    assert_eq!(ask(&["*/*"]), 200);
    assert_eq!(ask(&[media_type::DOCKER_MANIFEST, media_type::OCI_MANIFEST]), 200);
    assert_eq!(ask(&[&format!("{}, {};q=0.5", media_type::DOCKER_LIST, media_type::OCI_MANIFEST)]), 200);
    assert_eq!(ask(&[media_type::DOCKER_MANIFEST]), 404);
}

#[test]
fn a_blob_is_had_whole_and_in_parts() {
    let server = Server::writable();
    let [_, layer, _] = server.push_image("app", "v1", 700_000);
    let path = format!("/v2/app/blobs/{}", Digest::of(&layer));
    let (whole, head) = (server.get(&path), server.head(&path));
    assert!(whole.body == layer);
    for reply in [&whole, &head] {
        assert_eq!((reply.status, reply.header("content-length")), (200, "700000"));
        assert_eq!(reply.header("docker-content-digest"), Digest::of(&layer).to_string());
        assert_eq!(reply.header("accept-ranges"), "bytes");
    }
    let part = |range: &str| server.ask("GET", &path, &[("Range", range)], b"");
    for (range, from, to) in
        [("bytes=0-0", 0, 0), ("bytes=5-9", 5, 9), ("bytes=699999-", 699_999, 699_999), ("bytes=-3", 699_997, 699_999)]
    {
        let reply = part(range);
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.header("content-range"), format!("bytes {from}-{to}/700000"), "{range}");
        assert!(reply.body == layer[from..=to], "{range}");
    }
    let beyond = part("bytes=700000-");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */700000"));
    assert_eq!(part("bytes=a-b").status, 200);
    let other = [("Range", "bytes=5-9"), ("If-Range", "\"sha256:other\"")];
    assert_eq!(server.ask("GET", &path, &other, b"").status, 200);
    let same = [("Range", "bytes=5-9"), ("If-Range", whole.header("etag"))];
    assert_eq!(server.ask("GET", &path, &same, b"").status, 206);
}

#[test]
fn every_byte_range_of_a_large_blob_is_right_while_others_read() {
    let server = Server::writable();
    let [_, layer, _] = server.push_image("app", "v1", 3 << 20);
    let path = format!("/v2/app/blobs/{}", Digest::of(&layer));
    std::thread::scope(|scope| {
        for nth in 0..40 {
            let (server, path, layer) = (&server, &path, &layer);
            scope.spawn(move || {
                let from = nth * 77_777;
                let reply = server.ask("GET", path, &[("Range", &format!("bytes={from}-"))], b"");
                assert!(reply.status == 206 && reply.body == layer[from..]);
            });
        }
    });
}
