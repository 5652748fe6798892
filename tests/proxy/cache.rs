//! What lies in the cache, and what goes.

use super::client::{Server, files};
use super::support::program::{imgmv, peer};
use super::support::registry::{Double, config};
use super::*;
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

#[test]
fn a_second_pull_moves_no_blob_and_needs_no_upstream() {
    let layer = noise(1, 700_000);
    let (double, image) = upstream(&layer);
    let dir = folder();
    let server = mirror_in(&dir, &double.host(), &[]);
    pull(&server, TAG);
    double.forget_requests();
    let reply = pull(&server, TAG);
    assert_eq!(reply.find("warning"), None);
    let metrics = server.get("/metrics").text();
    let bytes = layer.len() + config().len();
    for line in
        ["mirror_blobs_fetched_total 2", &format!("mirror_fetched_bytes_total {bytes}"), "mirror_blobs_had_total 2"]
    {
        assert!(metrics.contains(&format!("imgmv_{line}\n")), "{line}: {metrics}");
    }
    // The page for people shows what is known, and asks nobody.
    let page = server.ask("GET", "/", &[("Accept", "text/html")], b"").text();
    assert!(page.contains("docker.io/library/app"), "{page}");
    // The tag is asked for, and nothing else.
    let asked: Vec<String> = double.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(asked, [format!("HEAD {TAG}")]);
    drop((server, double));
    // Not even after a restart, with the upstream gone.
    let server = mirror_in(&dir, "127.0.0.1:1", &[]);
    let by_digest = server.get(&format!("/v2/library/app/manifests/{}", image.digest()));
    assert_eq!((by_digest.status, by_digest.body), (200, image.bytes.clone()));
    assert_eq!(server.get(&blob_path(&Digest::of(&layer))).body, layer);
}

#[test]
fn the_cache_is_a_layout_that_other_tools_read() {
    let layer = noise(2, 300_000);
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": [Digest::of(&layer)] });
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs }).to_string();
    let image = manifest(config.as_bytes(), &[&layer], Value::Null);
    let image = Manifest::from_bytes(image, media_type::OCI_MANIFEST).unwrap();
    let double = Double::start();
    double.put_blob("library/app", config.as_bytes());
    double.put_blob("library/app", &layer);
    double.put_manifest("library/app", Some("1"), &image);
    let dir = folder();
    let server = mirror_in(&dir, &double.host(), &[]);
    pull(&server, TAG);
    let cache = cached(&dir);
    let place = format!("oci:{}", cache.display());
    let listed = imgmv(&["list", &place], None);
    assert!(listed.stdout.contains("docker.io/library/app:1"), "{}{}", listed.stdout, listed.stderr);
    let verified = imgmv(&["verify", &place], None);
    assert!(verified.status.success(), "{}", verified.stderr);
    // What needed no credentials is not in the other part.
    assert!(!files(&cache.join("private")).iter().any(|file| file.contains("blobs")));
    let Some(skopeo) = peer("skopeo") else { return };
    let image_place = format!("{place}:1");
    let output = Command::new(skopeo).args(["inspect", "--format", "{{.Digest}}", &image_place]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), image.digest().to_string());
}

/// Waits until the server has let go of what it has given: a client may have the last byte before that.
fn nobody_reads(file: &File) {
    eventually("it is let go", || file.try_lock().is_ok());
    file.unlock().unwrap();
}

#[test]
fn what_was_not_used_the_longest_goes_when_there_is_no_room() {
    let layers: Vec<Vec<u8>> = (0..4).map(|i| noise(10 + i, 400_000)).collect();
    let double = Double::start();
    for layer in &layers {
        double.put_blob("library/app", layer);
    }
    let dir = folder();
    let server = mirror_in(&dir, &double.host(), &["--cache-size", "1000K"]);
    let of = |at: usize| Digest::of(&layers[at]);
    let there = |at: usize| blob_file(&cached(&dir), &of(at)).exists();
    for (at, age) in [(0, 4000), (1, 3000)] {
        assert_eq!(server.get(&blob_path(&of(at))).body, layers[at]);
        let file = File::options().write(true).open(blob_file(&cached(&dir), &of(at))).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        nobody_reads(&file);
    }
    // A use is what counts.
    assert_eq!(server.get(&blob_path(&of(0))).body, layers[0]);
    assert_eq!(server.get(&blob_path(&of(2))).body, layers[2]);
    assert_eq!([there(0), there(1), there(2)], [true, false, true]);
    for at in [0, 2] {
        nobody_reads(&File::open(blob_file(&cached(&dir), &of(at))).unwrap());
    }
    // What is being read stays, and there is no room then: the blob is given all the same, and not kept.
    let held: Vec<File> = [0, 2].map(|at| File::open(blob_file(&cached(&dir), &of(at))).unwrap()).into();
    held.iter().for_each(|file| file.lock_shared().unwrap());
    assert_eq!(server.get(&blob_path(&of(3))).body, layers[3]);
    assert_eq!([there(0), there(2), there(3)], [true, true, false]);
    drop(held);
    assert_eq!(server.get(&blob_path(&of(3))).body, layers[3]);
    assert!(there(3));
    let kept: u64 = files(&cached(&dir))
        .iter()
        .filter(|file| file.contains("blobs/"))
        .map(|file| fs::metadata(cached(&dir).join(file)).unwrap().len())
        .sum();
    assert!(kept <= 1000 << 10, "{kept}");
}

#[test]
fn a_blob_that_is_read_slowly_is_not_removed() {
    let (big, other) = (noise(20, 600_000), noise(21, 600_000));
    let double = Double::start();
    for layer in [&big, &other] {
        double.put_blob("library/app", layer);
    }
    let dir = folder();
    let server = mirror_in(&dir, &double.host(), &["--cache-size", "1000K"]);
    server.get(&blob_path(&Digest::of(&big)));
    // Reads its head and no more for the time being.
    let mut slow = server.connect();
    let path = blob_path(&Digest::of(&big));
    std::io::Write::write_all(&mut slow, &client::request(&server.host, "GET", &path, &[], None)).unwrap();
    let mut first = [0; 1000];
    slow.read_exact(&mut first).unwrap();
    let got = server.get(&blob_path(&Digest::of(&other)));
    assert_eq!(got.body, other);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert_eq!([&first[..], &rest].concat()[first.len() + rest.len() - big.len()..], big);
}

#[test]
fn a_blob_that_is_larger_than_the_cache_passes_through() {
    let layer = noise(30, 300_000);
    let (double, _) = upstream(&layer);
    let dir = folder();
    let server = mirror_in(&dir, &double.host(), &["--cache-size", "200K"]);
    let digest = Digest::of(&layer);
    assert_eq!(server.get(&blob_path(&digest)).body, layer);
    let part = server.ask("GET", &blob_path(&digest), &[("Range", "bytes=1000-1999")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &layer[1000..2000]));
    assert!(!blob_file(&cached(&dir), &digest).exists());
    // Small ones are kept.
    assert_eq!(server.get(&blob_path(&Digest::of(config()))).body, config());
    assert!(blob_file(&cached(&dir), &Digest::of(config())).exists());
}

#[test]
fn two_servers_share_one_cache() {
    let layers: Vec<Vec<u8>> = (0..6).map(|i| noise(40 + i, 500_000)).collect();
    let double = Double::start();
    for layer in &layers {
        double.put_blob("library/app", layer);
    }
    let dir = folder();
    let servers: Vec<Server> = (0..2).map(|_| mirror_in(&dir, &double.host(), &[])).collect();
    std::thread::scope(|scope| {
        for server in &servers {
            for layer in &layers {
                scope.spawn(move || assert_eq!(server.get(&blob_path(&Digest::of(layer))).body, *layer));
            }
        }
    });
    for layer in &layers {
        assert_eq!(fs::read(blob_file(&cached(&dir), &Digest::of(layer))).unwrap(), *layer);
    }
    // Each may have fetched it; nobody fetched it twice.
    for layer in &layers {
        let fetched = double.count("GET", &Digest::of(layer).to_string());
        assert!((1..=2).contains(&fetched), "{fetched}");
    }
    eventually("nothing half-written is left", || {
        !files(&cached(&dir)).iter().any(|file| file.contains(".imgmv-") && !file.ends_with("lock"))
    });
}
