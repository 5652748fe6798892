//! The answer of `imgmv list --referrers`: what belongs to images, as a tree.

use super::answer::VERSION;
use super::report::name_lines;
use crate::image::{Attached, Digest, Image, Name, ReferrerType, tagged_subject};
use indicatif::HumanBytes;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// The annotation with the time of creation (image-spec, annotations.md).
const CREATED: &str = "org.opencontainers.image.created";
/// Longer values of annotations are cut, except in JSON.
const MAX_VALUE_CHARS: usize = 160;

#[derive(Serialize)]
pub struct ReferrersDocument<'t> {
    version: u32,
    images: Vec<ImageEntry<'t>>,
}

/// An image under one of its names.
#[derive(Serialize)]
struct ImageEntry<'t> {
    name: Option<&'t str>,
    digest: Digest,
    media_type: &'t str,
    referrers: &'t [ReferrerNode],
    /// The first reason why the list is not complete.
    left_out: Option<&'t str>,
}

/// One image, and what belongs to it.
pub struct ReferrerTree {
    names: Vec<Name>,
    digest: Digest,
    media_type: String,
    /// The platforms of the image's manifests, for lines.
    platforms: HashMap<Digest, String>,
    referrers: Vec<ReferrerNode>,
    pub left_out: Option<String>,
}

/// A manifest that belongs to another one.
#[derive(Serialize)]
struct ReferrerNode {
    /// `signature`, `sbom`, `attestation`, or the media type.
    #[serde(rename = "type")]
    kind: String,
    digest: Digest,
    media_type: String,
    artifact_type: Option<String>,
    /// The size of the manifest in bytes.
    size: u64,
    /// The size of the manifest and its blobs in bytes.
    total_size: u64,
    created: Option<String>,
    annotations: BTreeMap<String, String>,
    /// The manifest to which this one belongs.
    subject: Digest,
    /// The tag of cosign that names it.
    tag: Option<String>,
    referrers: Vec<ReferrerNode>,
}

impl ReferrerTree {
    /// Arranges `attached`, which belongs to `image`.
    pub fn new(image: &Image, attached: &[Attached], left_out: Option<String>) -> ReferrerTree {
        let mut below: HashMap<Digest, Vec<&Attached>> = HashMap::new();
        let listing = |digest: Digest| {
            let lists = |other: &&Attached| other.manifest.children().iter().any(|child| child.digest == digest);
            attached.iter().find(lists).map(|other| other.manifest.digest())
        };
        for one in attached {
            let subject = match &one.tag {
                Some(tag) => tagged_subject(tag),
                None => one.manifest.subject.as_ref().map(|subject| subject.digest),
            };
            if let Some(subject) = subject.or_else(|| listing(one.manifest.digest())) {
                below.entry(subject).or_default().push(one);
            }
        }
        let children = image.tree.iter().flat_map(|manifest| manifest.children());
        let platforms =
            children.filter_map(|child| Some((child.digest, child.platform.as_ref()?.to_string()))).collect();
        // The root is the last manifest of the tree, and its referrers come first.
        let referrers = image.tree.iter().rev().flat_map(|manifest| nodes(&manifest.digest(), &mut below)).collect();
        ReferrerTree {
            names: image.names.clone(),
            digest: image.root().digest(),
            media_type: image.root().descriptor.media_type.clone(),
            platforms,
            referrers,
            left_out,
        }
    }

    /// The name of the image for messages.
    pub fn label(&self) -> String {
        self.names.first().map_or_else(|| self.digest.to_string(), Name::to_string)
    }

    pub fn is_empty(&self) -> bool {
        self.referrers.is_empty()
    }

    /// The answer without `--json`.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = name_lines(&self.names, &self.digest).collect();
        let mut subject = self.digest;
        for node in &self.referrers {
            if node.subject != subject {
                subject = node.subject;
                let platform = self.platforms.get(&subject).map_or("", String::as_str);
                lines.push(format!("  {platform} {subject}"));
            }
            node.add_lines(if subject == self.digest { 1 } else { 2 }, &mut lines);
        }
        if self.is_empty() {
            lines.push("  (none)".to_owned());
        }
        lines
    }

    fn entries(&self) -> Vec<ImageEntry<'_>> {
        match &self.names[..] {
            [] => vec![self.entry(None)],
            names => names.iter().map(|name| self.entry(Some(name.as_str()))).collect(),
        }
    }

    fn entry<'t>(&'t self, name: Option<&'t str>) -> ImageEntry<'t> {
        ImageEntry {
            name,
            digest: self.digest,
            media_type: &self.media_type,
            referrers: &self.referrers,
            left_out: self.left_out.as_deref(),
        }
    }
}

impl<'t> ReferrersDocument<'t> {
    pub fn new(trees: &'t [ReferrerTree]) -> ReferrersDocument<'t> {
        ReferrersDocument { version: VERSION, images: trees.iter().flat_map(ReferrerTree::entries).collect() }
    }
}

/// Takes the manifests that belong to `subject` out of `below`, each with those that belong to it. Each list is taken
/// once, so this ends.
fn nodes(subject: &Digest, below: &mut HashMap<Digest, Vec<&Attached>>) -> Vec<ReferrerNode> {
    let own = below.remove(subject).unwrap_or_default();
    own.into_iter().map(|one| ReferrerNode::new(one, *subject, below)).collect()
}

impl ReferrerNode {
    fn new(one: &Attached, subject: Digest, below: &mut HashMap<Digest, Vec<&Attached>>) -> ReferrerNode {
        let entry = one.manifest.referrer_entry();
        let blobs: u64 = one.manifest.blobs().iter().map(|blob| blob.size).sum();
        ReferrerNode {
            kind: ReferrerType::of(&entry, one.tag.as_deref()).to_string(),
            digest: entry.digest,
            created: entry.annotation(CREATED).map(str::to_owned),
            media_type: entry.media_type,
            artifact_type: entry.artifact_type,
            size: entry.size,
            total_size: entry.size.saturating_add(blobs),
            annotations: entry.annotations.unwrap_or_default(),
            subject,
            tag: one.tag.clone(),
            referrers: nodes(&one.manifest.digest(), below),
        }
    }

    fn add_lines(&self, depth: usize, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        let artifact_type = self.artifact_type.as_ref().filter(|own| **own != self.kind);
        let created = self.created.as_deref().unwrap_or("-");
        let size = HumanBytes(self.total_size).to_string();
        let more = self.tag.as_ref().or(artifact_type).map_or(String::new(), |more| format!("  {more}"));
        lines.push(format!("{indent}{:11} {}  {size:>10}  {created}{more}", self.kind, self.digest));
        for (key, value) in self.annotations.iter().filter(|(key, _)| *key != CREATED) {
            let cut: String = value.chars().take(MAX_VALUE_CHARS).collect();
            let dots = if cut.len() < value.len() { "…" } else { "" };
            lines.push(format!("{indent}    {key}={cut}{dots}"));
        }
        self.referrers.iter().for_each(|node| node.add_lines(depth + 1, lines));
    }
}
