//! What belongs to something that belongs to an image: cosign's tags of referrers, referrers of what such a tag names, and
//! referrers of the children of a referrer that is an index.

use crate::signed::{SBOM, SIGNATURE, Signed, referrer, sig_tag};
use crate::support::registry::Double;
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest};
use serde_json::json;

/// A manifest behind another one: its description, digest and tag.
type Deep = (&'static str, Digest, Option<String>);

/// A signed image, and what belongs to its signatures and SBOMs.
fn deep() -> (Signed, Vec<Deep>) {
    let mut signed = Signed::new();
    let world = &mut signed.world;
    let config = world.config("linux/amd64", &[]);
    let tagged = |world: &mut crate::world::World, subject: &Descriptor, content: &[u8]| {
        let payload = world.blob("application/vnd.dev.cosign.simplesigning.v1+json", content);
        let manifest = world.manifest(&config, &[payload], json!({}));
        world.name(&sig_tag(subject), &manifest);
        manifest
    };
    let of_sbom = tagged(world, &signed.sbom, b"of the sbom");
    let of_tagged = tagged(world, &signed.cosign, b"of the signature");
    let about_tagged = referrer(world, SBOM, &signed.cosign, b"sbom of the signature");
    let last = referrer(world, SIGNATURE, &about_tagged, b"signature of that sbom");
    let empty = world.blob("application/vnd.oci.empty.v1+json", b"{}");
    let child = world.manifest(&empty, &[], json!({ "artifactType": SBOM }));
    let subject = Descriptor { platform: None, ..signed.image.clone() };
    let index = world.document(
        media_type::OCI_INDEX,
        &json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "artifactType": SBOM, "manifests": [child],
            "subject": subject,
        }),
    );
    world.list(&index);
    let about_child = referrer(world, SIGNATURE, &child, b"signature of a child");
    let found = vec![
        ("cosign's tag of a referrer", of_sbom.digest, Some(sig_tag(&signed.sbom))),
        ("cosign's tag of a tagged manifest", of_tagged.digest, Some(sig_tag(&signed.cosign))),
        ("a referrer of a tagged manifest", about_tagged.digest, None),
        ("a referrer of that one", last.digest, None),
        ("a referrer that is an index", index.digest, None),
        ("a referrer of its child", about_child.digest, None),
    ];
    (signed, found)
}

#[test]
fn what_belongs_to_a_referrer_is_copied_between_all_places() {
    let (signed, deep) = deep();
    let has_all = |registry: &Double, place: &str| {
        for (what, digest, tag) in &deep {
            assert!(registry.manifest("app", digest).is_some(), "{place}: {what} is missing");
            let found = tag.as_ref().map(|tag| registry.tag("app", tag));
            assert_eq!(found, tag.as_ref().map(|_| Some(*digest)), "{place}: {what}");
        }
        assert_eq!(signed.manifests_in(registry), 7, "{place}");
    };
    for has_api in [true, false] {
        let (from, to) = (Double::start(), Double::start());
        from.faults().no_referrers = !has_api;
        to.faults().no_referrers = has_api;
        let source = signed.push(&from);
        has_all(&from, "layout");
        signed.done(&["copy", &source, &format!("docker://{}/app:1", to.host())]);
        has_all(&to, "registry");
    }
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/a.tar"]);
    signed.done(&["copy", "DIR/a.tar", "DIR/b.tar.gz"]);
    signed.done(&["copy", "DIR/a.tar", "oci:DIR/m:1"]);
    for place in ["DIR/a.tar", "DIR/b.tar.gz", "oci:DIR/m:1"] {
        let to = Double::start();
        signed.done(&["copy", place, &format!("docker://{}/app:1", to.host())]);
        has_all(&to, place);
    }
}

#[test]
fn what_belongs_to_a_referrer_is_listed_and_served() {
    let (signed, deep) = deep();
    let from = Double::start();
    let source = signed.push(&from);
    signed.done(&["save", "oci:DIR/l:1", "-o", "DIR/a.tar"]);
    for place in [&*source, "oci:DIR/l:1", "DIR/a.tar"] {
        let listed = signed.world.run(&["list", "--referrers", place]);
        for (what, digest, _) in &deep {
            assert!(listed.stdout.contains(&digest.to_string()), "{place}: {what}: {}", listed.stdout);
        }
    }
}
