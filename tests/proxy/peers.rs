//! Peers: asked by digest, quickly, once, and never in a circle.

use super::support::fault_proxy::{End, Fault, Ill, Proxy};
use super::support::program::free_port;
use super::*;
use std::net::TcpListener;

/// A node that has pulled the image, with its own cache.
fn warm(double: &Double) -> (Arc<TempDir>, Server) {
    let dir = folder();
    let server = mirror_in(&dir, &double.host(), &[]);
    pull(&server, TAG);
    (dir, server)
}

fn peer_of(server: &Server) -> String {
    format!("http://{}", server.host)
}

#[test]
fn what_a_peer_has_is_not_fetched_from_upstream() {
    let layer = noise(1, 900_000);
    let (double, image) = upstream(&layer);
    let (_dir, first) = warm(&double);
    double.forget_requests();
    let dir = folder();
    let second = mirror_in(&dir, &double.host(), &["--peer", &peer_of(&first)]);
    pull(&second, TAG);
    // The tag is upstream's word; everything by digest was the peer's.
    assert_eq!(double.count("HEAD", "/manifests/1"), 1);
    assert_eq!(double.requests().len(), 1, "{:?}", double.requests());
    assert!(blob_file(&cached(&dir), &Digest::of(&layer)).exists());
    assert!(blob_file(&cached(&dir), &image.digest()).exists());
    assert!(!first.log().iter().any(|line| line.contains("manifests/1 ") && line.contains("HEAD")));
}

#[test]
fn two_servers_that_are_each_others_peers_do_not_ask_for_ever() {
    let layer = noise(2, 1000);
    let (double, _) = upstream(&layer);
    let ports = [free_port(), free_port()];
    let listen = ports.map(|port| format!("127.0.0.1:{port}"));
    let urls = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let dirs = [folder(), folder()];
    let servers = [0, 1].map(|at| {
        mirror_in(&dirs[at], &double.host(), &["--listen", &listen[at], "--peer", &urls[0], "--peer", &urls[1]])
    });
    let nothing = blob_path(&Digest::of(b"nothing"));
    for server in &servers {
        assert_eq!(server.get(&nothing).status, 404);
    }
    // Each asked the other once, which asked nobody: upstream heard of it from the two that were asked.
    assert_eq!(double.count("HEAD", "/blobs/"), 2);
    let digest = Digest::of(&layer);
    double.forget_requests();
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| assert_eq!(server.get(&blob_path(&digest)).body, layer));
        }
    });
    assert!((1..=2).contains(&double.count("GET", "/blobs/")));
}

#[test]
fn a_name_stands_for_every_address_it_has() {
    let layer = noise(7, 100_000);
    let (double, _) = upstream(&layer);
    let (_dir, first) = warm(&double);
    let port = first.host.rsplit(':').next().unwrap();
    let second = mirror(&double.host(), &["--peer", &format!("http://localhost:{port}")]);
    double.forget_requests();
    assert_eq!(second.get(&blob_path(&Digest::of(&layer))).body, layer);
    assert_eq!(double.requests().len(), 0);
}

#[test]
fn a_question_from_a_peer_is_answered_from_here_only() {
    let (double, image) = upstream(&noise(3, 1000));
    let server = mirror(&double.host(), &[]);
    let from_a_peer = [("Imgmv-Peer", "1")];
    let paths =
        [TAG.to_owned(), format!("/v2/library/app/manifests/{}", image.digest()), blob_path(&image.layers()[0].digest)];
    for path in &paths {
        assert_eq!(server.ask("GET", path, &from_a_peer, b"").status, 404, "{path}");
    }
    assert_eq!(double.requests().len(), 0);
    pull(&server, TAG);
    for path in &paths[1..] {
        assert_eq!(server.ask("GET", path, &from_a_peer, b"").status, 200, "{path}");
    }
}

#[test]
fn a_peer_that_is_dead_or_silent_costs_little_and_then_nothing() {
    let layers: Vec<Vec<u8>> = (0..6).map(|i| noise(40 + i, 1000)).collect();
    let double = Double::start();
    for layer in &layers {
        double.put_blob("library/app", layer);
    }
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let dead = format!("http://127.0.0.1:{}", free_port());
    let options = ["--peer", &silent_url, "--peer", &dead, "--peer-timeout", "0.4"];
    let server = mirror(&double.host(), &options);
    for layer in &layers {
        assert_eq!(server.get(&blob_path(&Digest::of(layer))).body, *layer);
    }
    for host in [&silent_url, &dead] {
        let left = format!("peer {} is skipped for", host.trim_start_matches("http://"));
        assert_eq!(server.log().iter().filter(|line| line.contains(&left)).count(), 1, "{:?}", server.log());
    }
}

#[test]
fn what_a_peer_gives_wrong_is_not_kept_and_is_asked_of_upstream() {
    let layer = noise(5, 500_000);
    let (double, _) = upstream(&layer);
    let digest = Digest::of(&layer);
    let liar = Double::start();
    let mut wrong = layer.clone();
    wrong[1000] ^= 1;
    liar.put_blob_at("library/app", digest, &wrong);
    let dir = folder();
    let peer = format!("http://{}", liar.host());
    let server = mirror_in(&dir, &double.host(), &["--peer", &peer]);
    let first = server.get(&blob_path(&digest));
    assert!(first.body.len() < layer.len());
    eventually("the next one is right", || server.get(&blob_path(&digest)).body == layer);
    assert_eq!(std::fs::read(blob_file(&cached(&dir), &digest)).unwrap(), layer);
    assert_eq!(liar.count("GET", "/blobs/"), 1);
}

#[test]
fn a_server_without_a_cache_passes_on_what_its_peers_have() {
    let layer = noise(6, 500_000);
    let (double, image) = upstream(&layer);
    let (_dir, first) = warm(&double);
    let empty = folder();
    let store = format!("oci:{}", empty.path().join("store").display());
    let server = Server::start_in(empty, &[&store, "--writable", "--peer", &peer_of(&first)]);
    double.forget_requests();
    let digest = Digest::of(&layer);
    let path = format!("/v2/library/app/manifests/{}?ns=docker.io", image.digest());
    assert_eq!(server.get(&path).body, image.bytes);
    assert_eq!(server.get(&blob_path(&digest)).body, layer);
    let part = server.ask("GET", &blob_path(&digest), &[("Range", "bytes=100000-100099")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &layer[100_000..100_100]));
    // A tag is nobody's to say.
    assert_eq!(server.get(TAG).status, 404);
    assert_eq!(double.requests().len(), 0);
    // Bytes that are wrong are not given whole.
    let liar = Double::start();
    let mut wrong = layer.clone();
    wrong[1000] ^= 1;
    liar.put_blob_at("library/app", digest, &wrong);
    let empty = folder();
    let store = format!("oci:{}", empty.path().join("store").display());
    let server = Server::start_in(empty, &[&store, "--writable", "--peer", &format!("http://{}", liar.host())]);
    assert!(server.get(&blob_path(&digest)).body.len() < layer.len());
}

#[test]
fn a_peer_that_breaks_off_is_left_for_upstream_at_the_same_byte() {
    let layer = noise(8, 2 << 20);
    let (double, _) = upstream(&layer);
    let (_dir, first) = warm(&double);
    let line = Proxy::start(&first.host);
    line.does(Fault::once("GET", "/blobs/", Ill::Cut { after: 1_200_000, end: End::Fin }));
    let second = mirror(&double.host(), &["--peer", &format!("http://{}", line.host())]);
    double.forget_requests();
    assert_eq!(second.get(&blob_path(&Digest::of(&layer))).body, layer);
    let range = double.requests().iter().find_map(|request| request.header("range").map(str::to_owned)).unwrap();
    let from: u64 = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from > 0, "{range}");
}
