//! A miss: clients that come together, clients that leave, and lines that break.

use super::client::{files, request};
use super::support::fault_proxy::{End, Fault, Ill, Proxy};
use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

/// A mirror behind a line on which things can be done to it.
fn far(layer: &[u8]) -> (Double, Proxy, Arc<TempDir>, Server) {
    let (double, _) = upstream(layer);
    let line = Proxy::start(&double.host());
    let dir = folder();
    let server = mirror_in(&dir, &line.host(), &["--retry", "0"]);
    (double, line, dir, server)
}

/// Holds the line when `bytes` have passed, until what this gives is dropped.
fn hold(line: &Proxy, bytes: u64) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    line.after(bytes, move || {
        let _ = released.recv();
    });
    release
}

/// Begins to read a blob, and has read `n` bytes of it (and its head).
fn begin(server: &Server, digest: &Digest, n: usize) -> (TcpStream, Vec<u8>) {
    let mut stream = server.connect();
    stream.write_all(&request(&server.host, "GET", &blob_path(digest), &[], None)).unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while body(&got).is_none_or(|body| body.len() < n) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..read]);
    }
    (stream, got)
}

fn body(answer: &[u8]) -> Option<&[u8]> {
    answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &answer[at + 4..])
}

#[test]
fn fifty_clients_of_a_cold_blob_share_one_transfer() {
    let layer = noise(1, 3 << 20);
    let (double, line, _dir, server) = far(&layer);
    let digest = Digest::of(&layer);
    // The last of them comes while it is under way.
    let release = hold(&line, 1 << 20);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(|| server.get(&blob_path(&digest)))).collect();
        let (stream, got) = begin(&server, &digest, 300_000);
        assert_eq!(body(&got).unwrap()[..300_000], layer[..300_000]);
        drop(release);
        drop(stream);
        for client in clients {
            assert_eq!(client.join().unwrap().body, layer);
        }
    });
    assert_eq!(double.count("GET", "/blobs/"), 1);
    assert_eq!(double.count("HEAD", "/blobs/"), 1);
}

#[test]
fn a_client_that_leaves_does_not_end_the_fill() {
    let layer = noise(2, 3 << 20);
    let (double, line, dir, server) = far(&layer);
    let digest = Digest::of(&layer);
    let release = hold(&line, 1 << 20);
    drop(begin(&server, &digest, 100_000));
    drop(release);
    eventually("the blob is kept", || blob_file(&cached(&dir), &digest).exists());
    assert_eq!(server.get(&blob_path(&digest)).body, layer);
    assert_eq!(double.count("GET", "/blobs/"), 1);
}

#[test]
fn a_range_works_on_a_miss_and_brings_the_whole_blob() {
    let layer = noise(3, 2 << 20);
    let (double, _line, dir, server) = far(&layer);
    let digest = Digest::of(&layer);
    for (range, from, to) in
        [("bytes=1500000-1600000", 1_500_000, 1_600_001), ("bytes=-100", layer.len() - 100, layer.len())]
    {
        let reply = server.ask("GET", &blob_path(&digest), &[("Range", range)], b"");
        assert_eq!(reply.status, 206);
        assert_eq!(reply.header("content-range"), format!("bytes {from}-{}/{}", to - 1, layer.len()));
        assert!(reply.body == layer[from..to]);
    }
    eventually("the blob is kept", || blob_file(&cached(&dir), &digest).exists());
    assert_eq!(double.count("GET", "/blobs/"), 1);
}

#[test]
fn a_wrong_digest_is_never_cached_and_never_given_whole() {
    let layer = noise(4, 1 << 20);
    let (_double, line, dir, server) = far(&layer);
    let digest = Digest::of(&layer);
    line.does(Fault::once("GET", "/blobs/", Ill::Flip { at: 500_000 }));
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..5).map(|_| scope.spawn(|| server.get(&blob_path(&digest)))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    // Who came late may have had the next transfer, which was right.
    for reply in &replies {
        assert!(reply.body.len() < layer.len() || reply.body == layer);
    }
    assert!(replies.iter().any(|reply| reply.body.len() < layer.len()));
    server.says("does not match");
    assert_eq!(server.get(&blob_path(&digest)).body, layer);
    assert_eq!(std::fs::read(blob_file(&cached(&dir), &digest)).unwrap(), layer);
}

#[test]
fn an_upstream_that_breaks_off_cuts_its_clients_and_is_gone_on_with() {
    let layer = noise(5, 2 << 20);
    let (_double, line, dir, server) = far(&layer);
    let digest = Digest::of(&layer);
    line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 1_200_000, end: End::Fin }));
    let reply = server.get(&blob_path(&digest));
    assert!(reply.status != 200 || reply.body.len() < layer.len());
    assert!(!blob_file(&cached(&dir), &digest).exists());
    assert_eq!(server.get(&blob_path(&digest)).body, layer);
    let ranges: Vec<Option<String>> = line.seen("GET", "/blobs/").into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges.len(), 2);
    let from = ranges[1].as_deref().unwrap().trim_start_matches("bytes=").trim_end_matches('-').to_owned();
    assert!(from.parse::<u64>().unwrap() > 1_000_000, "{ranges:?}");
}

#[test]
fn a_killed_mirror_goes_on_where_it_was() {
    let layer = noise(6, 3 << 20);
    let (_double, line, dir, mut server) = far(&layer);
    let digest = Digest::of(&layer);
    let release = hold(&line, 2 << 20);
    drop(begin(&server, &digest, 1_500_000));
    server.kill();
    drop((server, release));
    assert!(files(&cached(&dir)).iter().any(|file| file.ends_with(".part")));
    let server = mirror_in(&dir, &line.host(), &[]);
    assert_eq!(server.get(&blob_path(&digest)).body, layer);
    let last = line.seen("GET", "/blobs/").pop().unwrap();
    let from = last.range.unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse::<u64>().unwrap();
    assert!(from >= 1 << 20, "{from}");
    assert!(last.down <= (2 << 20), "{}", last.down);
}

#[test]
fn an_upstream_that_has_no_such_blob_is_404_and_one_that_is_down_is_502() {
    let (double, _image) = upstream(&noise(7, 1000));
    let server = mirror(&double.host(), &[]);
    let nothing = blob_path(&Digest::of(b"nothing"));
    let reply = server.get(&nothing);
    assert_eq!((reply.status, &*reply.code()), (404, "BLOB_UNKNOWN"));
    assert_eq!(server.get("/v2/library/app/manifests/none").status, 404);
    let server = mirror("127.0.0.1:1", &[]);
    assert_eq!(server.get(&nothing).status, 502);
    assert_eq!(server.get(TAG).status, 502);
}

#[test]
fn another_host_of_the_same_registry_goes_on_at_the_same_byte() {
    let layer = noise(8, 2 << 20);
    let (first, _) = upstream(&layer);
    let (second, _) = upstream(&layer);
    let line = Proxy::start(&first.host());
    let endpoints = format!("{},docker.io={}", line.host(), second.host());
    let dir = folder();
    let server = mirror_in(&dir, &endpoints, &["--retry", "0"]);
    line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 1_200_000, end: End::Fin }));
    assert_eq!(server.get(&blob_path(&Digest::of(&layer))).body, layer);
    assert_eq!(second.count("GET", "/blobs/"), 1);
    // The registry itself, its mirror gone.
    drop((line, first));
    pull(&server, TAG);
}

#[test]
fn a_mirror_that_is_told_to_stop_ends_what_is_under_way() {
    let layer = noise(10, 3 << 20);
    let (_double, line, _dir, server) = far(&layer);
    let release = hold(&line, 1 << 20);
    let (mut stream, mut got) = begin(&server, &Digest::of(&layer), 100_000);
    server.signal("-TERM");
    eventually("it listens no more", || TcpStream::connect(&server.host).is_err());
    drop(release);
    stream.read_to_end(&mut got).unwrap();
    assert!(body(&got).unwrap() == layer);
}

#[test]
fn a_rate_holds_for_all_that_is_fetched_together() {
    let layers = [noise(12, 300_000), noise(13, 300_000)];
    let double = Double::start();
    for layer in &layers {
        double.put_blob("library/app", layer);
    }
    let server = mirror(&double.host(), &["--limit-rate", "300K"]);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for layer in &layers {
            scope.spawn(|| assert_eq!(server.get(&blob_path(&Digest::of(layer))).body, *layer));
        }
    });
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[test]
fn a_registry_that_wants_to_be_left_alone_is() {
    let layer = noise(11, 1000);
    let (double, _) = upstream(&layer);
    let line = Proxy::start(&double.host());
    let server = mirror(&line.host(), &[]);
    pull(&server, TAG);
    let wish = Some("3600".to_owned());
    line.does(Fault::times(2, "HEAD", "/manifests/1", Ill::Status { status: 429, retry_after: wish }));
    let began = Instant::now();
    assert!(server.get(TAG).header("warning").starts_with("111 "));
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(line.seen("HEAD", "/manifests/1").iter().filter(|seen| seen.status == 429).count(), 1);
}

#[test]
fn a_mirror_is_small_with_many_slow_clients_of_a_cold_blob() {
    let layer = noise(9, 4 << 20);
    let (_double, line, _dir, server) = far(&layer);
    let digest = Digest::of(&layer);
    let release = hold(&line, 2 << 20);
    let clients: Vec<_> = (0..400).map(|_| begin(&server, &digest, 1)).collect();
    let (_, peak) = server.memory();
    assert!(peak < 100 << 10, "{peak} KiB");
    drop(release);
    drop(clients);
}
