//! The YAML of `skopeo sync --src yaml`: a map of registries. It has no destinations.

use super::super::builder::{SetBuilder, Syntax};
use super::super::credentials::{HostFields, Templates};
use super::super::tree::{Field, Value};
use super::super::{Entry, Tags};
use super::imgmv::literals;
use crate::error::Result;
use crate::tag_filter::TagFilter;

const KEYS: [&str; 6] = ["images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir"];

/// Whether a map has a registry with one of skopeo's keys.
pub(super) fn is_map_of_registries(root: Value<'_>) -> bool {
    let is_registry = |value: Value<'_>| KEYS.iter().any(|key| value.is_map() && value.field(key).is_some());
    root.fields().is_ok_and(|mut fields| fields.any(|field| is_registry(field.value)))
}

pub(super) fn read(root: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    for registry in root.fields()? {
        read_registry(registry, set)?;
    }
    Ok(())
}

fn read_registry(registry: Field<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let mut host = HostFields::default();
    for field in registry.value.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "images" | "images-by-tag-regex" | "images-by-semver" => {
                for repository in field.value.fields()? {
                    let tags = match field.key {
                        "images" => tags(repository.value, set)?,
                        key => Tags::Filtered(filter(repository.value, key, set)?),
                    };
                    let from = format!("{}/{}", registry.key, repository.key);
                    set.add(Entry { tags, ..Entry::named(&from, &from) })?;
                }
            }
            "credentials" => {
                for field in field.value.fields()?.filter(|field| !field.value.is_null()) {
                    match field.key {
                        "username" => host.user = Some(field.value),
                        "password" => host.password = Some(field.value),
                        _ => set.skip(field),
                    }
                }
            }
            "tls-verify" => host.insecure = !field.value.flag()?,
            _ => set.skip(field),
        }
    }
    if host.insecure || host.user.is_some() || host.password.is_some() {
        let options = host.options(registry.key, registry.value, Templates::None, set.options)?;
        set.add_host(options, registry.key)?;
    }
    Ok(())
}

/// The tags and digests of a repository; an empty list is all tags.
fn tags(list: Value<'_>, set: &mut SetBuilder<'_>) -> Result<Tags> {
    match list.items()?.next() {
        None => Ok(Tags::Filtered(TagFilter::default())),
        Some(_) => Ok(Tags::Listed(literals(list, set)?)),
    }
}

fn filter(value: Value<'_>, key: &str, set: &mut SetBuilder<'_>) -> Result<TagFilter> {
    let (text, mut filter) = (value.text()?, TagFilter::default());
    match key {
        "images-by-semver" => filter.semver.push(set.range(text).map_err(|error| value.problem(error))?),
        _ => filter.include.push(set.pattern(Syntax::Regex, text).map_err(|error| value.problem(error))?),
    }
    Ok(filter)
}
