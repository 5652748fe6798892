//! `kill -9` during uploads: what was acknowledged is there, byte by byte, and nothing else.

use super::*;
use client::{files, request};
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::channel;
use tempfile::TempDir;

const KILLS: u64 = 100;
/// Of the blob that is under way.
const SIZE: usize = 300_000;

#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    let dir = Arc::new(TempDir::new().unwrap());
    let mut images: Vec<(String, Vec<u8>)> = Vec::new();
    let mut under_way: Option<(String, Vec<u8>, usize)> = None;
    let mut server = Server::writable_in(dir.clone(), &["--log", "none"]);
    for nth in 0..KILLS {
        // What the server before has kept of the blob is known by the byte, and is gone on with.
        if let Some((at, bytes, acknowledged)) = under_way.take() {
            let status = server.get(&at);
            assert_eq!(status.status, 204, "{nth}");
            let kept: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
            let kept = if kept == 0 { 0 } else { kept + 1 };
            assert!(kept >= acknowledged && kept <= bytes.len(), "{nth}: {kept} of {acknowledged}");
            let done = server.ask("PUT", &format!("{at}?digest={}", Digest::of(&bytes)), &[], &bytes[kept..]);
            assert_eq!(done.status, 201, "{nth}: {}", done.text());
        }
        let (bytes, tag) = (noise(nth + 100, SIZE), format!("v{nth}"));
        let (head, tail) = bytes.split_at(noise(nth, 1)[0] as usize * 1000);
        let at = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"").header("location").to_owned();
        assert_eq!(server.ask("PATCH", &at, &[], head).status, 202);
        // At any moment while this image and the rest of that blob are on their way.
        let (host, started) = (server.host.clone(), channel());
        let pusher = std::thread::spawn({
            let (at, tail, tag) = (at.clone(), tail.to_vec(), tag.clone());
            move || {
                let mut stream = std::net::TcpStream::connect(&host).unwrap();
                let _ = stream.write_all(&request(&host, "PATCH", &at, &[], Some(tail.len() as u64)));
                started.0.send(()).unwrap();
                let _ = stream.write_all(&tail[..tail.len() / 2]);
                let all = manifest(b"{}", &[], json!({ "annotations": { "tag": tag } }));
                let pushed = try_push(&host, "app", &tag, &all);
                started.0.send(()).unwrap();
                let _ = stream.write_all(&tail[tail.len() / 2..]);
                pushed.then_some((tag, all))
            }
        });
        if nth == 0 {
            server.push_blob("app", b"{}");
        }
        started.1.recv().unwrap();
        // Of two images one comes through for sure, and before or after the other is any moment.
        match nth % 2 {
            0 => started.1.recv().unwrap(),
            _ => std::thread::sleep(std::time::Duration::from_micros(u64::from(noise(nth, 2)[1]) * 40)),
        }
        server.kill();
        images.extend(pusher.join().unwrap());
        under_way = Some((at, bytes.clone(), head.len()));
        server = Server::writable_in(dir.clone(), &["--log", "none"]);
        if nth == 0 {
            server.push_blob("app", b"{}");
        }
    }
    println!("{} images came through", images.len());
    assert!(images.len() >= KILLS as usize / 2);
    for (tag, bytes) in &images {
        assert!(server.get(&format!("/v2/app/manifests/{tag}")).body == *bytes, "{tag}");
    }
    // Every blob there is, is whole, and so is every manifest that is named.
    for file in files(&server.store()).iter().filter(|file| file.contains("/sha256/")) {
        let bytes = std::fs::read(server.store().join(file)).unwrap();
        assert!(file.ends_with(&Digest::of(&bytes).hex()), "{file}");
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while files(&server.store()).iter().any(|file| file.ends_with(".tmp")) {
        assert!(std::time::Instant::now() < until, "what killed servers left was not swept");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let tags = server.get("/v2/app/tags/list?n=1000").json()["tags"].clone();
    for tag in tags.as_array().unwrap() {
        assert_eq!(server.get(&format!("/v2/app/manifests/{}", tag.as_str().unwrap())).status, 200);
    }
}

/// Pushes a manifest to a server that may be gone; whether it was acknowledged.
fn try_push(host: &str, repository: &str, tag: &str, bytes: &[u8]) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(host) else { return false };
    let path = format!("/v2/{repository}/manifests/{tag}");
    let headers = [("Content-Type", media_type::OCI_MANIFEST)];
    let _ = stream.write_all(&request(host, "PUT", &path, &headers, Some(bytes.len() as u64)));
    let _ = stream.write_all(bytes);
    Reply::read(&mut stream, "PUT").is_some_and(|reply| reply.status == 201)
}

#[test]
fn a_full_disk_loses_nothing_and_is_said() {
    let dir = TempDir::new().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "imgmv-test"])
        .arg(dir.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no right to mount a small disk");
        return;
    }
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let dir = Arc::new(dir);
    let _mounted = Mounted(dir.path().to_owned());
    let server = Server::writable_in(dir.clone(), &[]);
    let [_, layer, image] = server.push_image("app", "v1", 2 << 20);
    let large = noise(5, 9 << 20);
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    let full = server.ask("PATCH", begun.header("location"), &[], &large);
    assert_eq!(full.status, 507, "{}", full.text());
    assert!(full.text().contains("no space left"), "{}", full.text());
    assert!(server.get("/v2/app/manifests/v1").body == image);
    assert!(server.get(&format!("/v2/app/blobs/{}", Digest::of(&layer))).body == layer);
    // What came is kept until it is cancelled, and then there is room again.
    assert_eq!(server.delete(begun.header("location")).status, 204);
    server.push_image("app", "v2", 2 << 20);
    // Not a byte more for the list of tags.
    let mut filler = std::fs::File::create(dir.path().join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let late = manifest(b"{}", &[], Value::Null);
    let refused = server.push_manifest("app", "late", &index(&[&image]));
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!(["v1", "v2"]));
    assert!(server.get("/v2/app/manifests/v1").body == image);
    drop(filler);
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    server.push_blob("app", b"{}");
    assert_eq!(server.push_manifest("app", "late", &late).status, 201);
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!(["late", "v1", "v2"]));
}
