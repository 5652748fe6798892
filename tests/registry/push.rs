//! Writing: what is asked, what is sent, and how a broken upload goes on.

use super::support::registry::{Double, Stumble, image};
use super::*;
use imgmv::internals::image::media_type;
use imgmv::{Coding, Kind, Sink};

fn pair(layers: &[&[u8]]) -> (Double, Double, Manifest) {
    let (from, to) = (Double::start(), Double::start());
    let image = from.image("app", "1", layers);
    (from, to, image)
}

#[test]
fn a_blob_that_is_not_there_takes_three_requests() {
    let large = noise(1, 3 << 20);
    let (from, to, image) = pair(&[b"small", &large]);
    let report = send(store(&from, "app"), &sink(&to, "team/app"), "1").unwrap();
    assert_eq!((report.transferred.blobs, to.tag("team/app", "1")), (3, Some(image.digest())));
    assert_eq!(to.manifest("team/app", &image.digest()).unwrap().1, image.bytes);
    assert!(*to.blob("team/app", &image.layers()[1].digest).unwrap() == large);
    // One question for the tag, three for each blob, and the manifest under its tag alone.
    assert_eq!(to.requests().len(), 1 + 3 * 3 + 1, "{:#?}", to.requests());
    assert_eq!((to.count("PATCH", ""), to.open_uploads()), (0, 0));
}

#[test]
fn a_second_push_is_one_question_and_moves_no_blob() {
    let (from, to, _) = pair(&[b"one", b"two"]);
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    from.forget_requests();
    to.forget_requests();
    let report = send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert_eq!(report.transferred.blobs, 0);
    // The manifest, its referrers, and three tags of cosign, since a signature may be new.
    assert_eq!((from.requests().len(), to.requests().len()), (5, 1));
}

#[test]
fn blobs_that_are_there_are_not_sent() {
    let (from, to, image) = pair(&[b"held", b"new"]);
    to.put_blob("app", b"held");
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    let sent = to.requests().iter().filter(|r| r.method == "PUT" && r.path.contains("/blobs/")).count();
    assert_eq!(sent, image.blobs().len() - 1);
}

#[test]
fn another_repository_of_the_registry_is_mounted_from() {
    let double = Double::start();
    let image = double.image("team/a", "1", &[b"one", b"two"]);
    let report = send(store(&double, "team/a"), &sink(&double, "team/b"), "1").unwrap();
    assert_eq!((report.transferred.blobs, report.existing.blobs), (0, 3));
    assert_eq!(double.tag("team/b", "1"), Some(image.digest()));
    assert_eq!(double.count("GET", "/blobs/"), 0);
    assert_eq!(double.count("POST", "/team/b/"), 3);
    assert_eq!(double.count("HEAD", "/blobs/"), 0);
}

#[test]
fn a_registry_that_does_not_mount_is_sent_the_blobs_and_not_asked_again() {
    let double = Double::start();
    double.image("team/a", "1", &[b"one", b"two", b"three"]);
    double.faults().no_mount = true;
    double.put_blob("team/b", b"one");
    let options = Options {
        selectors: vec![Selector::Name("1".into())],
        naming: Naming::Names(vec![Name::new("1").unwrap()]),
        compress: Compress::Keep,
        jobs: Some(1),
        ..Options::default()
    };
    let source = Source::Store(Arc::new(store(&double, "team/a")));
    let report = copy(source, &sink(&double, "team/b"), &options, None, &Silent, &Cancel::default()).unwrap();
    assert_eq!((report.transferred.blobs, report.existing.blobs), (3, 1));
    let mounts = double.requests().iter().filter(|r| r.query.contains("mount=")).count();
    assert_eq!((mounts, double.open_uploads()), (1, 0));
}

#[test]
fn locations_may_be_absolute_and_keep_their_query() {
    let (from, to, image) = pair(&[b"one", &noise(2, 2 << 20)]);
    to.faults().locations = Some(String::new());
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert_eq!(to.tag("app", "1"), Some(image.digest()));
    assert!(
        to.requests()
            .iter()
            .filter(|r| r.method == "PUT" && r.path.contains("/uploads/"))
            .all(|r| { r.query.starts_with("state=a%2Fb%3D&digest=sha256%3A") })
    );
}

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_stands() {
    let large = noise(3, 6 << 20);
    let (from, to, image) = pair(&[&large]);
    to.faults().cut_upload = Some((2 << 20, 1));
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert!(*to.blob("app", &image.layers()[0].digest).unwrap() == large);
    let received: u64 = to.requests().iter().filter(|r| r.path.contains("/uploads/")).map(|r| r.received).sum();
    // The config may be what was cut: it is sent again as a whole.
    assert!(received <= (6 << 20) + 2 * 200, "{received} bytes for {}", large.len());
}

#[test]
fn an_upload_that_the_registry_forgot_begins_anew() {
    let large = noise(4, 6 << 20);
    let (from, to, image) = pair(&[&large]);
    let mut faults = to.faults();
    (faults.cut_upload, faults.forget_uploads) = (Some((2 << 20, 2)), true);
    drop(faults);
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert!(*to.blob("app", &image.layers()[0].digest).unwrap() == large);
}

#[test]
fn failures_that_pass_do_not_end_a_push() {
    let (from, to, image) = pair(&[b"one", b"two"]);
    to.faults().stumbles = vec![
        Stumble::new("PUT", "/uploads/", 503, 2),
        Stumble::new("HEAD", "/manifests/", 503, 1),
        Stumble::new("HEAD", "/blobs/", 429, 2),
        Stumble::new("POST", "/uploads/", 500, 2),
        Stumble::new("PUT", "/manifests/", 502, 3),
    ];
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert_eq!(to.tag("app", "1"), Some(image.digest()));
}

#[test]
fn a_small_blob_whose_end_was_lost_is_not_sent_twice_over() {
    let (from, to, image) = pair(&[]);
    to.faults().stumbles = vec![Stumble::new("PUT", "/uploads/", 0, 1), Stumble::new("PUT", "/uploads/", 404, 1)];
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert_eq!(to.tag("app", "1"), Some(image.digest()));
}

#[test]
fn a_blob_of_unknown_digest_is_streamed_and_named_at_its_end() {
    let (from, to, _) = pair(&[&noise(6, 100_000)]);
    let options = Options {
        selectors: vec![Selector::Name("1".into())],
        naming: Naming::Names(vec![Name::new("1").unwrap()]),
        compress: Compress::To(Coding::Gzip),
        ..Options::default()
    };
    let source = Source::Store(Arc::new(store(&from, "app")));
    let report = copy(source, &sink(&to, "app"), &options, None, &Silent, &Cancel::default()).unwrap();
    let digest = report.images[0].digest;
    assert_eq!(to.tag("app", "1"), Some(digest));
    let (media_type, bytes) = to.manifest("app", &digest).unwrap();
    let manifest = Manifest::from_bytes(bytes, &media_type).unwrap();
    assert_eq!(manifest.layers()[0].media_type, media_type::OCI_LAYER_GZIP);
    assert!(to.blob("app", &manifest.layers()[0].digest).is_some());
    assert_eq!(to.count("PATCH", ""), 1);
}

#[test]
fn wrong_bytes_never_become_a_blob() {
    let (from, to, _) = pair(&[]);
    for size in [500_usize, 3 << 20] {
        let right = noise(7, size);
        let mut wrong = right.clone();
        wrong[size / 2] ^= 1;
        let manifest = image(&[&right]);
        from.put_blob("app", support::registry::config());
        from.put_blob_at("app", Digest::of(&right), &wrong);
        from.put_manifest("app", Some("bad"), &manifest);
        let error = send(store(&from, "app"), &sink(&to, "app"), "bad").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert_eq!(to.blob("app", &Digest::of(&right)), None);
        assert_eq!(to.blob("app", &Digest::of(&wrong)), None);
        assert_eq!(to.tag("app", "bad"), None);
    }
}

#[test]
fn a_registry_that_stores_something_else_is_found_out() {
    let (from, to, _) = pair(&[]);
    to.faults().stored_digest = Some(Digest::of(b"something else").to_string());
    let error = send(store(&from, "app"), &sink(&to, "app"), "1").unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
}

#[test]
fn a_registry_that_knows_only_dockers_types_is_pushed_to_with_advice() {
    let (from, to, _) = pair(&[b"one"]);
    to.faults().refused_types = vec![media_type::OCI_MANIFEST];
    let error = send(store(&from, "app"), &sink(&to, "app"), "1").unwrap_err();
    assert!(error.to_string().contains("--format docker"), "{error}");
}

#[test]
fn an_index_goes_whole_and_children_go_first() {
    let (from, to) = (Double::start(), Double::start());
    let (one, two) = (from.image("app", "one", &[b"1"]), from.image("app", "two", &[b"2"]));
    let list = serde_json::to_string(&[&one.descriptor, &two.descriptor]).unwrap();
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":{list}}}"#, media_type::OCI_INDEX);
    let index = Manifest::from_bytes(index.into_bytes(), media_type::OCI_INDEX).unwrap();
    from.put_manifest("app", Some("all"), &index);
    send(store(&from, "app"), &sink(&to, "app"), "all").unwrap();
    assert_eq!(to.tag("app", "all"), Some(index.digest()));
    assert_eq!(to.manifest("app", &index.digest()).unwrap().1, index.bytes);
    assert_eq!(to.count("PUT", "/manifests/"), 3);
    // By digest alone, without a name.
    let sink = sink(&to, "app");
    sink.put_manifest(&one).unwrap();
    sink.publish(None, &one).unwrap();
    sink.finish().unwrap();
    assert!(to.requests().last().unwrap().path.ends_with(&one.digest().to_string()));
}

#[test]
fn a_broken_session_at_the_last_byte_is_looked_after() {
    let large = noise(8, 2 << 20);
    let (from, to, image) = pair(&[&large]);
    // The registry has the whole body but its answer is lost; the blob is there when it is asked for.
    to.faults().lose_answers = 2;
    send(store(&from, "app"), &sink(&to, "app"), "1").unwrap();
    assert!(to.blob("app", &image.layers()[0].digest).is_some());
    // Or it failed to store what it has: it is asked to once more, and nothing is sent again.
    let to = Double::start();
    to.faults().fail_to_store = 1;
    send(store(&from, "app"), &sink(&to, "large"), "1").unwrap();
    assert!(to.blob("large", &image.layers()[0].digest).is_some());
}

#[test]
fn a_body_that_is_too_large_for_a_proxy_is_told_as_that() {
    let (from, to, _) = pair(&[&noise(9, 8 << 20)]);
    to.faults().stumbles = vec![Stumble::new("PUT", "/uploads/", 413, 100)];
    let error = send(store(&from, "app"), &sink(&to, "app"), "1").unwrap_err();
    assert!(error.to_string().contains("imgmv sends no shorter chunks"), "{error}");
}

#[test]
fn a_referrer_is_listed_under_its_tag_where_the_registry_does_not_list_it() {
    for no_api in [false, true] {
        let double = Double::start();
        let subject = double.image("app", "1", &[b"layer"]);
        double.faults().no_referrers = no_api;
        let sink = sink(&double, "app");
        for _ in 0..2 {
            sink.put_manifest(&referrer(&subject)).unwrap();
            sink.finish().unwrap();
        }
        let found = store(&double, "app").referrers(&subject.digest()).unwrap().entries;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].digest, referrer(&subject).digest());
        if no_api {
            assert_eq!(found[0].artifact_type.as_deref(), Some("application/x.signature"));
            assert_eq!(found[0].annotation("by"), Some("someone"));
        }
        assert_eq!(double.tag("app", &subject.digest().to_string().replace(':', "-")).is_some(), no_api);
    }
}
