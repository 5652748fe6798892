//! One platform of an index: the index stays as it is where the destination takes it.

use crate::signed::{Signed, sig_tag};
use crate::support::registry::Double;

const ARM64: [&str; 2] = ["--platform", "linux/arm64"];

fn tolerant() -> Double {
    let registry = Double::start();
    registry.faults().takes_sparse = true;
    registry
}

fn copy(signed: &Signed, options: &[&str], from: &str, to: &Double) -> String {
    let to = format!("docker://{}/app:1", to.host());
    signed.done(&[&["copy"], options, &[from, &to]].concat())
}

#[test]
fn a_registry_gets_the_original_index_with_the_chosen_platform() {
    let signed = Signed::new();
    let to = tolerant();
    copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    let (manifests, tags) = to.contents("app");
    assert_eq!(tags.get("1"), Some(&signed.image.digest));
    assert!(manifests.contains_key(&signed.arm64.digest) && !manifests.contains_key(&signed.amd64.digest));
    assert!(manifests.contains_key(&signed.signature.digest) && tags.contains_key(&sig_tag(&signed.image)));

    to.forget_requests();
    copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    assert_eq!((to.count("PUT", ""), to.count("POST", "")), (0, 0), "nothing changed");

    // The tag points at the right digest already, but a platform is missing.
    copy(&signed, &[], "oci:DIR/l:1", &to);
    assert!(to.contents("app").0.contains_key(&signed.amd64.digest));
}

#[test]
fn a_sparse_registry_is_a_source() {
    let signed = Signed::new();
    let from = tolerant();
    copy(&signed, &ARM64, "oci:DIR/l:1", &from);
    let to = tolerant();
    let said = copy(&signed, &[], &format!("docker://{}/app:1", from.host()), &to);
    assert!(said.contains("the source has only linux/arm64"), "{said}");
    assert_eq!(to.tag("app", "1"), Some(signed.image.digest));
    let all =
        signed.world.run(&["copy", "--all-platforms", &format!("docker://{}/app:1", from.host()), "oci:DIR/all:1"]);
    assert_eq!(all.status.code(), Some(3), "{}", all.stderr);
}

#[test]
fn a_registry_that_refuses_missing_children_gets_a_smaller_index() {
    let signed = Signed::new();
    let to = Double::start();
    let said = copy(&signed, &ARM64, "oci:DIR/l:1", &to);
    let (manifests, tags) = to.contents("app");
    assert_eq!(tags.get("1"), Some(&signed.arm64.digest));
    assert!(!manifests.contains_key(&signed.image.digest) && !manifests.contains_key(&signed.signature.digest));
    for digest in [signed.image.digest, signed.arm64.digest] {
        assert!(said.contains(&digest.to_string()), "{said}");
    }
    assert!(said.contains("referrers") && said.contains("are not copied"), "{said}");
}

#[test]
fn narrow_gives_the_platforms_own_manifest() {
    let signed = Signed::new();
    let to = tolerant();
    copy(&signed, &["--platform", "linux/arm64", "--sparse", "narrow"], "oci:DIR/l:1", &to);
    assert_eq!(to.tag("app", "1"), Some(signed.arm64.digest));
}

#[test]
fn a_layout_keeps_the_original_index() {
    let signed = Signed::new();
    signed.done(&["copy", "--platform", "linux/arm64", "oci:DIR/l:1", "oci:DIR/arm:1"]);
    let digest = signed.world.run(&["digest", "oci:DIR/arm:1"]);
    assert_eq!(digest.stdout.trim(), signed.image.digest.to_string());
    assert!(signed.world.read("arm", &signed.amd64.digest).is_none());
}

/// What an engine loads is the chosen platform; what a registry gets from the archive is the original.
#[test]
fn an_archive_keeps_the_original_index_beside_the_image() {
    let signed = Signed::new();
    signed.done(&["save", "--platform", "linux/arm64", "oci:DIR/l:1", "-o", "DIR/a.tar"]);
    let digest = signed.world.run(&["digest", "DIR/a.tar"]);
    assert_eq!(digest.stdout.trim(), signed.arm64.digest.to_string());
    signed.done(&["copy", "DIR/a.tar", "DIR/b.tar"]);
    for archive in ["a.tar", "b.tar"] {
        let to = tolerant();
        copy(&signed, &[], &format!("DIR/{archive}"), &to);
        let (manifests, tags) = to.contents("app");
        assert_eq!(tags.get("1"), Some(&signed.image.digest), "{archive}");
        assert!(manifests.contains_key(&signed.signature.digest) && tags.contains_key(&sig_tag(&signed.image)));
        let piped = tolerant();
        let target = format!("docker://{}/app:1", piped.host());
        let output = signed.world.run_with(&["copy", "-", &target], Some(&signed.world.path(archive)));
        assert!(output.status.success(), "{}", output.stderr);
        assert_eq!(piped.tag("app", "1"), Some(signed.image.digest), "{archive}");
    }
    signed.done(&["copy", "DIR/a.tar", "oci:DIR/back:1"]);
    let digest = signed.world.run(&["digest", "oci:DIR/back:1"]);
    assert_eq!(digest.stdout.trim(), signed.image.digest.to_string());
}
