//! Copies between all places that can hold what belongs to an image.

use crate::signed::{SIGNATURE, Signed, assert_all, referrer, referrers_tag, sig_tag};
use crate::support::registry::Double;
use serde_json::Value;
use std::fs;

fn registry(has_api: bool) -> Double {
    let registry = Double::start();
    registry.faults().no_referrers = !has_api;
    registry
}

#[test]
fn all_that_belongs_to_an_image_goes_from_registry_to_registry() {
    let signed = Signed::new();
    for (from_api, to_api) in [(true, true), (true, false), (false, true), (false, false)] {
        let (from, to) = (registry(from_api), registry(to_api));
        let source = signed.push(&from);
        assert_all(&from, &signed);
        signed.done(&["copy", &source, &format!("docker://{}/app:1", to.host())]);
        assert_all(&to, &signed);
    }
}

#[test]
fn it_goes_through_layouts_archives_and_pipes() {
    let signed = Signed::new();
    let from = registry(true);
    let source = signed.push(&from);
    signed.done(&["copy", &source, "oci:DIR/layout:1"]);
    signed.done(&["copy", &source, "oci-archive:DIR/a.tar:1"]);
    signed.done(&["copy", "DIR/a.tar", "DIR/b.tar"]);
    signed.done(&["save", "oci:DIR/layout:1", "-o", "DIR/c.tar.gz"]);
    for place in ["oci:DIR/layout:1", "DIR/a.tar", "DIR/b.tar", "DIR/c.tar.gz"] {
        let to = registry(true);
        signed.done(&["copy", place, &format!("docker://{}/app:1", to.host())]);
        assert_all(&to, &signed);
    }
    let to = registry(true);
    let archive = signed.world.path("a.tar");
    let piped = signed.world.run_with(&["copy", "-", &format!("docker://{}/app:1", to.host())], Some(&archive));
    assert!(piped.status.success(), "{}", piped.stderr);
    assert_all(&to, &signed);
}

/// containerd 1.6 and podman refuse an archive whose `index.json` lists a referrer.
#[test]
fn an_archive_lists_only_its_images() {
    let signed = Signed::new();
    signed.done(&["copy", "oci:DIR/l:1", "DIR/a.tar"]);
    let tar = fs::read(signed.world.path("a.tar")).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let mut index = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some("index.json") {
            std::io::Read::read_to_string(&mut entry, &mut index).unwrap();
        }
    }
    let index: Value = serde_json::from_str(&index).unwrap();
    let listed: Vec<&str> =
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    assert_eq!(listed, [signed.image.digest.to_string()]);
}

/// A policy that admits only signed images must never see the tag without its signature.
#[test]
fn tags_come_last() {
    let signed = Signed::new();
    let to = registry(false);
    signed.push(&to);
    let puts: Vec<String> = to.requests().into_iter().filter(|r| r.method == "PUT").map(|r| r.path).collect();
    let at = |part: &str| puts.iter().position(|path| path.contains(part)).unwrap_or_else(|| panic!("no {part}"));
    let image = at(&format!("manifests/{}", signed.image.digest));
    let name = at("manifests/1");
    for one in signed.referrers() {
        let referrer = at(&format!("manifests/{}", one.digest));
        assert!(image < referrer && referrer < name, "{puts:#?}");
    }
    assert!(at(&referrers_tag(&signed.image)) < name && at(&sig_tag(&signed.image)) < name);
}

#[test]
fn what_is_signed_later_is_copied_later() {
    for has_api in [true, false] {
        let mut signed = Signed::new();
        let (from, to) = (registry(true), registry(has_api));
        let source = signed.push(&from);
        let target = format!("docker://{}/app:1", to.host());
        signed.done(&["copy", &source, &target]);
        to.forget_requests();
        signed.done(&["copy", &source, &target]);
        assert_eq!((to.count("PUT", ""), to.count("POST", "")), (0, 0), "an unchanged image is written again");
        let image = signed.image.clone();
        let later = referrer(&mut signed.world, SIGNATURE, &image, b"another signature");
        signed.push(&from);
        to.forget_requests();
        signed.done(&["copy", &source, &target]);
        assert!(to.contents("app").0.contains_key(&later.digest));
        assert_eq!(to.count("PUT", &format!("manifests/{}", signed.image.digest)), 0);
    }
}

/// Another writer replaces the referrers tag: it is written again, and a lost entry is never a success.
#[test]
fn an_entry_of_a_referrers_tag_is_not_lost() {
    let signed = Signed::new();
    for (lost, succeeds) in [(3, true), (1000, false)] {
        let to = registry(false);
        to.faults().lost_referrers_tags = lost;
        let output = signed.world.run(&["copy", "oci:DIR/l:1", &format!("docker://{}/app:1", to.host())]);
        assert_eq!(output.status.success(), succeeds, "{}", output.stderr);
        match succeeds {
            true => assert_all(&to, &signed),
            false => {
                assert!(output.stderr.contains("other writers replaced the referrers tag"), "{}", output.stderr);
                assert_eq!(to.tag("app", "1"), None);
            }
        }
    }
}

/// Copying a whole layout, or all tags, copies what belongs to the images once, and not as images.
#[test]
fn a_whole_place_is_copied_without_its_referrers_as_images() {
    let signed = Signed::new();
    let to = registry(true);
    signed.done(&["copy", "oci:DIR/l", &format!("docker://{}/app:1", to.host())]);
    assert_all(&to, &signed);
    let json = signed.world.run(&["copy", "--json", "oci:DIR/l", "oci:DIR/all"]);
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["images"][0]["referrers"].as_array().unwrap().len(), 4, "{report}");
}
