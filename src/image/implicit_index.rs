//! Platforms of one image that are separate entries of an `index.json` under one name, as podman and buildx write them.
//! They become one image, for which an index is created here.

use super::{Descriptor, Digest, Manifest, Name, Platform, layout_index, media_type};
use crate::error::Result;
use serde_json::json;
use std::collections::HashMap;

/// The maximum number of manifests under one name that are treated as platforms of one image.
const MAX_PLATFORMS: usize = 256;

/// One image of an `index.json`.
#[derive(Debug, Clone)]
pub struct ListedImage {
    pub name: Option<Name>,
    pub root: Descriptor,
    /// The index that was created here; it is not stored in the source. `root` is then its descriptor.
    pub index: Option<Manifest>,
}

/// Groups `entries` into images. Manifests under one name become one image if each is for a different platform;
/// otherwise they stay separate. Unnamed entries are grouped only if each entry has a platform.
///
/// `platform` returns the platform of an entry without one.
pub fn images(
    entries: Vec<(Option<Name>, Descriptor)>,
    platform: &dyn Fn(&Descriptor) -> Option<Platform>,
) -> Result<Vec<ListedImage>> {
    let mut images: Vec<ListedImage> = Vec::new();
    for (name, members) in by_name(entries) {
        match index_of(&name, &members, platform)? {
            Some(index) => images.push(ListedImage { name, root: index.descriptor.clone(), index: Some(index) }),
            None => {
                images.extend(members.into_iter().map(|root| ListedImage { name: name.clone(), root, index: None }));
            }
        }
    }
    Ok(images)
}

/// Groups `entries` by name, in the order of each name's first entry.
fn by_name(entries: Vec<(Option<Name>, Descriptor)>) -> Vec<(Option<Name>, Vec<Descriptor>)> {
    let mut groups: Vec<(Option<Name>, Vec<Descriptor>)> = Vec::new();
    let mut positions: HashMap<Option<Name>, usize> = HashMap::new();
    for (name, entry) in entries {
        let at = *positions.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(entry);
    }
    groups
}

/// Creates the index of `members` if they are platforms of one image.
fn index_of(
    name: &Option<Name>,
    members: &[Descriptor],
    platform: &dyn Fn(&Descriptor) -> Option<Platform>,
) -> Result<Option<Manifest>> {
    let mut children: Vec<Descriptor> = Vec::new();
    let mut seen: Vec<(String, Option<String>)> = Vec::new();
    let mut digests: Vec<Digest> = Vec::new();
    if members.len() < 2 || members.len() > MAX_PLATFORMS {
        return Ok(None);
    }
    for member in
        members.iter().filter(|member| member.media_type.is_empty() || media_type::is_manifest(&member.media_type))
    {
        if digests.contains(&member.digest) {
            continue;
        }
        digests.push(member.digest);
        let found = match (&member.platform, name) {
            (Some(platform), _) => Some(platform.clone()),
            (None, Some(_)) => platform(member),
            (None, None) => None,
        };
        let Some(found) = found else { return Ok(None) };
        // Attestations (BuildKit) have no platform; they are included.
        if found.os != "unknown" {
            let key = Platform::new(&found.os, &found.architecture, found.variant.as_deref()).to_string();
            let key = (key, found.os_version.clone());
            if seen.contains(&key) {
                return Ok(None);
            }
            seen.push(key);
        }
        children.push(child(member, found));
    }
    let all_here = members.iter().all(|member| digests.contains(&member.digest));
    if all_here && seen.len() > 1 { index(&children).map(Some) } else { Ok(None) }
}

fn child(member: &Descriptor, platform: Platform) -> Descriptor {
    let mut child = Descriptor { platform: Some(platform), ..member.clone() };
    if child.media_type.is_empty() {
        child.media_type = media_type::OCI_MANIFEST.to_owned();
    }
    layout_index::remove_name(&mut child);
    child
}

fn index(children: &[Descriptor]) -> Result<Manifest> {
    let docker = children.iter().all(|child| child.media_type == media_type::DOCKER_MANIFEST);
    let media_type = if docker { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": children });
    Manifest::from_bytes(index.to_string().into_bytes(), media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|platform| platform.parse().unwrap());
        Descriptor { platform, ..Descriptor::of(media_type::OCI_MANIFEST, content.as_bytes()) }
    }

    fn listed(name: Option<&str>, entries: Vec<Descriptor>) -> Vec<ListedImage> {
        let name = name.map(|name| Name::new(name).unwrap());
        let entries = entries.into_iter().map(|entry| (name.clone(), entry)).collect();
        images(entries, &|_| Some(Platform::new("linux", "s390x", None))).unwrap()
    }

    #[test]
    fn different_platforms_of_one_name_are_one_image_and_nothing_else_is() {
        let (amd, arm) = (Some("linux/amd64"), Some("linux/arm64"));
        for (name, platforms, count) in [
            (Some("v1"), [amd, arm], 1),
            (None, [amd, arm], 1),
            (Some("v1"), [amd, None], 1),
            (None, [amd, None], 2),
            (Some("v1"), [None, None], 2),
            (Some("v1"), [amd, amd], 2),
            (Some("v1"), [amd, Some("unknown/unknown")], 2),
            (Some("v1"), [Some("linux/arm64/v8"), Some("linux/aarch64/v8")], 2),
        ] {
            let entries = platforms.iter().enumerate().map(|(at, platform)| entry(&at.to_string(), *platform));
            assert_eq!(listed(name, entries.collect()).len(), count, "{name:?} {platforms:?}");
        }
        let index = Descriptor::of(media_type::OCI_INDEX, b"index");
        assert_eq!(listed(Some("v1"), vec![entry("1", amd), index]).len(), 2);
        assert_eq!(listed(Some("v1"), vec![entry("1", amd), entry("1", amd)]).len(), 2);
    }

    #[test]
    fn the_index_is_the_same_each_time_and_carries_no_name() {
        let mut members = vec![entry("1", Some("linux/amd64")), entry("2", Some("linux/arm64"))];
        members.iter_mut().for_each(|member| member.annotate("org.opencontainers.image.ref.name", "v1"));
        let index = listed(Some("v1"), members.clone())[0].index.clone().unwrap();
        assert_eq!(index.bytes, listed(Some("v1"), members)[0].index.clone().unwrap().bytes);
        assert!(!String::from_utf8(index.bytes).unwrap().contains("v1\""));
    }
}
