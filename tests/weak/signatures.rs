//! What the search for signatures costs: cosign's tags of one image by name, those of many by a list of all tags.

use super::*;
use imgmv::Descriptor;
use imgmv::internals::image::media_type;
use serde_json::json;

/// A registry with an index of `count` images as tag `1`, of which the last one and the index are signed by cosign's tag.
fn registry(count: u8) -> (Double, Vec<Digest>) {
    let double = Double::start();
    let mut children: Vec<Descriptor> = Vec::new();
    for number in 0..count {
        let image = double.image("app", "1", &[&[number; 100]]);
        let platform = Some(format!("linux/amd64/v{}", number + 1).parse().unwrap());
        children.push(Descriptor { platform, ..image.descriptor });
    }
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
    let index = Manifest::from_bytes(index.to_string().into_bytes(), media_type::OCI_INDEX).unwrap();
    double.put_manifest("app", Some("1"), &index);
    let last = children.last().map(|child| child.digest);
    let signed: Vec<Digest> = last.into_iter().chain([index.digest()]).collect();
    let signatures = signed.iter().map(|subject| {
        let tag = format!("sha256-{}.sig", subject.hex());
        double.image("app", &tag, &[format!("signature of {subject}").as_bytes()]).digest()
    });
    let signatures = signatures.collect();
    double.forget_requests();
    (double, signatures)
}

/// Pulls tag `1` with `signatures`; the numbers of questions for cosign's tags and for lists of tags.
fn asked(double: &Double, signatures: &[Digest]) -> (usize, usize) {
    let dir = TempDir::new().unwrap();
    let (from, to) = (format!("docker://{}/app:1", double.host()), format!("oci:{}:1", dir.path().display()));
    let out = good(imgmv(&["copy", &from, &to], None));
    for signature in signatures {
        assert!(dir.path().join(signature.blob_path()).exists(), "{signature} is not copied: {}", out.stderr);
    }
    (double.count("HEAD", "manifests/sha256-"), double.count("GET", "tags/list"))
}

#[test]
fn cosigns_tags_of_one_image_are_asked_for_by_name() {
    let double = Double::start();
    double.image("app", "1", &[b"layer"]);
    double.forget_requests();
    assert_eq!(asked(&double, &[]), (3, 0));
}

#[test]
fn cosigns_tags_of_many_images_cost_one_list_of_tags() {
    for count in [2, 20] {
        let (double, signatures) = registry(count);
        // Three for the index, and one for the other tag that the list shows.
        assert_eq!(asked(&double, &signatures), (3 + 1, 1), "{count} images");
    }
}

/// A repository with a long list of tags is not listed to its end.
#[test]
fn a_long_list_of_tags_is_not_read_for_cosigns() {
    let (double, signatures) = registry(3);
    for number in 0..10 {
        double.image("app", &format!("other-{number}"), &[b"other"]);
    }
    double.forget_requests();
    double.faults().page = Some(2);
    // Three for the index, each image and each of the two signatures.
    assert_eq!(asked(&double, &signatures), (3 * (1 + 3 + 2), 3));
}

/// Some registries list no tags, or only those that they cached.
#[test]
fn a_list_of_tags_that_is_not_complete_is_not_trusted() {
    for unlisted in ["", "1", ".sig"] {
        let (double, signatures) = registry(3);
        double.faults().unlisted = Some(unlisted);
        assert_eq!(asked(&double, &signatures).1, 1, "without tags like {unlisted:?}");
    }
}
