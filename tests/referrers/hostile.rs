//! Sources that list what is not so. The image is copied, a sentence says what is not, and a required referrer is missed.

use crate::signed::{Signed, referrers_tag};
use crate::support::registry::{Double, Stumble};
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Manifest};
use serde_json::json;

/// A registry without the API, with the image of `signed` and nothing else.
fn bare(signed: &Signed) -> (Double, String) {
    let registry = Double::start();
    registry.faults().no_referrers = true;
    let at = format!("docker://{}/app:1", registry.host());
    signed.done(&["copy", "--no-referrers", "oci:DIR/l:1", &at]);
    (registry, at)
}

fn index(entries: &[Descriptor]) -> Manifest {
    let text = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries }).to_string();
    Manifest::from_bytes(text.into_bytes(), media_type::OCI_INDEX).unwrap()
}

/// Copies from `source`: it succeeds with `said`, and fails where a signature is required.
fn copied_without(signed: &Signed, source: &str, said: &str) {
    let to = Double::start();
    let target = format!("docker://{}/app:1", to.host());
    let output = signed.done(&["copy", source, &target]);
    assert!(output.contains(said), "expected {said:?}: {output}");
    assert_eq!(signed.manifests_in(&to), 3);
    let required = signed.world.run(&["copy", "--require-referrers", "signature", source, &target]);
    assert_eq!(required.status.code(), Some(3), "{}", required.stderr);
}

#[test]
fn a_referrer_of_another_image_is_not_copied() {
    let signed = Signed::new();
    let (from, source) = bare(&signed);
    // The SBOM's subject is another manifest.
    let bytes = signed.world.read("l", &signed.sbom.digest).unwrap();
    from.put_blob("app", b"{}");
    from.put_blob("app", b"sbom");
    from.put_manifest("app", None, &Manifest::parse(bytes, &signed.sbom).unwrap());
    from.put_manifest("app", Some(&referrers_tag(&signed.image)), &index(std::slice::from_ref(&signed.sbom)));
    copied_without(&signed, &source, "but has another subject");
}

#[test]
fn a_referrer_that_is_listed_and_missing_is_named() {
    let signed = Signed::new();
    let (from, source) = bare(&signed);
    from.put_manifest("app", Some(&referrers_tag(&signed.image)), &index(std::slice::from_ref(&signed.signature)));
    copied_without(&signed, &source, &format!("referrer {} cannot be read", signed.signature.digest));
}

/// GitLab resolves `sha256-<hex>` as the digest itself.
#[test]
fn a_referrers_tag_that_is_an_image_or_the_subject_lists_nothing() {
    let signed = Signed::new();
    for found in [signed.image.digest, signed.arm64.digest] {
        let (from, source) = bare(&signed);
        from.tag_as("app", &referrers_tag(&signed.image), found);
        copied_without(&signed, &source, "");
    }
}

/// Web pages and failures in place of the list: the referrers tag is asked, once, and the API is not asked again.
#[test]
fn an_api_that_answers_something_else_is_not_an_api() {
    let signed = Signed::new();
    for (status, body) in [(200, "<html>not found</html>"), (200, "{}"), (403, "no"), (405, ""), (400, "[]")] {
        let (from, to) = (Double::start(), Double::start());
        from.faults().no_referrers = true;
        let source = signed.push(&from);
        let page = Stumble { body: body.to_owned(), ..Stumble::new("GET", "/referrers/", status, 1000) };
        from.faults().stumbles.push(page);
        from.forget_requests();
        signed.done(&["copy", &source, &format!("docker://{}/app:1", to.host())]);
        crate::signed::assert_all(&to, &signed);
        assert_eq!(from.count("GET", "/referrers/"), 1, "{status} {body}");
    }
}

/// Ten thousand are copied of a subject, and the others are named as left out.
#[test]
fn more_referrers_than_a_copy_takes_are_left_out() {
    let signed = Signed::new();
    let (from, source) = bare(&signed);
    let entries: Vec<Descriptor> = (0..10_001u32).map(|nth| Descriptor::of("a/b", &nth.to_le_bytes())).collect();
    from.put_manifest("app", Some(&referrers_tag(&signed.image)), &index(&entries));
    let to = Double::start();
    let target = format!("docker://{}/app:1", to.host());
    let required = signed.world.run(&["copy", "--require-referrers", "signature", &source, &target]);
    assert_eq!(required.status.code(), Some(3), "{}", required.stderr);
    assert!(from.count("GET", "/manifests/") < 10_100);
}
