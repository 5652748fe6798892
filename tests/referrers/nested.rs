//! An index in an index, of which one platform is copied.

use crate::signed::{SIGNATURE, Signed, image, referrer};
use crate::sparse::{ARM64, copy, digest, tolerant};
use crate::support::registry::Double;
use imgmv::Descriptor;
use serde_json::json;
use std::fs;

/// An image for amd64 in the index `2`, and those for arm64 and s390x in an index below it, each with a referrer.
struct Nested {
    signed: Signed,
    top: Descriptor,
    inner: Descriptor,
    referrers: [Descriptor; 2],
}

impl Nested {
    fn new() -> Nested {
        let mut signed = Signed::new();
        let s390x = image(&mut signed.world, "linux/s390x", b"three");
        let inner = signed.world.index(&[signed.arm64.clone(), s390x], json!({}));
        let top = signed.world.index(&[signed.amd64.clone(), inner.clone()], json!({}));
        signed.world.name("2", &top);
        let about = |index: &Descriptor, content: &[u8], signed: &mut Signed| {
            referrer(&mut signed.world, SIGNATURE, index, content)
        };
        let referrers = [about(&top, b"of the top", &mut signed), about(&inner, b"of the inner", &mut signed)];
        Nested { signed, top, inner, referrers }
    }
}

#[test]
fn an_archive_keeps_the_indexes_between_the_original_and_the_image() {
    let nested = Nested::new();
    let signed = &nested.signed;
    let all = "linux/amd64,linux/arm64,linux/s390x";
    for platforms in ["linux/arm64", "linux/amd64,linux/arm64", all] {
        signed.done(&["save", "--platform", platforms, "oci:DIR/l:2", "-o", "DIR/a.tar"]);
        signed.done(&["verify", "DIR/a.tar"]);
        signed.done(&["copy", "DIR/a.tar", "oci-archive:DIR/b.tar"]);
        signed.done(&["copy", "DIR/a.tar", "DIR/c.tar.gz"]);
        for archive in ["a.tar", "b.tar", "c.tar.gz"] {
            let to = tolerant();
            copy(signed, &[], &format!("DIR/{archive}"), &to);
            let (manifests, tags) = to.contents("app");
            assert_eq!(tags.get("1"), Some(&nested.top.digest), "{platforms} {archive}");
            for one in nested.referrers.iter().chain([&nested.inner]) {
                assert!(manifests.contains_key(&one.digest), "{platforms} {archive}: {}", one.digest);
            }
        }
        for name in ["a.tar", "b.tar", "c.tar.gz"] {
            fs::remove_file(signed.world.path(name)).unwrap();
        }
    }
    // A copy of all platforms changes nothing.
    signed.done(&["save", "--platform", all, "oci:DIR/l:2", "-o", "DIR/all.tar"]);
    assert_eq!(digest(signed, "DIR/all.tar"), nested.top.digest.to_string());
    // What belongs to a converted image is not the index, nor what is below it.
    signed.done(&["copy", "--format", "docker", "--platform", "linux/arm64", "oci:DIR/l:2", "DIR/d.tar"]);
    signed.done(&["copy", "DIR/d.tar", "oci:DIR/converted:2"]);
    assert!(signed.world.read("converted", &nested.inner.digest).is_none());
}

/// A registry shows only by its answers what of an index it has.
#[test]
fn a_registry_without_an_index_below_the_index_is_a_source() {
    let nested = Nested::new();
    let signed = &nested.signed;
    let from = tolerant();
    copy(signed, &["--platform", "linux/amd64"], "oci:DIR/l:2", &from);
    assert!(!from.contents("app").0.contains_key(&nested.inner.digest));
    let source = format!("docker://{}/app:1", from.host());
    for args in [
        &["inspect", &source][..],
        &["verify", &source],
        &["list", "--referrers", &source],
        &["diff", &source, "oci:DIR/l:2"],
        &["digest", "--platform", "linux/amd64", &source],
        &["delete", "--dry-run", "--with-referrers", &source],
    ] {
        let output = signed.world.run(args);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{args:?}: {}", output.stderr);
        assert!(!output.stderr.contains("has no image"), "{args:?}: {}", output.stderr);
    }
    for options in [&[][..], &["--platform", "linux/amd64"]] {
        let to = tolerant();
        copy(signed, options, &source, &to);
        assert_eq!(to.tag("app", "1"), Some(nested.top.digest), "{options:?}");
        assert!(to.contents("app").0.contains_key(&signed.amd64.digest), "{options:?}");
    }
    let absent = signed.world.run(&["copy", "--platform", "linux/arm64", &source, "oci:DIR/x:1"]);
    assert_eq!(absent.status.code(), Some(3), "{}", absent.stderr);
    assert!(absent.stderr.contains("indexes that the source does not have"), "{}", absent.stderr);
    signed.done(&["copy", &source, "oci:DIR/sparse:1"]);
    for place in [&source, "oci:DIR/sparse:1"] {
        let args = ["copy", "--sparse", "fail", "--platform", "linux/amd64", place, "oci:DIR/y:1"];
        let fails = signed.world.run(&args);
        assert_eq!(fails.status.code(), Some(2), "{place}: {}", fails.stderr);
    }
}

#[test]
fn an_index_below_the_index_that_a_registry_refuses_is_not_sent_again() {
    let nested = Nested::new();
    let to = Double::start();
    let said = copy(&nested.signed, &ARM64, "oci:DIR/l:2", &to);
    assert!(said.contains(&format!("refuses index {}", nested.top.digest)), "{said}");
    assert_eq!(to.tag("app", "1"), Some(nested.signed.arm64.digest));
    assert_eq!(to.count("PUT", &format!("manifests/{}", nested.inner.digest)), 1);
    assert_eq!(to.count("PUT", &format!("manifests/{}", nested.top.digest)), 0);
}
