//! Copies between all places that can hold what belongs to an image.

use crate::signed::{SIGNATURE, Signed, assert_all, referrer, referrers_tag, sig_tag};
use crate::support::registry::{Double, late_list};
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest, Manifest};
use serde_json::{Value, json};
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

/// Another writer had read the list before this copy wrote it, and replaces it after this copy has read it again.
#[test]
fn an_entry_that_is_lost_late_is_added_again() {
    let signed = Signed::new();
    let to = registry(false);
    to.faults().takes_sparse = true;
    to.faults().late_referrers_tags = 3;
    signed.push(&to);
    assert_eq!(to.faults().late_referrers_tags, 0, "every list was replaced");
    assert_all(&to, &signed);
    let other = late_list().children()[0].digest.to_string();
    let (manifests, tags) = to.contents("app");
    for subject in [&signed.image, &signed.amd64, &signed.sbom] {
        let list = String::from_utf8_lossy(&manifests[&tags[&referrers_tag(subject)]]).into_owned();
        assert!(list.contains(&other), "{list}");
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

/// One read, one write and two more reads of the referrers tag for each subject, however many referrers it has.
#[test]
fn the_referrers_of_a_subject_are_listed_together() {
    let mut signed = Signed::new();
    let image = signed.image.clone();
    let more = (0..5).map(|nth| referrer(&mut signed.world, SIGNATURE, &image, format!("more {nth}").as_bytes()));
    let more: Vec<_> = more.collect();
    let to = registry(false);
    signed.push(&to);
    assert_all(&to, &signed);
    for subject in [&signed.image, &signed.amd64, &signed.sbom] {
        let path = format!("/manifests/{}", referrers_tag(subject));
        let count =
            |method: &str| to.requests().iter().filter(|r| r.method == method && r.path.ends_with(&path)).count();
        assert_eq!((count("PUT"), count("GET")), (1, 3), "{}", subject.digest);
    }
    let (manifests, tags) = to.contents("app");
    let list = String::from_utf8_lossy(&manifests[&tags[&referrers_tag(&image)]]).into_owned();
    assert!(more.iter().all(|one| list.contains(&one.digest.to_string())), "{list}");
}

/// A manifest under cosign's tag that has these signatures, in `registry`.
fn tagged(registry: &Double, signed: &Signed, signatures: &[&str]) -> Manifest {
    let config = serde_json::from_slice::<Value>(&signed.world.read("l", &signed.cosign.digest).unwrap()).unwrap();
    let layer = |signature: &&str| {
        let mut layer = Descriptor::of("application/vnd.dev.cosign.simplesigning.v1+json", b"{}\n");
        layer.annotate("dev.cosignproject.cosign/signature", signature);
        layer
    };
    let layers: Vec<Descriptor> = signatures.iter().map(layer).collect();
    let text = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config["config"],
                       "layers": layers });
    let manifest = Manifest::from_bytes(text.to_string().into_bytes(), media_type::OCI_MANIFEST).unwrap();
    let config: Digest = config["config"]["digest"].as_str().unwrap().parse().unwrap();
    registry.put_blob("app", &signed.world.read("l", &config).unwrap());
    registry.put_blob("app", b"{}\n");
    registry.put_manifest("app", Some(&sig_tag(&signed.image)), &manifest);
    manifest
}

/// An image that was signed again at the destination keeps those signatures.
#[test]
fn signatures_of_the_destination_are_never_lost() {
    let signed = Signed::new();
    for (own, there, is_replaced, is_told) in [
        (&["a"][..], &["a", "b"][..], false, false),
        (&["a", "b"], &["b", "a"], false, false),
        (&["a", "b"], &["a"], true, false),
        (&["a"], &["b"], false, true),
    ] {
        let (from, to) = (registry(true), registry(true));
        let (source, target) = (signed.push(&from), format!("docker://{}/app:1", to.host()));
        let own_manifest = tagged(&from, &signed, own);
        let other = tagged(&to, &signed, there);
        let said = signed.done(&["copy", &source, &target]);
        let expected = if is_replaced { own_manifest.digest() } else { other.digest() };
        assert_eq!(to.tag("app", &sig_tag(&signed.image)), Some(expected), "{own:?} {there:?}");
        let both = [own_manifest.digest(), other.digest()];
        assert_eq!(both.iter().all(|digest| said.contains(&digest.to_string())), is_told, "{own:?} {there:?}: {said}");
        // The image counts as copied.
        to.forget_requests();
        signed.done(&["copy", &source, &target]);
        assert_eq!((to.count("PUT", ""), to.count("POST", "")), (0, 0), "{own:?} {there:?}");
        let required = signed.world.run(&["copy", "--require-referrers", "signature", &source, &target]);
        assert_eq!(required.status.success(), !is_told, "{own:?} {there:?}: {}", required.stderr);
    }
}

/// The referrers of a converted image belong to a digest that the destination does not get: their blobs are not sent
/// either, and the image is current afterwards.
#[test]
fn referrers_of_a_converted_image_are_not_sent() {
    let signed = Signed::new();
    let to = registry(true);
    let target = format!("docker://{}/app:1", to.host());
    let convert = ["copy", "--format", "docker", "oci:DIR/l:1", &target];
    let said = signed.done(&convert);
    assert!(said.contains("4 referrers are not copied"), "{said}");
    let (contents, tags) = to.contents("app");
    for content in [&b"signature"[..], b"sbom", b"{}\n", b"{}"] {
        assert!(!contents.contains_key(&Digest::of(content)), "{}", String::from_utf8_lossy(content));
    }
    assert_eq!(tags.len(), 1);
    to.forget_requests();
    signed.done(&convert);
    assert_eq!((to.count("PUT", ""), to.count("POST", "")), (0, 0), "an unchanged image is written again");
    let required = ["--require-referrers", "signature"];
    let required = signed.world.run(&[&convert[..], &required].concat());
    assert_eq!(required.status.code(), Some(3), "{}", required.stderr);
}
