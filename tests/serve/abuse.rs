//! Clients that are slow, wrong, or up to something.

use super::*;
use client::request;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A server that loses patience after three seconds, beside one that does not.
fn impatient() -> (Server, Server) {
    let patient = Server::writable();
    (Server::writable_in(patient.dir.clone(), &["--idle-timeout", "3"]), patient)
}

/// Waits for the server to end the connection.
fn ends(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let read = stream.read_to_end(&mut rest);
    assert!(!matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "it was left open");
    rest
}

#[test]
fn no_path_leads_out() {
    let server = Server::writable();
    server.push_image("app", "v1", 10);
    std::fs::write(server.dir.path().join("secret"), "secret").unwrap();
    for path in [
        "/v2/../../secret",
        "/v2/..%2f..%2fsecret/manifests/v1",
        "/v2/%2e%2e/manifests/secret",
        "/v2/app/manifests/..%2f..%2f..%2fsecret",
        "/v2/app/blobs/sha256:../../../../secret",
        "/v2/app/blobs/..%2f..%2f..%2fsecret",
        "/v2/app/blobs/uploads/..%2f..%2f..%2fsecret",
        "/v2/app/blobs/uploads/%00",
        "/v2/.imgmv-shared/tags/list",
        "/v2/app%00/tags/list",
        "/v2//app/tags/list",
        "//v2/app/tags/list",
        "/v2/app/../app/tags/list",
        "/../v2/app/tags/list",
        "/v2/app\\..\\app/tags/list",
    ] {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let reply = server.ask(method, path, &[], b"x");
            assert!((400..500).contains(&reply.status), "{method} {path}: {}", reply.status);
            assert!(!reply.text().contains("secret\n") && reply.body != b"secret", "{method} {path}");
        }
    }
    let mount = format!("/v2/app/blobs/uploads/?mount={}&from=../..", Digest::of(b"secret"));
    assert_eq!(server.ask("POST", &mount, &[], b"").status, 202);
}

#[test]
fn heads_have_bounds() {
    let server = Server::writable();
    let long = "x".repeat(40_000);
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for (head, statuses) in [
        (format!("GET /v2/{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), [414, 431]),
        (format!("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), [431, 400]),
        (format!("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), [431, 400]),
        ("BOO\r\n\r\n".to_owned(), [400, 400]),
        ("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(), [400, 400]),
        ("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".into(), [400, 400]),
        ("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n".into(), [400, 501]),
    ] {
        let reply = server.raw(head.as_bytes());
        assert!(statuses.contains(&reply.status), "{}: {}", &head[..20], reply.status);
    }
    assert_eq!(server.get("/v2/").status, 200);
}

#[test]
fn two_lengths_smuggle_nothing() {
    let server = Server::writable();
    let inner = "GET /v2/_catalog HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = format!(
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        inner.len() + 5
    );
    let mut stream = server.connect();
    stream.write_all(format!("{head}0\r\n\r\n{inner}").as_bytes()).unwrap();
    let first = Reply::read(&mut stream, "POST").unwrap();
    // Either it is refused, or what follows is another request on an honest reading; the length is not believed.
    assert!(first.status == 400 || first.status == 202, "{}", first.status);
}

#[test]
fn whoever_keeps_the_server_waiting_is_let_go() {
    let (server, patient) = impatient();
    let [_, layer, _] = patient.push_image("app", "v1", 40 << 20);
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    let at = begun.header("location");
    let silent = server.connect();
    let mut slow_head = server.connect();
    slow_head.write_all(b"GET /v2/ HTTP/1.1\r\nHo").unwrap();
    let mut idle = server.connect();
    idle.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut slow_body = server.connect();
    slow_body.write_all(&request(&server.host, "PATCH", at, &[], Some(1000))).unwrap();
    slow_body.write_all(&[7; 100]).unwrap();
    let mut slow_manifest = server.connect();
    slow_manifest.write_all(&request(&server.host, "PUT", "/v2/app/manifests/v2", &[], Some(1000))).unwrap();
    let mut reader = server.connect();
    reader
        .write_all(&request(&server.host, "GET", &format!("/v2/app/blobs/{}", Digest::of(&layer)), &[], None))
        .unwrap();
    for mut stream in [silent, slow_head, slow_manifest] {
        ends(&mut stream);
    }
    assert!(ends(&mut idle).starts_with(b"HTTP/1.1 200"));
    assert!(ends(&mut slow_body).starts_with(b"HTTP/1.1 408"));
    // What it did send is kept.
    assert_eq!(server.get(at).header("range"), "0-99");
    // Who does not read gets only what fits into the buffers on the way.
    server.says("disconnected");
    assert!(ends(&mut reader).len() < layer.len());
}

#[test]
fn a_body_that_drips_is_ended() {
    let (server, _) = impatient();
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    let mut stream = server.connect();
    stream.write_all(&request(&server.host, "PATCH", begun.header("location"), &[], Some(1_000_000))).unwrap();
    let mut sent = 0;
    let until = Instant::now() + Duration::from_secs(60);
    while stream.write_all(b"x").is_ok() {
        assert!(Instant::now() < until, "{sent} bytes went through one by one");
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_thousand_connections_at_once_take_less_than_100_megabytes() {
    let server = Server::writable_in(tempfile::TempDir::new().unwrap().into(), &["--log", "none"]);
    let [_, layer, manifest] = server.push_image("app", "v1", 20 << 20);
    let path = format!("/v2/app/blobs/{}", Digest::of(&layer));
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut streams = Vec::new();
    for nth in 0..1000 {
        let mut stream = server.connect();
        match nth % 4 {
            // Who never reads, who never ends a head, who pulls and stops, who says nothing.
            0 | 1 => stream.write_all(&request(&server.host, "GET", &path, &[], None)).unwrap(),
            2 => stream.write_all(b"GET /v2/ HTTP/1.1\r\nHo").unwrap(),
            _ if nth % 8 == 3 => {
                let at = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"").header("location").to_owned();
                stream.write_all(&request(&server.host, "PATCH", &at, &[], Some(1 << 20))).unwrap();
                stream.write_all(&vec![1; 300_000]).unwrap();
            }
            _ => {}
        }
        streams.push(stream);
    }
    // Everybody else is served meanwhile.
    for _ in 0..20 {
        assert!(server.get("/v2/app/manifests/v1").body == manifest);
        assert!(server.ask("GET", &path, &[("Range", "bytes=0-999999")], b"").body == layer[..1_000_000]);
    }
    assert_eq!(server.get(begun.header("location")).status, 204);
    let (_, most) = server.memory();
    println!("{most} kB at most");
    assert!(most < 100_000, "{most} kB");
    let metrics = server.get("/metrics").text();
    let now = metrics.lines().find_map(|line| line.strip_prefix("imgmv_connections ")).unwrap();
    assert!(now.parse::<u64>().unwrap() > 1000, "{now}");
}

#[test]
fn more_connections_than_there_may_be_wait_for_their_turn() {
    let server = Server::writable_in(tempfile::TempDir::new().unwrap().into(), &["--max-connections", "4"]);
    let busy: Vec<TcpStream> = (0..4).map(|_| server.connect()).collect();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get("/v2/").status);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        drop(busy);
        assert_eq!(waiting.join().unwrap(), 200);
    });
}
