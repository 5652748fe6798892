//! Clients of `serve` that crawl: they hold no connection for ever.

use super::client::{Reply, Server, request};
use super::*;
use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

/// In seconds; what crawls is ended after about as long.
const IDLE: &str = "2";
const EVERY: Duration = Duration::from_millis(100);
/// Steps of a crawl: many times what the server waits.
const MOST: usize = 300;

/// Writes one byte after the other until the server ends the connection; how many went through.
fn crawl(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) -> usize {
    for (nth, byte) in bytes.take(MOST).enumerate() {
        if stream.write_all(&[byte]).is_err() {
            return nth;
        }
        std::thread::sleep(EVERY);
    }
    MOST
}

#[test]
fn a_head_or_a_body_that_comes_byte_by_byte_is_ended() {
    let server = Server::writable_in(Arc::new(tempfile::tempdir().unwrap()), &["--idle-timeout", IDLE]);
    let head = format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\nX: {}", server.host, "x".repeat(MOST));
    let upload = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"").header("location").to_owned();
    let openings = [
        ("a head", Vec::new(), head.into_bytes()),
        (
            "a second head",
            b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            b"GET /v2/ HTTP/1.1\r\nX: ".to_vec(),
        ),
        ("a blob", request(&server.host, "PATCH", &upload, &[], Some(1 << 20)), Vec::new()),
        ("a manifest", request(&server.host, "PUT", "/v2/app/manifests/1", &[], Some(2000)), Vec::new()),
        (
            "chunks",
            request(&server.host, "PATCH", &upload, &[("Transfer-Encoding", "chunked")], None),
            b"1\r\nx\r\n".repeat(100),
        ),
    ];
    std::thread::scope(|scope| {
        for (what, opening, crawling) in openings {
            let server = &server;
            scope.spawn(move || {
                let mut stream = server.connect();
                stream.write_all(&opening).unwrap();
                let through = crawl(&mut stream, crawling.into_iter().chain(std::iter::repeat(b'x')));
                assert!(through < MOST, "{what}: {through} bytes went through one by one");
            });
        }
    });
    assert_eq!(server.get("/v2/").status, 200);
}

#[test]
fn an_answer_that_is_taken_byte_by_byte_is_ended() {
    let server = Server::writable_in(Arc::new(tempfile::tempdir().unwrap()), &["--idle-timeout", IDLE]);
    let [_, layer, _] = server.push_image("app", "1", 40 << 20);
    let mut stream = server.connect();
    let path = format!("/v2/app/blobs/{}", Digest::of(&layer));
    stream.write_all(&request(&server.host, "GET", &path, &[], None)).unwrap();
    let (mut taken, until) = (0, Instant::now() + Duration::from_secs(60));
    while !server.log().iter().any(|line| line.contains("disconnected")) {
        assert!(Instant::now() < until, "{taken} bytes were taken one by one");
        taken += stream.read(&mut [0]).unwrap_or(0);
        std::thread::sleep(EVERY);
    }
    // Only what fits into the buffers on the way was sent.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(taken + rest.len() < layer.len());
    // A client that takes what it asked for is served all the while.
    assert!(Reply::read(&mut served(&server, &path), "GET").unwrap().body == layer);
}

fn served(server: &Server, path: &str) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(&request(&server.host, "GET", path, &[], None)).unwrap();
    stream
}
