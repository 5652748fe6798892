//! The images that an ocync file names: the source registry and `from` of each mapping, with the tags that it selects.
//!
//! ocync's `glob`, `semver`, `exclude`, `latest` and literal `include` have the meaning of imgmv's filter. Destinations are
//! not read.

use super::super::builder::{SetBuilder, Syntax};
use super::super::tree::Value;
use super::super::{Entry, ListedTag, Tags};
use super::imgmv::patterns;
use super::{platforms, required};
use crate::error::Result;
use crate::message::shortened;
use crate::tag_filter::TagFilter;
use std::collections::HashMap;

const MAX_REGISTRIES: usize = 1000;

/// The fields of `defaults` and of a mapping.
#[derive(Clone, Copy, Default)]
struct Fields<'t> {
    source: Option<Value<'t>>,
    tags: Option<Value<'t>>,
    platforms: Option<Value<'t>>,
    referrers: Option<bool>,
}

pub(super) fn read(root: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let mut defaults = Fields::default();
    for field in root.field("defaults").map(Value::fields).transpose()?.into_iter().flatten() {
        if !defaults.set(field.key, field.value, set)? {
            set.skip(field);
        }
    }
    let registries = registries(root)?;
    for field in root.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "mappings" => {
                for (nth, mapping) in field.value.items()?.enumerate() {
                    let entry = entry(&format!("mappings[{nth}]"), &registries, mapping, defaults, set)?;
                    set.add(entry)?;
                }
            }
            "registries" | "defaults" => {}
            _ => set.skip(field),
        }
    }
    Ok(())
}

impl<'t> Fields<'t> {
    fn set(&mut self, key: &str, value: Value<'t>, set: &mut SetBuilder<'_>) -> Result<bool> {
        match key {
            "source" => self.source = Some(value),
            "tags" => self.tags = Some(value),
            "platforms" => self.platforms = Some(value),
            "artifacts" => {
                for field in value.fields()?.filter(|field| !field.value.is_null()) {
                    match field.key {
                        "enabled" => self.referrers = Some(field.value.flag()?),
                        _ => set.skip(field),
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn entry<'t>(
    place: &str,
    registries: &HashMap<&str, Value<'t>>,
    mapping: Value<'t>,
    mut fields: Fields<'t>,
    set: &mut SetBuilder<'_>,
) -> Result<Entry> {
    let mut from = None;
    for field in mapping.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "from" => from = Some(field.value),
            key if fields.set(key, field.value, set)? => {}
            _ => set.skip(field),
        }
    }
    let registry = url(registries, required(fields.source, mapping, "source")?, mapping)?;
    let from = format!("{}/{}", registry.trim_end_matches('/'), required(from, mapping, "from")?);
    let tags = match fields.tags {
        Some(tags) => selected(tags, set)?,
        None => Tags::Filtered(TagFilter::default()),
    };
    let platforms = fields.platforms.map(platforms).transpose()?.unwrap_or_default();
    Ok(Entry { tags, platforms, referrers: fields.referrers, ..Entry::named(place, &from) })
}

/// The registries by name.
fn registries(root: Value<'_>) -> Result<HashMap<&str, Value<'_>>> {
    let Some(registries) = root.field("registries") else { return Ok(HashMap::new()) };
    let by_name: HashMap<_, _> =
        registries.fields()?.take(MAX_REGISTRIES + 1).map(|field| (field.key, field.value)).collect();
    if by_name.len() > MAX_REGISTRIES {
        return Err(registries.problem(format!("more than {MAX_REGISTRIES} registries; divide the document")));
    }
    Ok(by_name)
}

/// The host of the registry that the document calls `name`.
fn url<'t>(registries: &HashMap<&str, Value<'t>>, name: &str, mapping: Value<'t>) -> Result<&'t str> {
    match registries.get(name) {
        Some(registry) => required(registry.field("url"), *registry, "url"),
        None => Err(mapping.problem(format!("the registry {:?} is not in registries; add it there", shortened(name)))),
    }
}

fn selected(tags: Value<'_>, set: &mut SetBuilder<'_>) -> Result<Tags> {
    let (mut filter, mut lists_tags) = (TagFilter::default(), false);
    for field in tags.fields()?.filter(|field| !field.value.is_null()) {
        let value = field.value;
        lists_tags |= field.key != "include";
        match field.key {
            "glob" => filter.include = patterns(value, Syntax::Glob, set)?,
            "exclude" => filter.exclude = patterns(value, Syntax::Glob, set)?,
            "semver" => filter.semver.push(set.range(value.text()?).map_err(|error| value.problem(error))?),
            "semver_prerelease" => filter.prerelease = value.text()? == "include",
            "latest" => filter.latest = Some(value.count()?),
            "sort" if value.text()? == "semver" => {}
            "include" => {
                for tag in value.one_or_more()? {
                    match set.listed(tag.text()?) {
                        Ok(tag) => filter.with.push(tag.from),
                        Err(_) => set.not_honoured(|| tag.place()),
                    }
                }
            }
            _ => set.skip(field),
        }
    }
    if lists_tags || filter.with.is_empty() {
        return Ok(Tags::Filtered(filter));
    }
    let listed = filter.with.into_iter().map(|from| ListedTag { from, to: None });
    Ok(Tags::Listed(listed.collect()))
}
