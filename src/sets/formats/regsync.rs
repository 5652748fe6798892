//! The configuration of regsync, version 1.

use super::super::builder::{SetBuilder, Syntax};
use super::super::credentials::{HostFields, Templates};
use super::super::tree::Value;
use super::super::word::has_tag;
use super::super::{Entry, Tags};
use super::imgmv::patterns;
use super::{platforms, required};
use crate::error::Result;
use crate::image::Platform;
use crate::tag_filter::TagFilter;

pub(super) fn read(root: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let mut defaults = Attached::default();
    for field in root.field("defaults").map(Value::fields).transpose()?.into_iter().flatten() {
        if !defaults.set(field.key, field.value)? {
            set.skip(field);
        }
    }
    for field in root.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "version" if field.value.text()? == "1" => {}
            "version" => return Err(field.value.wrong("1, the only version that imgmv reads")),
            "creds" => {
                for creds in field.value.items()? {
                    login(creds, set)?;
                }
            }
            "sync" => {
                for (nth, step) in field.value.items()?.enumerate() {
                    step_entries(nth, step, defaults, set)?;
                }
            }
            "defaults" => {}
            _ => set.skip(field),
        }
    }
    Ok(())
}

/// One item of `creds`.
fn login(creds: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let (mut host, mut registry) = (HostFields::default(), None);
    for field in creds.fields()?.filter(|field| !field.value.is_null()) {
        let value = field.value;
        match field.key {
            "registry" => registry = Some(value),
            "user" => host.user = Some(value),
            "pass" => host.password = Some(value),
            "tls" => {
                host.insecure = match value.text()? {
                    "enabled" => false,
                    "insecure" | "disabled" => true,
                    _ => return Err(value.wrong("enabled, insecure or disabled")),
                }
            }
            // Credentials are for the host of `registry`; another host name would get them otherwise.
            _ => set.skip(field),
        }
    }
    let registry = required(registry, creds, "registry")?;
    let options = host.options(registry, creds, Templates::Go, set.options)?;
    set.add_host(options, "creds")
}

/// Whether referrers and tags of digests are copied. imgmv copies both or neither.
#[derive(Debug, Clone, Copy, Default)]
struct Attached {
    referrers: Option<bool>,
    digest_tags: Option<bool>,
}

impl Attached {
    fn set(&mut self, key: &str, value: Value<'_>) -> Result<bool> {
        match key {
            "referrers" => self.referrers = Some(value.flag()?),
            "digestTags" => self.digest_tags = Some(value.flag()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn are_copied(self) -> Option<bool> {
        match (self.referrers, self.digest_tags) {
            (None, None) => None,
            (referrers, digest_tags) => Some(referrers == Some(true) || digest_tags == Some(true)),
        }
    }
}

/// The entries of one item of `sync`: one, or one for each of `tagSets`, since each of these selects tags alone.
fn step_entries(nth: usize, step: Value<'_>, mut attached: Attached, set: &mut SetBuilder<'_>) -> Result<()> {
    let (mut source, mut target, mut kind, mut tags, mut tag_sets) = (None, None, None, None, None);
    let mut of_step: Vec<Platform> = Vec::new();
    for field in step.fields()?.filter(|field| !field.value.is_null()) {
        let value = field.value;
        match field.key {
            "source" => source = Some(value),
            "target" => target = Some(value),
            "type" => kind = Some(value),
            "tags" => tags = Some(value),
            "tagSets" => tag_sets = Some(value),
            "platform" | "platforms" => of_step = platforms(value)?,
            key if attached.set(key, value)? => {}
            _ => set.skip(field),
        }
    }
    let (source, target) = (required(source, step, "source")?, required(target, step, "target")?);
    let (from, to) = (location(source), location(target));
    let entry = |place: &str, tags| Entry {
        tags,
        to: vec![to.as_str().into()],
        platforms: of_step.clone(),
        referrers: attached.are_copied(),
        ..Entry::named(place, &from)
    };
    let place = format!("sync[{nth}]");
    match required(kind, step, "type")? {
        "image" => {
            for key in ["tags", "tagSets"].into_iter().filter(|key| step.field(key).is_some()) {
                set.not_honoured(|| format!("{place}.{key}"));
            }
            set.add(entry(&place, Tags::Named))
        }
        "repository" if has_tag(source) || has_tag(target) => {
            Err(step.problem("source or target has a tag, expected a repository; write type: image for one image"))
        }
        "repository" => {
            let tag_sets = tag_sets.map(Value::items).transpose()?;
            if tags.is_some() || tag_sets.is_none() {
                let filter = tags.map(|tags| filter(tags, set)).transpose()?.unwrap_or_default();
                set.add(entry(&place, Tags::Filtered(filter)))?;
            }
            for (nth, tags) in tag_sets.into_iter().flatten().enumerate() {
                let filter = filter(tags, set)?;
                set.add(entry(&format!("{place}.tagSets[{nth}]"), Tags::Filtered(filter)))?;
            }
            Ok(())
        }
        other => {
            let kind = kind.unwrap_or(step);
            let advice = match other {
                "registry" => "registry copies every repository; write one step of type repository for each",
                _ => "expected image or repository",
            };
            Err(kind.problem(advice))
        }
    }
}

/// A reference as SRC or DST; regsync's `ocidir://` is a layout.
fn location(text: &str) -> String {
    match text.strip_prefix("ocidir://") {
        Some(path) => format!("oci:{path}"),
        None => text.to_owned(),
    }
}

/// Regular expressions match complete tags.
fn filter(tags: Value<'_>, set: &mut SetBuilder<'_>) -> Result<TagFilter> {
    let mut filter = TagFilter::default();
    for field in tags.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "allow" => filter.include = patterns(field.value, Syntax::AnchoredRegex, set)?,
            "deny" => filter.exclude = patterns(field.value, Syntax::AnchoredRegex, set)?,
            "semverRange" => {
                for range in field.value.one_or_more()? {
                    filter.semver.push(set.range(range.text()?).map_err(|error| range.problem(error))?);
                }
            }
            _ => set.skip(field),
        }
    }
    Ok(filter)
}
