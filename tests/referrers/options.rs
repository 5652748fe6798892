//! `--no-referrers`, `--referrers` and `--require-referrers`.

use crate::signed::{Signed, sig_tag};
use crate::support::registry::Double;

#[test]
fn without_referrers_nothing_is_asked_and_nothing_is_copied() {
    let signed = Signed::new();
    let (from, to) = (Double::start(), Double::start());
    let source = signed.push(&from);
    from.forget_requests();
    signed.done(&["copy", "--no-referrers", &source, &format!("docker://{}/app:1", to.host())]);
    assert_eq!(
        (from.count("GET", "/referrers/"), from.count("HEAD", "sha256-"), from.count("GET", "/tags/")),
        (0, 0, 0)
    );
    assert_eq!((signed.manifests_in(&to), to.contents("app").1.len()), (3, 1));
}

#[test]
fn types_select_what_is_copied() {
    let signed = Signed::new();
    let source = signed.push(&Double::start());
    assert!(source.starts_with("docker://"));
    for (types, expected) in [
        ("sbom", vec![&signed.sbom]),
        ("signature", vec![&signed.signature, &signed.cosign]),
        ("signature,sbom", vec![&signed.signature, &signed.cosign, &signed.sbom, &signed.sbom_signature]),
        ("application/spdx+json", vec![&signed.sbom]),
        ("Application/SPDX+json", vec![&signed.sbom]),
    ] {
        let to = Double::start();
        signed.done(&["copy", "--referrers", types, "oci:DIR/l:1", &format!("docker://{}/app:1", to.host())]);
        let (manifests, tags) = to.contents("app");
        assert!(expected.iter().all(|one| manifests.contains_key(&one.digest)), "{types}");
        assert_eq!(signed.manifests_in(&to), 3 + expected.len(), "{types}");
        assert_eq!(tags.contains_key(&sig_tag(&signed.image)), types.contains("signature"), "{types}");
    }
}

#[test]
fn a_required_type_that_is_missing_ends_the_copy_before_it_begins() {
    let signed = Signed::new();
    let to = Double::start();
    let target = format!("docker://{}/app:1", to.host());
    let refused = signed.world.run(&["copy", "--require-referrers", "attestation", "oci:DIR/l:1", &target]);
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("no referrer of the type attestation"), "{}", refused.stderr);
    // Other images of the same command may have been copied before.
    assert!(!refused.stderr.contains("nothing was copied"), "{}", refused.stderr);
    assert_eq!(to.contents("app").0.len(), 0);
    signed.done(&["copy", "--require-referrers", "signature,sbom", "oci:DIR/l:1", &target]);
    for wrong in ["signatures", "application/*"] {
        let wrong = signed.world.run(&["copy", "--referrers", wrong, "oci:DIR/l:1", &target]);
        assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
        assert!(wrong.stderr.contains("signature, sbom, attestation"), "{}", wrong.stderr);
    }
    let options = ["--referrers", "sbom", "--require-referrers", "signature"];
    let filtered = signed.world.run(&[&["copy"], &options[..], &["oci:DIR/l:1", &target]].concat());
    assert_eq!(filtered.status.code(), Some(3), "{}", filtered.stderr);
    assert!(filtered.stderr.contains("--referrers selects no referrer of the type signature"), "{}", filtered.stderr);
}
