//! Reading: how few requests it takes, and what a bad line or a lying registry does to it.

use super::support::registry::{Double, Ranges, Stumble, image};
use super::*;
use imgmv::internals::image::media_type;
use imgmv::{Hasher, Kind};

#[test]
fn an_image_takes_one_request_for_each_blob_and_one_for_its_manifest() {
    let double = Double::start();
    let image = double.image("team/app", "1", &[b"layer one", b"layer two"]);
    assert_eq!(super::pull(&store(&double, "team/app"), "1").unwrap().digest(), image.digest());
    assert_eq!(double.requests().len(), 4, "{:#?}", double.requests());
}

#[test]
fn connections_are_kept() {
    let double = Double::start();
    let layers: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed, 1000)).collect();
    double.image("app", "1", &layers.iter().map(|layer| &layer[..]).collect::<Vec<_>>());
    super::pull(&store(&double, "app"), "1").unwrap();
    // One to learn that there is no TLS, one for everything else.
    assert_eq!(double.connections(), 2);
    assert!(super::pull(&store(&double, "app"), "nothing").is_err());
    let registry = reach(&double.host(), access());
    for _ in 0..5 {
        assert!(registry.repository("app").roots(&[Selector::Name("nothing".into())]).is_err());
    }
    assert_eq!(double.connections(), 6);
}

#[test]
fn a_digest_a_tag_and_a_full_name_all_find_the_image() {
    let double = Double::start();
    let image = double.image("team/app", "latest", &[b"layer"]);
    let store = store(&double, "team/app");
    let host = double.host();
    let names = ["latest".to_owned(), format!("{host}/team/app"), format!("{host}/team/app@{}", image.digest())];
    for name in names {
        let root = store.roots(&[Selector::Name(name.clone())]).unwrap().remove(0);
        assert_eq!(root.descriptor, image.descriptor, "{name}");
    }
    let root = store.roots(&[Selector::Digest(image.digest())]).unwrap().remove(0);
    assert_eq!((root.name, root.descriptor.digest), (None, image.digest()));
    let elsewhere = store.roots(&[Selector::Name("docker.io/library/other:1".into())]).unwrap_err();
    assert_eq!(elsewhere.kind(), Kind::Usage);
}

#[test]
fn what_is_not_there_is_named() {
    let double = Double::start();
    double.image("team/app", "1", &[]);
    let error = store(&double, "team/app").roots(&[Selector::Name("2".into())]).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("team/app:2") && error.to_string().contains(&double.host()), "{error}");
    assert_eq!(double.requests().len(), 1);
}

#[test]
fn every_tag_is_found_page_after_page() {
    let double = Double::start();
    for tag in 0..25 {
        double.image("team/app", &format!("v{tag}"), &[b"same"]);
    }
    double.faults().page = Some(10);
    let store = store(&double, "team/app");
    assert_eq!(store.names().unwrap().len(), 25);
    assert_eq!(double.count("GET", "/tags/"), 3);
    let roots = store.roots(&[]).unwrap();
    assert_eq!(roots.len(), 25);
    assert!(roots[0].name.as_ref().unwrap().as_str().ends_with("/team/app:v0"));
}

#[test]
fn a_manifest_altered_on_its_way_is_asked_for_again_and_then_refused() {
    let double = Double::start();
    double.image("app", "1", &[b"layer"]);
    double.faults().flip_manifest = 1;
    assert!(super::pull(&store(&double, "app"), "1").is_ok());
    assert_eq!(double.count("GET", "/manifests/"), 2);
    double.faults().flip_manifest = 2;
    let error = super::pull(&store(&double, "app"), "1").unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("does not match"), "{error}");
}

#[test]
fn a_registry_without_digest_headers_is_read_as_well() {
    let double = Double::start();
    let image = double.image("app", "1", &[b"layer"]);
    double.faults().no_digest_header = true;
    assert_eq!(super::pull(&store(&double, "app"), "1").unwrap().digest(), image.digest());
}

#[test]
fn a_blob_is_read_from_where_it_was_left_whatever_the_server_makes_of_ranges() {
    let double = Double::start();
    let layer = noise(1, 300_000);
    let image = double.image("app", "1", &[&layer]);
    let store = store(&double, "app");
    let blob = &image.layers()[0];
    assert_eq!(read(&store, blob, 100_000).unwrap(), layer[100_000..]);
    assert_eq!(read(&store, blob, 300_000).unwrap(), b"");
    double.faults().ranges = Ranges::Ignored;
    assert_eq!(read(&store, blob, 299_999).unwrap(), layer[299_999..]);
    double.faults().ranges = Ranges::Wrong;
    assert_eq!(read(&store, blob, 5).unwrap(), layer[5..]);
    double.faults().ranges = Ranges::Honoured;
    let longer = Descriptor { size: 300_010, ..blob.clone() };
    assert_eq!(read(&store, &longer, 300_005).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_line_that_breaks_again_and_again_delivers_while_it_makes_progress() {
    let double = Double::start();
    let layer = noise(2, 2_000_000);
    let image = double.image("app", "1", &[&layer]);
    double.faults().cut = Some((100_000, 1000));
    assert!(read(&store(&double, "app"), &image.layers()[0], 0).unwrap() == layer);
    assert_eq!(double.count("GET", "/blobs/"), 20);
    // Without progress the tries end.
    double.forget_requests();
    double.faults().cut = Some((0, 1000));
    let error = read(&store(&double, "app"), &image.layers()[0], 0).unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert_eq!(double.count("GET", "/blobs/"), 6);
}

#[test]
fn a_stalled_line_is_a_broken_line() {
    let double = Double::start();
    let layer = noise(3, 500_000);
    let image = double.image("app", "1", &[&layer]);
    double.faults().stall = Some((200_000, 1));
    let quick = Access { timeout: Duration::from_millis(300), ..access() };
    let store = reach(&double.host(), quick).repository("app");
    assert!(read(&store, &image.layers()[0], 0).unwrap() == layer);
    assert_eq!(double.count("GET", "/blobs/"), 2);
}

#[test]
fn failures_that_pass_are_tried_again_and_told() {
    for (status, times) in [(500, 3), (503, 1), (429, 2), (408, 1), (0, 2)] {
        let double = Double::start();
        let image = double.image("app", "1", &[b"layer"]);
        let stumble = Stumble { retry_after: Some("0".into()), ..Stumble::new("GET", "/manifests/", status, times) };
        double.faults().stumbles = vec![stumble];
        let heard = Arc::new(Heard::default());
        let registry = Registry::new(&double.host(), access(), heard.clone(), Cancel::default()).unwrap();
        let found = super::pull(&registry.repository("app"), "1").unwrap();
        assert_eq!(found.digest(), image.digest());
        assert_eq!(heard.0.lock().unwrap().len(), times, "status {status}: {}", heard.all());
    }
}

#[test]
fn tries_end() {
    let double = Double::start();
    double.image("app", "1", &[b"layer"]);
    double.faults().stumbles = vec![Stumble::new("GET", "/manifests/", 503, 100)];
    let error = store(&double, "app").roots(&[Selector::Name("1".into())]).unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert_eq!(double.count("GET", "/manifests/"), 6);
    assert!(error.to_string().contains("503"), "{error}");
}

#[test]
fn nobody_there_is_told_in_a_moment() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = reach(&format!("127.0.0.1:{port}"), access()).repository("app");
    let error = store.roots(&[Selector::Name("1".into())]).unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_cancelled_pull_ends_at_once() {
    let double = Double::start();
    let layer = noise(4, 100_000);
    let image = double.image("app", "1", &[&layer]);
    double.faults().stall = Some((1000, 1));
    let cancel = Cancel::default();
    let registry = Registry::new(&double.host(), access(), Arc::new(Silent), cancel.clone()).unwrap();
    let store = registry.repository("app");
    let mut reader = store.open(&image.layers()[0], 0).unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    // The time-out is 30 seconds; whoever raises does so while the read waits or before it, both have to end.
    let raiser = std::thread::spawn(move || cancel.raise());
    let error = imgmv::Error::from(reader.read(&mut [0; 10]).unwrap_err());
    raiser.join().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted);
}

#[test]
fn a_blob_or_a_manifest_is_found_by_its_digest() {
    let double = Double::start();
    let image = double.image("app", "1", &[b"layer"]);
    let store = store(&double, "app");
    assert_eq!(store.find(&image.layers()[0].digest).unwrap().unwrap().size, 5);
    assert_eq!(store.find(&image.digest()).unwrap().unwrap(), image.descriptor);
    assert_eq!(store.find(&Digest::of(b"nothing")).unwrap(), None);
}

#[test]
fn referrers_come_from_the_api_and_else_from_their_tag() {
    let double = Double::start();
    let subject = double.image("app", "1", &[b"layer"]);
    let signature = referrer(&subject);
    double.put_manifest("app", None, &signature);
    let store = store(&double, "app");
    assert_eq!(store.referrers(&subject.digest()).unwrap().entries[0].digest, signature.digest());
    double.faults().no_referrers = true;
    assert!(store.referrers(&subject.digest()).unwrap().entries.is_empty());
    let list = serde_json::to_string(&[&signature.descriptor]).unwrap();
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":{list}}}"#, media_type::OCI_INDEX);
    let index = Manifest::from_bytes(index.into_bytes(), media_type::OCI_INDEX).unwrap();
    double.put_manifest("app", Some(&subject.digest().to_string().replace(':', "-")), &index);
    assert_eq!(store.referrers(&subject.digest()).unwrap().entries[0].digest, signature.digest());
}

#[test]
fn a_sha512_digest_is_checked_as_one() {
    let double = Double::start();
    let bytes = image(&[]).bytes;
    let digest = Hasher::new(imgmv::internals::image::Algorithm::Sha512).with(&bytes).finish();
    double.put_manifest_at("app", digest, media_type::OCI_MANIFEST, &bytes);
    let root = store(&double, "app").roots(&[Selector::Digest(digest)]).unwrap().remove(0);
    assert_eq!(root.descriptor.digest, digest);
}

#[test]
fn a_mirror_with_its_api_elsewhere_is_told_whom_it_stands_for() {
    let double = Double::start();
    let image = double.image("hub/app", "1", &[b"layer"]);
    let access = Access { api_root: "/v2/hub".to_owned(), namespace: Some("docker.io".to_owned()), ..access() };
    let store = reach(&double.host(), access).repository("app");
    assert_eq!(super::pull(&store, "1").unwrap().digest(), image.digest());
    assert_eq!(store.names().unwrap().len(), 1);
    for asked in double.requests() {
        assert_eq!(asked.parameter("ns").as_deref(), Some("docker.io"), "{asked:?}");
        assert!(asked.path.starts_with("/v2/hub/app/"), "{asked:?}");
    }
}
