//! The images that a dregsy file names: the source registry and `from` of each mapping, with the tags that it lists.
//!
//! imgmv does not run dregsy's filters. A mapping with filters alone is left out, since all tags would be too many.

use super::super::builder::SetBuilder;
use super::super::tree::Value;
use super::super::{Entry, ListedTag, Tags};
use super::{platforms, required};
use crate::error::Result;
use crate::image::Platform;
use crate::tag_filter::TagFilter;

const FILTERS: [&str; 3] = ["semver:", "regex:", "keep:"];

pub(super) fn read(root: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    for field in root.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "tasks" => {
                for (nth, task) in field.value.items()?.enumerate() {
                    read_task(nth, task, set)?;
                }
            }
            _ => set.skip(field),
        }
    }
    Ok(())
}

fn read_task(nth: usize, task: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let (mut registry, mut mappings) = (None, None);
    for field in task.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "source" => {
                for field in field.value.fields()?.filter(|field| !field.value.is_null()) {
                    match field.key {
                        "registry" => registry = Some(field.value),
                        _ => set.skip(field),
                    }
                }
            }
            "mappings" => mappings = Some(field.value),
            "name" => {}
            _ => set.skip(field),
        }
    }
    let registry = required(registry, task, "source.registry")?;
    for (mapping_nth, mapping) in mappings.map(Value::items).transpose()?.into_iter().flatten().enumerate() {
        let place = format!("tasks[{nth}].mappings[{mapping_nth}]");
        if let Some(entry) = entry(&place, registry, mapping, set)? {
            set.add(entry)?;
        }
    }
    Ok(())
}

/// The entry of a mapping, if it names an image.
fn entry(place: &str, registry: &str, mapping: Value<'_>, set: &mut SetBuilder<'_>) -> Result<Option<Entry>> {
    let (mut from, mut tags, mut of_mapping): (_, _, Vec<Platform>) = (None, None, Vec::new());
    for field in mapping.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "from" => from = Some(field.value),
            "tags" => tags = Some(field.value),
            "platform" => of_mapping = platforms(field.value)?,
            _ => set.skip(field),
        }
    }
    let path = required(from, mapping, "from")?;
    if path.starts_with("regex:") {
        set.not_honoured(|| format!("{place}.from"));
        return Ok(None);
    }
    let Some(tags) = tags.map_or(Ok(Some(all())), |tags| literals(tags, set))? else { return Ok(None) };
    let from = format!("{}/{}", registry.trim_end_matches('/'), path.trim_start_matches('/'));
    Ok(Some(Entry { tags, platforms: of_mapping, ..Entry::named(place, &from) }))
}

fn all() -> Tags {
    Tags::Filtered(TagFilter::default())
}

/// The tags that are not filters; none if all are filters.
fn literals(tags: Value<'_>, set: &mut SetBuilder<'_>) -> Result<Option<Tags>> {
    let (mut literals, mut is_empty) = (Vec::new(), true);
    for value in tags.items()? {
        is_empty = false;
        let text = value.text()?;
        if FILTERS.iter().any(|filter| text.starts_with(filter)) {
            set.not_honoured(|| value.place());
            continue;
        }
        literals.push(pinned(text, set).map_err(|problem| value.problem(problem))?);
    }
    Ok(match (is_empty, literals.is_empty()) {
        (true, _) => Some(all()),
        (false, true) => None,
        (false, false) => Some(Tags::Listed(literals)),
    })
}

/// A tag, or `TAG@DIGEST`: the digest, under the tag at the destination.
fn pinned(text: &str, set: &mut SetBuilder<'_>) -> Result<ListedTag, String> {
    match text.split_once('@') {
        Some((tag, digest)) => Ok(ListedTag { to: Some(set.listed(tag)?.from), ..set.listed(digest)? }),
        None => set.listed(text),
    }
}
