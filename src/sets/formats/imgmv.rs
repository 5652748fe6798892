//! imgmv's own YAML:
//!
//! ```yaml
//! defaults: {to: registry.lan/, platforms: [linux/amd64], referrers: true}
//! images:
//!   - alpine:3.20
//!   - quay.io/org/app:/^1\.\d+$/
//!   - from: quay.io/org/app
//!     to: [registry.lan/app, oci:./mirror]
//!     tags: {regex: '^v', not: '-rc', semver: '>=1.2', prerelease: true, latest: 5, with: [edge]}
//!   - {from: quay.io/org/tool, tags: [v1, v2]}
//! ```
//!
//! `regex`, `glob`, `not`, `semver` and `with` are texts or lists. `not` is read as `glob` is, if there is one, else as a
//! regular expression. A `tags` with `with` alone and a list of tags do not list the tags of the repository.

use super::super::builder::{SetBuilder, Syntax};
use super::super::tree::Value;
use super::super::word::has_tag;
use super::super::{Entry, ListedTag, Tags};
use super::{platforms, required};
use crate::error::Result;
use crate::image::Platform;
use crate::tag_filter::{TagFilter, TagPattern};

/// The options of `defaults` and of an image.
#[derive(Clone, Default)]
struct Options {
    to: Vec<Box<str>>,
    platforms: Vec<Platform>,
    referrers: Option<bool>,
}

pub(super) fn read(root: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let mut defaults = Options::default();
    for field in root.field("defaults").map(Value::fields).transpose()?.into_iter().flatten() {
        if !defaults.set(field.key, field.value)? {
            set.skip(field);
        }
    }
    for field in root.fields()?.filter(|field| !matches!(field.key, "defaults" | "images")) {
        set.skip(field);
    }
    let images = root.field("images").map(Value::items).transpose()?;
    for (nth, image) in images.into_iter().flatten().enumerate() {
        let place = format!("images[{nth}]");
        let entry = if image.is_text() {
            entry(&place, image, image.text()?, None, defaults.clone(), set)?
        } else {
            described(&place, image, defaults.clone(), set)?
        };
        set.add(entry)?;
    }
    Ok(())
}

/// An image that is a map.
fn described(place: &str, image: Value<'_>, mut options: Options, set: &mut SetBuilder<'_>) -> Result<Entry> {
    let (mut from, mut selection) = (None, None);
    for field in image.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "from" => from = Some(field.value),
            "tags" => selection = Some(field.value),
            key if options.set(key, field.value)? => {}
            _ => set.skip(field),
        }
    }
    entry(place, image, required(from, image, "from")?, selection, options, set)
}

fn entry(
    place: &str,
    image: Value<'_>,
    from: &str,
    selection: Option<Value<'_>>,
    options: Options,
    set: &mut SetBuilder<'_>,
) -> Result<Entry> {
    let (from, named) = set.selected(from).map_err(|error| image.problem(error))?;
    let tags = match selection {
        None => named,
        Some(_) if has_tag(from) || !matches!(named, Tags::Named) => {
            return Err(image.problem("both from and tags select tags; leave one out"));
        }
        Some(selection) if selection.is_map() => filter(selection, set)?,
        Some(selection) => Tags::Listed(literals(selection, set)?),
    };
    let Options { to, platforms, referrers } = options;
    Ok(Entry { tags, to, platforms, referrers, ..Entry::named(place, from) })
}

impl Options {
    /// Sets the option of one key; false if there is none of that name.
    fn set(&mut self, key: &str, value: Value<'_>) -> Result<bool> {
        match key {
            "to" => self.to = value.one_or_more()?.map(|to| to.text().map(Into::into)).collect::<Result<_>>()?,
            "platforms" => self.platforms = platforms(value)?,
            "referrers" => self.referrers = Some(value.flag()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The `tags` of an image that are a map.
fn filter(selection: Value<'_>, set: &mut SetBuilder<'_>) -> Result<Tags> {
    let mut filter = TagFilter::default();
    let mut lists_tags = selection.fields()?.next().is_none();
    let syntax = if selection.field("glob").is_some() { Syntax::Glob } else { Syntax::Regex };
    for field in selection.fields()?.filter(|field| !field.value.is_null()) {
        let value = field.value;
        match field.key {
            "regex" => filter.include.extend(patterns(value, Syntax::Regex, set)?),
            "glob" => filter.include.extend(patterns(value, Syntax::Glob, set)?),
            "not" => filter.exclude = patterns(value, syntax, set)?,
            "semver" => {
                for range in value.one_or_more()? {
                    filter.semver.push(set.range(range.text()?).map_err(|error| range.problem(error))?);
                }
            }
            "prerelease" => filter.prerelease = value.flag()?,
            "latest" => match value.count()? {
                0 => return Err(value.wrong("a whole number from 1")),
                latest => filter.latest = Some(latest),
            },
            "with" => filter.with = literals(value, set)?.into_iter().map(|tag| tag.from).collect(),
            // Without the key another set of tags would be copied.
            key => {
                return Err(value.problem(format!(
                    "tags has no key {key:?}; expected regex, glob, not, semver, prerelease, latest or with"
                )));
            }
        }
        lists_tags |= !matches!(field.key, "with" | "prerelease");
    }
    if lists_tags {
        return Ok(Tags::Filtered(filter));
    }
    let listed = filter.with.into_iter().map(|from| ListedTag { from, to: None });
    Ok(Tags::Listed(listed.collect()))
}

/// Patterns in a text or a list.
pub(super) fn patterns(value: Value<'_>, syntax: Syntax, set: &mut SetBuilder<'_>) -> Result<Vec<TagPattern>> {
    let compiled = |text: Value<'_>| set.pattern(syntax, text.text()?).map_err(|error| text.problem(error));
    value.one_or_more()?.map(compiled).collect()
}

/// Literal tags or digests in a text or a list.
pub(super) fn literals(value: Value<'_>, set: &mut SetBuilder<'_>) -> Result<Vec<ListedTag>> {
    let tags = value.one_or_more()?;
    tags.map(|tag| set.listed(tag.text()?).map_err(|problem| tag.problem(problem))).collect()
}
