//! The files of image-syncer: a map from sources to destinations, or the old configuration with `auth` and `images`.

use super::super::builder::{SetBuilder, check_tag};
use super::super::credentials::{HostFields, Templates};
use super::super::tree::{Field, Value};
use super::super::word::split_pattern;
use super::super::{Entry, ListedTag, Tags};
use crate::error::Result;
use crate::tag_filter::TagFilter;

/// Whether every value of a map is a text, a list or nothing.
pub(super) fn is_map_of_images(root: Value<'_>) -> bool {
    root.fields().is_ok_and(|mut fields| fields.all(|field| !field.value.is_map()))
}

pub(super) fn read(root: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    if is_map_of_images(root) {
        return images(root, set);
    }
    for field in root.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "images" => images(field.value, set)?,
            "auth" => {
                for registry in field.value.fields()? {
                    login(registry, set)?;
                }
            }
            _ => set.skip(field),
        }
    }
    Ok(())
}

/// The credentials of `registry` or `registry/namespace`.
fn login(registry: Field<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let mut host = HostFields::default();
    for field in registry.value.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "username" => host.user = Some(field.value),
            "password" => host.password = Some(field.value),
            "insecure" => host.insecure = field.value.flag()?,
            _ => set.skip(field),
        }
    }
    let options = host.options(registry.key, registry.value, Templates::Variable, set.options)?;
    set.add_host(options, registry.key)
}

fn images(map: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    for image in map.fields()? {
        let to = destinations(image.value)?;
        match Source::parse(image, set)? {
            Source::One(from) => {
                let tag = split_tags(from).1.first().copied();
                let to = to.iter().map(|to| with_tag(to.text, tag).into()).collect();
                set.add(Entry { to, ..Entry::named(from, from) })?;
            }
            Source::Filtered(from, filter) => {
                if let Some(tagged) = to.iter().find(|to| !to.tags.is_empty()) {
                    let problem = "the destination has a tag, but the source selects several; leave the tag out";
                    return Err(tagged.at.problem(problem));
                }
                let to = to.iter().map(|to| to.text.into()).collect();
                set.add(Entry { tags: Tags::Filtered(filter), to, ..Entry::named(image.key, from) })?;
            }
            Source::Several(from, tags) => several(image.key, from, &tags, &to, set)?,
        }
    }
    Ok(())
}

/// One entry for all destinations that keep the tags, and one for each destination with tags.
fn several(
    place: &str,
    from: &str,
    tags: &[ListedTag],
    to: &[Destination<'_>],
    set: &mut SetBuilder<'_>,
) -> Result<()> {
    let mut add = |tags: Vec<ListedTag>, to| {
        set.count_tags(2 * tags.len(), place)?;
        set.add(Entry { tags: Tags::Listed(tags), to, ..Entry::named(place, from) })
    };
    let same: Vec<Box<str>> = to.iter().filter(|to| to.tags.is_empty()).map(|to| to.text.into()).collect();
    if to.is_empty() || !same.is_empty() {
        add(tags.to_vec(), same)?;
    }
    for destination in to.iter().filter(|to| !to.tags.is_empty()) {
        let (count, expected) = (destination.tags.len(), tags.len());
        if count != expected {
            let problem = format!("{count} tags for {expected} tags of the source; write as many, or none");
            return Err(destination.at.problem(problem));
        }
        let renamed = tags.iter().zip(&destination.tags);
        let renamed = renamed.map(|(tag, to)| ListedTag { to: Some((*to).into()), ..tag.clone() });
        add(renamed.collect(), vec![destination.repository.into()])?;
    }
    Ok(())
}

/// The source of a rule.
enum Source<'t> {
    /// One tag or digest.
    One(&'t str),
    /// A repository and several of its tags.
    Several(&'t str, Vec<ListedTag>),
    /// A repository and the selection of its tags.
    Filtered(&'t str, TagFilter),
}

impl<'t> Source<'t> {
    fn parse(image: Field<'t>, set: &mut SetBuilder<'_>) -> Result<Source<'t>> {
        let wrong = |problem: String| image.value.problem(problem);
        if split_pattern(image.key).is_some() {
            let (from, tags) = set.selected(image.key).map_err(|error| wrong(error.to_string()))?;
            let Tags::Filtered(filter) = tags else { return Ok(Source::One(from)) };
            return Ok(Source::Filtered(from, filter));
        }
        let (from, tags) = split_tags(image.key);
        match &tags[..] {
            _ if image.key.contains('@') => Ok(Source::One(image.key)),
            [] => Ok(Source::Filtered(from, TagFilter::default())),
            [_] => Ok(Source::One(image.key)),
            several => {
                let listed: Result<_, String> = several.iter().map(|tag| set.listed(tag)).collect();
                Ok(Source::Several(from, listed.map_err(wrong)?))
            }
        }
    }
}

/// A destination of a rule.
struct Destination<'t> {
    at: Value<'t>,
    text: &'t str,
    repository: &'t str,
    tags: Vec<&'t str>,
}

/// Nothing and an empty text are image-syncer's default registry: the DST of the command line.
fn destinations(value: Value<'_>) -> Result<Vec<Destination<'_>>> {
    if value.is_text() && value.text()?.is_empty() {
        return Ok(Vec::new());
    }
    value.one_or_more()?.map(Destination::parse).collect()
}

impl<'t> Destination<'t> {
    fn parse(at: Value<'t>) -> Result<Destination<'t>> {
        let text = at.text()?;
        let (repository, tags) = split_tags(text);
        match tags.iter().find_map(|tag| check_tag(tag).err()) {
            Some(problem) => Err(at.problem(problem)),
            None => Ok(Destination { at, text, repository, tags }),
        }
    }
}

/// The repository and the tags of `REPO[:TAG[,TAG]...]`. A digest is not a tag.
fn split_tags(text: &str) -> (&str, Vec<&str>) {
    let name = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[name..].find(':') {
        Some(colon) if !text.contains('@') => {
            (&text[..name + colon], text[name + colon + 1..].split(',').map(str::trim).collect())
        }
        _ => (text, Vec::new()),
    }
}

/// A destination that keeps the tag of its source names it; a prefix `HOST/` has none.
fn with_tag(to: &str, tag: Option<&str>) -> String {
    match tag {
        Some(tag) if split_tags(to).1.is_empty() && !to.contains('@') && !to.ends_with('/') => format!("{to}:{tag}"),
        _ => to.to_owned(),
    }
}
