//! Registries that send, or take, a byte now and then (A2). Bytes and connections are counted, not seconds.

use super::*;
use crate::support::registry::{config, image};
use imgmv::image::Digest;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Between two bytes (or answers) of a registry that crawls: fifty in a time-out.
const BEAT: Duration = Duration::from_millis(20);
/// A registry stops crawling after so many: a client that waits for them all has no bound.
const ALL: usize = 400;
/// What a client may take of them in a time-out of a second; a slow machine takes fewer.
const BOUND: usize = 120;

/// What crawls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crawl {
    /// Every head of an answer.
    Head,
    /// Answers of status 100 before each one that counts, so many.
    Interim(usize),
    /// The bodies of blobs.
    Body,
    /// What is read of an upload.
    Upload,
    /// A blob is stored for so many beats.
    Storing(u32),
}

/// A registry of one image with a layer of `ALL` bytes.
struct Registry {
    address: SocketAddr,
    layer: Digest,
    /// What crawled on each connection.
    beats: Arc<Mutex<Vec<Arc<AtomicUsize>>>>,
}

impl Registry {
    fn start(crawl: Crawl) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let beats: Arc<Mutex<Vec<Arc<AtomicUsize>>>> = Arc::default();
        let all = beats.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = all.clone();
                thread::spawn(move || converse(stream, crawl, &all));
            }
        });
        Registry { address, layer: Digest::of(&[7; ALL]), beats }
    }

    /// The most that crawled on one connection, and on how many something did.
    fn crawled(&self) -> (usize, usize) {
        let beats = self.beats.lock().unwrap();
        let counts: Vec<usize> = beats.iter().map(|own| own.load(Ordering::SeqCst)).filter(|n| *n > 0).collect();
        (counts.iter().copied().max().unwrap_or(0), counts.len())
    }
}

fn converse(mut stream: TcpStream, crawl: Crawl, all: &Mutex<Vec<Arc<AtomicUsize>>>) -> std::io::Result<()> {
    let beats: Arc<AtomicUsize> = Arc::default();
    all.lock().unwrap().push(beats.clone());
    let beat = || {
        thread::sleep(BEAT);
        beats.fetch_add(1, Ordering::SeqCst);
    };
    stream.set_nodelay(true)?;
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte)? == 0 || byte[0] == 0x16 && head.is_empty() {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let (method, path) = head.split_once(' ').unwrap();
        if crawl == Crawl::Upload && length > 1 << 20 {
            for _ in 0..ALL {
                stream.read_exact(&mut byte)?;
                beat();
            }
            return Ok(());
        }
        std::io::copy(&mut (&stream).take(length), &mut std::io::sink())?;
        if let (Crawl::Storing(beats), "put") = (crawl, method) {
            thread::sleep(BEAT * beats);
        }
        if let Crawl::Interim(times) = crawl {
            for _ in 0..times {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                beat();
            }
        }
        let (status, kind, body) = answer(method, path);
        let mut sent = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        if matches!(method, "post" | "patch") {
            sent += "Location: /v2/app/blobs/uploads/1\r\n";
        }
        sent += "\r\n";
        match crawl {
            Crawl::Head => {
                for byte in sent.as_bytes().iter().chain(b" ".iter().cycle()).take(ALL) {
                    stream.write_all(&[*byte])?;
                    beat();
                }
                return Ok(());
            }
            _ => stream.write_all(sent.as_bytes())?,
        }
        match method {
            "head" => {}
            "get" if crawl == Crawl::Body && body.len() == ALL => {
                for byte in &body {
                    stream.write_all(&[*byte])?;
                    beat();
                }
            }
            _ => stream.write_all(&body)?,
        }
    }
}

fn answer(method: &str, path: &str) -> (u16, String, Vec<u8>) {
    let layer = [7; ALL];
    let octets = "application/octet-stream".to_owned();
    let is_of = |bytes: &[u8]| path.contains(&Digest::of(bytes).to_string());
    let manifest = image(&[&layer]);
    match method {
        "post" => (202, octets, Vec::new()),
        "patch" => (202, octets, Vec::new()),
        "put" => (201, octets, Vec::new()),
        _ if path.contains("/manifests/1") => (200, manifest.descriptor.media_type.clone(), manifest.bytes.clone()),
        _ if is_of(&layer) => (200, octets, layer.to_vec()),
        _ if is_of(config()) => (200, octets, config().to_vec()),
        _ => (404, octets, Vec::new()),
    }
}

/// Before: each of these waited for all bytes, or for four time-outs of a head (200 beats).
#[test]
fn an_answer_that_crawls_is_given_up_and_its_connection_tried_again() {
    for (crawl, words) in [
        (Crawl::Head, "the response head is not complete within 1 seconds; tried 2 times"),
        (Crawl::Interim(ALL), "more than 8 responses of status 1xx, and no final response; tried 2 times"),
        (Crawl::Body, "fewer than 1024 bytes arrived within 1 seconds; tried 2 times"),
    ] {
        let registry = Registry::start(crawl);
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (format!("{}/app:1", registry.address), format!("oci:{}:1", dir.path().display()));
        let done = run(&mut program(&["copy", &from, &to, "--timeout", "1", "--retry", "1", "--jobs", "1"]));
        ended(&done, 6, &[words, "127.0.0.1"]);
        let (most, connections) = registry.crawled();
        assert!(most <= BOUND && connections == 2, "{crawl:?}: {most} on one of {connections} connections");
        assert!(!dir.path().join("index.json").exists() || !done.1.contains("1@sha256"));
    }
}

#[test]
fn a_few_interim_answers_a_slow_rate_and_a_slow_store_are_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let to = format!("oci:{}:1", dir.path().display());
    // The user's own rate is below what else would be asked for.
    for (crawl, more) in [(Crawl::Interim(3), &[][..]), (Crawl::Body, &["--limit-rate", "30"])] {
        let registry = Registry::start(crawl);
        let from = format!("{}/app:1", registry.address);
        let args = [&["copy", &from, &to, "--timeout", "2", "--retry", "0"], more].concat();
        let done = run(&mut program(&args));
        assert_eq!(done.0, 0, "{crawl:?}: {}", done.1);
        assert!(dir.path().join("blobs/sha256").join(registry.layer.hex()).exists());
    }
    // An answer to what stores a blob may begin after ten time-outs.
    let registry = Registry::start(Crawl::Storing(100));
    let (from, to) = (format!("oci:{}:1", dir.path().display()), format!("{}/new:2", registry.address));
    let done = run(&mut program(&["copy", &from, &to, "--timeout", "1", "--retry", "0", "--compress", "keep"]));
    assert_eq!(done.0, 0, "{}", done.1);
}

/// As before: a write that moves nothing for a time-out ends, and no system moves less than some KiB at once.
#[test]
fn an_upload_that_is_taken_at_a_crawl_is_given_up() {
    let registry = Registry::start(Crawl::Upload);
    let dir = tempfile::tempdir().unwrap();
    let layer = crate::support::noise::noise(7, 32 << 20);
    let double = crate::support::registry::Double::start();
    double.image("app", "1", &[&layer]);
    let layout = format!("oci:{}:1", dir.path().display());
    assert_eq!(run(&mut program(&["copy", &format!("{}/app:1", double.host()), &layout])).0, 0);
    let to = format!("{}/new:2", registry.address);
    let done = run(&mut program(&["copy", &layout, &to, "--timeout", "1", "--retry", "0", "--compress", "keep"]));
    ended(&done, 6, &["127.0.0.1"]);
    assert!(registry.crawled().0 < ALL, "{:?}: {}", registry.crawled(), done.1);
}

/// Before: bytes after the last chunk counted as progress, and were skipped without a limit.
#[test]
fn trailers_without_end_are_given_up() {
    const MOST: usize = 64 << 20;
    for (head, status, words) in [
        ("200 OK", 6, "the response has more than 16384 bytes of trailers"),
        ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=x", 4, "requires credentials"),
        ("404 Not Found", 3, "app"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("{}/app:1", listener.local_addr().unwrap());
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = count.clone();
                thread::spawn(move || {
                    let mut stream = stream;
                    // What is no request is the question whether there is TLS.
                    let mut request = [0; 4096];
                    if stream.read(&mut request)? == 0 || request[0] == 0x16 {
                        return Ok(());
                    }
                    write!(stream, "HTTP/1.1 {head}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n")?;
                    while count.load(Ordering::SeqCst) < MOST {
                        stream.write_all(&b"A: b\r\n".repeat(1000))?;
                        count.fetch_add(6000, Ordering::SeqCst);
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let to = format!("oci:{}:1", dir.path().display());
        let done = run(&mut program(&["copy", &image, &to, "--timeout", "5", "--retry", "0"]));
        ended(&done, status, &[words]);
        // What fits into the sockets' buffers.
        assert!(sent.load(Ordering::SeqCst) < MOST, "{head}: {}", sent.load(Ordering::SeqCst));
    }
}
