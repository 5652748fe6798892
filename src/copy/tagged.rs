//! The manifests under cosign's tags, whose layers are signatures. The destination may have other signatures under the
//! same tag, and it loses none of them: the tag keeps its manifest or gets the source's. A merged manifest would have a
//! digest that neither place knows.

use super::run::CopyRun;
use crate::error::{Error, Result};
use crate::image::{Attached, Descriptor, Image, Manifest};
use std::collections::HashSet;

/// The decision about one of cosign's tags at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagDecision {
    /// It gets the source's manifest: the destination has none, or only signatures that the source has too.
    Write,
    /// The destination has all signatures of the source.
    Held,
    /// The destination has other signatures than the source, and keeps them.
    Other,
}

impl CopyRun<'_> {
    /// Marks the manifests under cosign's tags that the sink has, and removes those of which it keeps others.
    ///
    /// Fails with `Failed` where it keeps others and `--require-referrers` asks for these.
    pub(super) fn decide_tags(&self, image: &mut Image) -> Result<()> {
        let mut copied = Vec::with_capacity(image.attached.len());
        for mut attached in std::mem::take(&mut image.attached) {
            if let (Some(tag), false) = (&attached.tag, attached.is_held) {
                match self.tag_decision(image, tag, &attached)? {
                    TagDecision::Write => {}
                    TagDecision::Held => attached.is_held = true,
                    TagDecision::Other => continue,
                }
            }
            copied.push(attached);
        }
        image.attached = copied;
        Ok(())
    }

    /// Decides about `attached` and its `tag`, which belongs to `image`; reports [`TagDecision::Other`].
    fn tag_decision(&self, image: &Image, tag: &str, attached: &Attached) -> Result<TagDecision> {
        let name = image.sibling(tag)?;
        let Some(there) = self.sink.tagged(&name)? else { return Ok(TagDecision::Write) };
        let decision = decide(&attached.manifest, &there);
        if decision != TagDecision::Other {
            return Ok(decision);
        }
        let (own, other) = (attached.manifest.digest(), there.digest());
        if let Some(required) = self.options.referrers.required.iter().find(|wanted| wanted.matches(attached)) {
            return Err(Error::failed(format!(
                "{name}: the source has {own} and the destination {other}, each with layers that the other does not have, \
                 and --require-referrers {required} is given; delete one of the tags, or copy to another repository"
            )));
        }
        self.watch.say(&format!(
            "{name}: the destination keeps its own {other}; {own} of the source is not copied, since each has layers that \
             the other does not have"
        ));
        Ok(decision)
    }
}

fn decide(own: &Manifest, there: &Manifest) -> TagDecision {
    match own.digest() == there.digest() || has_all(there, own) {
        true => TagDecision::Held,
        false if has_all(own, there) => TagDecision::Write,
        false => TagDecision::Other,
    }
}

/// Whether `one` has all layers of `other`, which has some. A layer is a payload that several keys may sign: the signature
/// is in its annotations.
fn has_all(one: &Manifest, other: &Manifest) -> bool {
    let known: HashSet<_> = one.layers().iter().map(|layer| (layer.digest, &layer.annotations)).collect();
    let has = |layer: &Descriptor| known.contains(&(layer.digest, &layer.annotations));
    !other.layers().is_empty() && other.layers().iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::media_type;

    fn signed(by: &[&str]) -> Manifest {
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let layers: Vec<Descriptor> = by
            .iter()
            .map(|key| {
                let mut layer = Descriptor::of("application/vnd.dev.cosign.simplesigning.v1+json", b"payload");
                layer.annotate("dev.cosignproject.cosign/signature", key);
                layer
            })
            .collect();
        let text = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
                                       "config": config, "layers": layers });
        Manifest::from_bytes(text.to_string().into_bytes(), "").unwrap()
    }

    #[test]
    fn no_signature_of_the_destination_is_lost() {
        use TagDecision::{Held, Other, Write};
        for (own, there, decision) in [
            (&["a"][..], &["a"][..], Held),
            (&["a"], &["a", "b"], Held),
            (&["a", "b"], &["b", "a"], Held),
            (&["a", "b"], &["a"], Write),
            (&["a"], &["b"], Other),
            (&["a", "b"], &["b", "c"], Other),
            (&["a"], &[], Other),
            (&[], &["a"], Other),
            (&[], &[], Held),
        ] {
            assert_eq!(decide(&signed(own), &signed(there)), decision, "{own:?} {there:?}");
        }
    }
}
