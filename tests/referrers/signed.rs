//! An image of two platforms with all kinds of things that belong to it, in the layout `l` of a world.

use crate::support::registry::Double;
use crate::world::{World, tar};
use imgmv::{Descriptor, Digest};
use serde_json::{Value, json};
use std::io::Write;

pub const SIGNATURE: &str = "application/vnd.cncf.notary.signature";
pub const SBOM: &str = "application/spdx+json";

/// The digests of what the layout holds.
pub struct Signed {
    pub world: World,
    pub image: Descriptor,
    pub amd64: Descriptor,
    pub arm64: Descriptor,
    /// Refers to the index.
    pub signature: Descriptor,
    /// Refers to the image for amd64.
    pub sbom: Descriptor,
    /// Refers to the SBOM.
    pub sbom_signature: Descriptor,
    /// Under cosign's tag for the index.
    pub cosign: Descriptor,
}

impl Signed {
    pub fn new() -> Signed {
        let mut world = World::new();
        let (amd64, arm64) = (image(&mut world, "linux/amd64", b"one"), image(&mut world, "linux/arm64", b"two"));
        let image = world.index(&[amd64.clone(), arm64.clone()], json!({}));
        world.name("1", &image);
        let signature = referrer(&mut world, SIGNATURE, &image, b"signature");
        let sbom = referrer(&mut world, SBOM, &amd64, b"sbom");
        let sbom_signature = referrer(&mut world, SIGNATURE, &sbom, b"signature of the sbom");
        let config = world.config("linux/amd64", &[]);
        let payload = world.blob("application/vnd.dev.cosign.simplesigning.v1+json", b"{}\n");
        let cosign = world.manifest(&config, &[payload], json!({}));
        world.name(&sig_tag(&image), &cosign);
        Signed { world, image, amd64, arm64, signature, sbom, sbom_signature, cosign }
    }

    /// Copies the image to `registry` and returns the place of it.
    pub fn push(&self, registry: &Double) -> String {
        let to = format!("docker://{}/app:1", registry.host());
        self.done(&["copy", "oci:DIR/l:1", &to]);
        to
    }

    /// Runs the program, which must succeed; returns what it said.
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.world.run(args);
        assert!(output.status.success(), "{args:?}: {}", output.stderr);
        output.stderr
    }

    /// How many of its manifests `registry` has.
    pub fn manifests_in(&self, registry: &Double) -> usize {
        let image = [&self.image, &self.amd64, &self.arm64, &self.cosign];
        let all = image.into_iter().chain(self.referrers());
        all.filter(|one| registry.manifest("app", &one.digest).is_some()).count()
    }

    /// Everything that belongs to the image, without a tag.
    pub fn referrers(&self) -> [&Descriptor; 3] {
        [&self.signature, &self.sbom, &self.sbom_signature]
    }
}

/// An image whose layer is compressed already, so that registries get it as it is.
pub fn image(world: &mut World, platform: &str, content: &[u8]) -> Descriptor {
    let layer = tar(content);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let at = world.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish().unwrap());
    let config = world.config(platform, &[Digest::of(&layer)]);
    let manifest = world.manifest(&config, &[at], json!({}));
    Descriptor { platform: Some(platform.parse().unwrap()), ..manifest }
}

/// A manifest of the type `artifact_type` with the subject `about`, listed in the layout.
pub fn referrer(world: &mut World, artifact_type: &str, about: &Descriptor, content: &[u8]) -> Descriptor {
    let config = world.blob("application/vnd.oci.empty.v1+json", b"{}");
    let layer = world.blob("application/octet-stream", content);
    let subject = Descriptor { platform: None, ..about.clone() };
    let more: Value = json!({ "artifactType": artifact_type, "subject": subject });
    let manifest = world.manifest(&config, &[layer], more);
    world.list(&manifest);
    manifest
}

pub fn sig_tag(image: &Descriptor) -> String {
    format!("sha256-{}.sig", image.digest.hex())
}

pub fn referrers_tag(image: &Descriptor) -> String {
    format!("sha256-{}", image.digest.hex())
}

/// Checks that `app` in `registry` has the image of `signed` with all that belongs to it, listed in the way that the
/// registry knows.
pub fn assert_all(registry: &Double, signed: &Signed) {
    let (manifests, tags) = registry.contents("app");
    for (what, one) in [("image", &signed.image), ("cosign", &signed.cosign), ("amd64", &signed.amd64)] {
        assert!(manifests.contains_key(&one.digest), "{what} is missing");
    }
    assert_eq!(tags.get("1"), Some(&signed.image.digest));
    assert_eq!(tags.get(&sig_tag(&signed.image)), Some(&signed.cosign.digest));
    let subjects = [&signed.image, &signed.amd64, &signed.sbom];
    for (subject, one) in subjects.into_iter().zip(signed.referrers()) {
        assert!(manifests.contains_key(&one.digest), "{} is missing", one.digest);
        if registry.faults().no_referrers {
            let index = tags.get(&referrers_tag(subject)).expect("a referrers tag");
            let index = String::from_utf8_lossy(&manifests[index]).into_owned();
            assert!(index.contains(&one.digest.to_string()), "{index}");
        }
    }
}
