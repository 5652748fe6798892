//! Several repositories of one registry in one run: one client, and each blob is sent once.

use super::support::registry::{Auth, Bearer, Double, Stumble};
use super::*;
use std::thread;

/// The requests that concern blobs, as `METHOD`, and `MOUNT` for those that ask to mount.
fn blob_requests(double: &Double, repository: &str) -> Vec<String> {
    let below = format!("/v2/{repository}/blobs/");
    let of_blobs = double.requests().into_iter().filter(|request| request.path.starts_with(&below));
    of_blobs.map(|r| if r.query.contains("mount=") { "MOUNT".to_owned() } else { r.method }).collect()
}

fn count(requests: &[String], method: &str) -> usize {
    requests.iter().filter(|request| *request == method).count()
}

#[test]
fn a_blob_that_two_images_share_is_sent_once_and_mounted_once() {
    let (from, to) = (Double::start(), Double::start());
    let large = noise(1, 3 << 20);
    from.image("a", "1", &[b"base", &large]);
    let second = from.image("b", "1", &[b"base", &large, b"own"]);
    let registry = reach(&to.host(), access());
    send(store(&from, "a"), &registry.sink("team/a"), "1").unwrap();
    let first_requests = blob_requests(&to, "team/a");
    assert_eq!((count(&first_requests, "POST"), count(&first_requests, "PUT")), (3, 3), "{first_requests:?}");
    from.forget_requests();
    let report = send(store(&from, "b"), &registry.sink("team/b"), "1").unwrap();
    assert_eq!((report.transferred.blobs, report.existing.blobs), (1, 3));
    let requests = blob_requests(&to, "team/b");
    assert_eq!((count(&requests, "MOUNT"), count(&requests, "POST"), count(&requests, "PUT")), (3, 1, 1));
    assert_eq!((count(&requests, "HEAD"), from.count("GET", "/blobs/")), (1, 1), "{requests:?}");
    assert_eq!(to.tag("team/b", "1"), Some(second.digest()));
}

#[test]
fn a_second_image_of_a_repository_asks_nothing_about_blobs_of_the_first() {
    let (from, to) = (Double::start(), Double::start());
    from.image("app", "1", &[b"base", b"one"]);
    from.image("app", "2", &[b"base", b"two"]);
    let registry = reach(&to.host(), access());
    send(store(&from, "app"), &registry.sink("app"), "1").unwrap();
    to.forget_requests();
    send(store(&from, "app"), &registry.sink("app"), "2").unwrap();
    let requests = blob_requests(&to, "app");
    assert_eq!((requests.len(), count(&requests, "PUT")), (3, 1), "{requests:?}");
}

#[test]
fn images_side_by_side_send_a_shared_blob_once() {
    let (from, to) = (Double::start(), Double::start());
    let shared = noise(2, 3 << 20);
    let names: Vec<String> = (0..8).map(|n| format!("team/{n}")).collect();
    names.iter().for_each(|name| drop(from.image(name, "1", &[&shared, name.as_bytes()])));
    let registry = reach(&to.host(), access());
    thread::scope(|scope| {
        for name in &names {
            let sink = registry.sink(name).waiting_for_uploads();
            let source = store(&from, name);
            scope.spawn(move || send(source, &sink, "1").unwrap());
        }
    });
    let digest = Digest::of(&shared);
    assert_eq!(from.count("GET", &format!("/blobs/{digest}")), 1);
    let all: Vec<String> = names.iter().flat_map(|name| blob_requests(&to, name)).collect();
    // The shared layer and the config once, and the own layer of each.
    assert_eq!((count(&all, "PUT"), count(&all, "POST"), count(&all, "MOUNT")), (2 + 8, 2 + 8, 2 * 7), "{all:?}");
    assert!(names.iter().all(|name| to.tag(name, "1").is_some() && to.blob(name, &digest).is_some()));
}

#[test]
fn a_registry_that_does_not_mount_is_asked_once_for_all_repositories() {
    let (from, to) = (Double::start(), Double::start());
    to.faults().no_mount = true;
    let registry = reach(&to.host(), access());
    for name in ["a", "b", "c"] {
        from.image(name, "1", &[b"base", name.as_bytes()]);
        send(store(&from, name), &registry.sink(name).waiting_for_uploads(), "1").unwrap();
        assert!(to.tag(name, "1").is_some());
    }
    let all: Vec<String> = ["a", "b", "c"].iter().flat_map(|name| blob_requests(&to, name)).collect();
    // The refused mount opened the session of its blob, or was not needed.
    assert_eq!((count(&all, "PUT"), to.open_uploads()), (9, 0), "{all:?}");
    assert!(count(&all, "MOUNT") <= 2, "{all:?}");
}

#[test]
fn a_copy_whose_neighbour_fails_sends_the_blob_itself() {
    let (from, to) = (Double::start(), Double::start());
    let shared = noise(3, 3 << 20);
    for name in ["a", "b"] {
        from.image(name, "1", &[&shared]);
    }
    to.faults().stumbles = vec![Stumble::new("POST", "/a/blobs/", 403, usize::MAX)];
    let registry = reach(&to.host(), access());
    let [first, second] = thread::scope(|scope| {
        let copies = ["a", "b"].map(|name| {
            let (sink, source) = (registry.sink(name).waiting_for_uploads(), store(&from, name));
            scope.spawn(move || send(source, &sink, "1"))
        });
        copies.map(|copy| copy.join().unwrap())
    });
    assert!(first.is_err() && second.is_ok(), "{first:?} {second:?}");
    assert!(to.tag("b", "1").is_some());
}

#[test]
fn repositories_of_a_host_learn_its_challenge_once() {
    let double = Double::start();
    double.faults().auth = Auth::Bearer(Bearer::default());
    let names: Vec<String> = (0..5).map(|n| format!("team/{n}")).collect();
    names.iter().for_each(|name| drop(double.image(name, "1", &[b"layer"])));
    let (pool, watch, cancel) = (RegistryPool::default(), Arc::new(Silent) as Arc<dyn Watch>, Cancel::default());
    for name in &names {
        let registry = pool.registry(&double.host(), access(), &watch, &cancel).unwrap();
        registry.repository(name).resolve_tag("1").unwrap().unwrap();
    }
    // One refused request, and for each repository its token and its tag.
    assert_eq!((double.count("GET", "/token"), double.count("HEAD", "/manifests/1")), (5, 6));
}
