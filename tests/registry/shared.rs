//! Several repositories of one registry in one run: one client, and each blob is sent once.

use super::support::registry::{Auth, Bearer, Double, Stumble};
use super::support::web::{Request, Response, Web};
use super::*;
use std::sync::Condvar;
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

#[test]
fn pulls_stop_before_the_reserve_and_the_error_names_the_time() {
    let double = Double::start();
    let tags: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    tags.iter().for_each(|tag| drop(double.image("app", tag, &[tag.as_bytes()])));
    double.faults().pulls = Some(23);
    let registry = reach(&double.host(), Access { hub_reserve: Some(20), ..access() });
    let store = registry.repository("app");
    // Parallel from the first pull on.
    let pulled: Vec<_> = thread::scope(|scope| {
        let pull = |tag: &String| store.roots(&[Selector::Name(tag.clone())]).map(drop);
        let threads: Vec<_> = tags.iter().map(|tag| scope.spawn(move || pull(tag))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!((double.count("GET", "/manifests/"), double.count("HEAD", "/manifests/")), (3, 1));
    let errors: Vec<_> = pulled.iter().filter_map(|pulled| pulled.as_ref().err()).collect();
    assert_eq!(errors.len(), 5);
    let text = errors[0].to_string();
    assert!(errors[0].is_pull_limit() && text.contains("6 hours") && text.contains("20 are reserved"), "{text}");
    assert_eq!(registry.pulls_left().map(|left| left.remaining), Some(20));
    // Questions without a pull are still answered.
    assert!(store.resolve_tag("1").unwrap().is_some());
}

#[test]
fn a_host_without_a_limit_is_asked_once() {
    let double = Double::start();
    double.image("app", "1", &[b"layer"]);
    let store = reach(&double.host(), Access { hub_reserve: Some(20), ..access() }).repository("app");
    for _ in 0..3 {
        pull(&store, "1").unwrap();
    }
    assert_eq!(double.count("HEAD", "/manifests/"), 1);
}

#[test]
fn tokens_of_two_repositories_are_fetched_at_the_same_time() {
    let waiting = (Mutex::new(0), Condvar::new());
    let web = Web::start(
        None,
        Arc::new(move |request: &mut Request, _: &mut dyn Read| {
            if request.path == "/token" {
                // The first one is answered after the second has arrived.
                let mut arrived = waiting.0.lock().unwrap();
                *arrived += 1;
                waiting.1.notify_all();
                let both = waiting.1.wait_timeout_while(arrived, Duration::from_secs(10), |arrived| *arrived < 2);
                let status = if both.unwrap().1.timed_out() { 400 } else { 200 };
                return Some(Response::json(status, r#"{"token":"t"}"#));
            }
            let host = request.header("host").unwrap_or_default().to_owned();
            Some(match request.header("authorization") {
                Some(_) => Response::new(404),
                None => Response::new(401)
                    .with("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token",service="s""#)),
            })
        }),
    );
    let registry = reach(&web.address.to_string(), access());
    thread::scope(|scope| {
        let asked = ["a", "b"].map(|name| {
            let store = registry.repository(name);
            scope.spawn(move || store.resolve_tag("1"))
        });
        for answer in asked {
            assert!(answer.join().unwrap().unwrap().is_none());
        }
    });
}

#[test]
fn a_blob_goes_from_a_host_to_itself_with_one_request_at_a_time() {
    let double = Double::start();
    let image = double.image("a", "1", &[&noise(4, 3 << 20)]);
    // Each refusal halves the window of 32.
    double.faults().no_mount = true;
    double.faults().stumbles = vec![Stumble::new("HEAD", "/a/manifests/", 503, 5)];
    let registry = reach(&double.host(), access());
    registry.repository("a").resolve_tag("1").unwrap().unwrap();
    // The upload's body is a download from the same host, which is requested again during the upload.
    double.faults().cut = Some((2 << 20, 1));
    send(registry.repository("a"), &registry.sink("b"), "1").unwrap();
    assert_eq!(double.tag("b", "1"), Some(image.digest()));
}
