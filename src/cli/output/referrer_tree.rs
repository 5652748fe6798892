//! The answer of `imgmv list --referrers`: what belongs to images, as a tree.

use super::answer::VERSION;
use super::report::name_lines;
use crate::Result;
use crate::cli::context::CliRun;
use crate::image::{Attached, Digest, Image, Manifest, Name, ReferrerType, tagged_subject};
use crate::source::Store;
use crate::source::attached::{Found, attached_to};
use indicatif::HumanBytes;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

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
    left_out: Option<String>,
}

/// A manifest that belongs to another one.
#[derive(Serialize)]
pub struct ReferrerNode {
    /// `signature`, `sbom`, `attestation`, or the media type.
    #[serde(rename = "type")]
    pub kind: String,
    pub digest: Digest,
    pub media_type: String,
    pub artifact_type: Option<String>,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The size in bytes of the manifest, its blobs, and the manifests that it lists with theirs.
    total_size: u64,
    created: Option<String>,
    pub annotations: BTreeMap<String, String>,
    /// The manifest to which this one belongs.
    pub subject: Digest,
    /// The tag of cosign that names it.
    pub tag: Option<String>,
    referrers: Vec<ReferrerNode>,
}

impl ReferrerTree {
    /// Finds what belongs to `image` in `store`.
    ///
    /// # Errors
    /// Those of [`attached_to`].
    pub fn read(image: &Image, store: &dyn Store, run: &CliRun) -> Result<ReferrerTree> {
        let Found { attached, left_out, .. } = attached_to(image, store, &[], &run.cancel)?;
        Ok(ReferrerTree::new(image, &attached, left_out))
    }

    /// Arranges `attached`, which belongs to `image`.
    fn new(image: &Image, attached: &[Attached], left_out: Option<String>) -> ReferrerTree {
        let parts = attached.iter().filter(|one| one.is_part()).map(|one| (one.manifest.digest(), &one.manifest));
        let mut below = Below { belonging: HashMap::new(), parts: parts.collect() };
        for one in attached {
            let subject = match &one.tag {
                Some(tag) => tagged_subject(tag),
                None => one.manifest.subject.as_ref().map(|subject| subject.digest),
            };
            if let Some(subject) = subject {
                below.belonging.entry(subject).or_default().push(one);
            }
        }
        let children = image.tree.iter().flat_map(|manifest| manifest.children());
        let platforms =
            children.filter_map(|child| Some((child.digest, child.platform.as_ref()?.to_string()))).collect();
        // The root is the last manifest of the tree, and its referrers come first.
        let subjects = image.original.iter().chain(image.tree.iter().rev());
        let referrers = subjects.flat_map(|manifest| below.nodes(&manifest.digest())).collect();
        ReferrerTree {
            names: image.names.clone(),
            digest: image.root().digest(),
            media_type: image.root().descriptor.media_type.clone(),
            platforms,
            referrers,
            left_out,
        }
    }

    /// The message for the user where the tree is not complete.
    pub fn note(&self) -> Option<String> {
        let why = self.left_out.as_ref()?;
        let label = self.names.first().map_or_else(|| self.digest.to_string(), Name::to_string);
        Some(format!("{label}: not all that belongs to the image is listed: {why}"))
    }

    /// All manifests of the tree, each before those that belong to it.
    pub fn flat(&self) -> Vec<&ReferrerNode> {
        let mut flat = Vec::new();
        self.referrers.iter().for_each(|node| node.add_to(&mut flat));
        flat
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
        if self.referrers.is_empty() {
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

/// The manifests that are not in the tree yet.
struct Below<'a> {
    /// By the digest of their subject.
    belonging: HashMap<Digest, Vec<&'a Attached>>,
    /// The manifests that attached indexes list, which are not referrers themselves.
    parts: HashMap<Digest, &'a Manifest>,
}

impl<'a> Below<'a> {
    /// Takes the manifests that belong to `subject`, each with those that belong to it. Each list is taken once, so this
    /// ends.
    fn nodes(&mut self, subject: &Digest) -> Vec<ReferrerNode> {
        let own = self.belonging.remove(subject).unwrap_or_default();
        own.into_iter().map(|one| ReferrerNode::new(one, *subject, self)).collect()
    }

    /// `manifest`, and the parts of it that are known, each once.
    fn with_parts(&self, manifest: &'a Manifest) -> Vec<&'a Manifest> {
        let (mut seen, mut ahead, mut all) = (HashSet::new(), vec![manifest], Vec::new());
        while let Some(manifest) = ahead.pop() {
            all.push(manifest);
            let children = manifest.children().iter().filter(|child| seen.insert(child.digest));
            ahead.extend(children.filter_map(|child| self.parts.get(&child.digest).copied()));
        }
        all
    }

    /// The size of `manifest`, its blobs and its parts, in bytes.
    fn total_size(&self, manifest: &Manifest) -> u64 {
        let sizes = |one: &Manifest| one.blobs().into_iter().map(|blob| blob.size).fold(0, u64::saturating_add);
        let all = self.with_parts(manifest).into_iter();
        all.map(|one| sizes(one).saturating_add(one.descriptor.size)).fold(0, u64::saturating_add)
    }
}

impl ReferrerNode {
    fn new<'a>(one: &'a Attached, subject: Digest, below: &mut Below<'a>) -> ReferrerNode {
        let entry = one.manifest.referrer_entry();
        ReferrerNode {
            kind: ReferrerType::of(&entry, one.tag.as_deref()).to_string(),
            digest: entry.digest,
            created: entry.annotation(CREATED).map(str::to_owned),
            media_type: entry.media_type,
            artifact_type: entry.artifact_type,
            size: entry.size,
            total_size: below.total_size(&one.manifest),
            annotations: entry.annotations.unwrap_or_default(),
            subject,
            tag: one.tag.clone(),
            referrers: below.with_parts(&one.manifest).iter().flat_map(|part| below.nodes(&part.digest())).collect(),
        }
    }

    fn add_to<'n>(&'n self, flat: &mut Vec<&'n ReferrerNode>) {
        flat.push(self);
        self.referrers.iter().for_each(|node| node.add_to(flat));
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
