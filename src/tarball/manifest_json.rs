//! `manifest.json`, docker-save's list of images (docker's image specification v1.2, "Combined Image JSON and
//! Filesystem Changeset Format"). It is read with the tolerance of Go's JSON parser.

use super::tar::path::{clean, shown};
use crate::error::{Error, Result};
use crate::image::{Digest, Name, Reference, json_tree};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(crate) const FILE: &str = "manifest.json";
/// The file that maps names to layers, for loaders older than `manifest.json`.
pub(crate) const REPOSITORIES: &str = "repositories";
/// The maximum number of images in one archive.
const MAX_IMAGES: usize = 10_000;
/// The maximum number of layers in one image; file systems allow far fewer.
const MAX_LAYERS: usize = 4096;

/// An image of a parsed `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedImage {
    /// The cleaned name of the config's entry.
    pub config: String,
    pub tags: Vec<Name>,
    /// The cleaned names of the layers' entries, lowest first.
    pub layers: Vec<String>,
}

/// An image of a `manifest.json` to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ManifestEntry {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// Parses a `manifest.json`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<SavedImage>> {
    let wrong = |why: &str| Error::invalid(format!("manifest.json is refused: {why}"));
    let value = json_tree(bytes).map_err(|why| wrong(&why))?;
    let Value::Array(list) = value else {
        return Err(wrong("it is not a list"));
    };
    if list.len() > MAX_IMAGES {
        return Err(wrong(&format!("it lists {} images; at most {MAX_IMAGES} are allowed", list.len())));
    }
    list.iter().map(|image| parse_image(image).map_err(|e| wrong(&e.to_string()))).collect()
}

fn parse_image(image: &Value) -> Result<SavedImage> {
    let object = image.as_object().ok_or_else(|| Error::invalid("an image in it is not an object"))?;
    let config = match field(object, "Config")? {
        Some(Value::String(config)) => clean(config.as_bytes())?,
        _ => String::new(),
    };
    if config.is_empty() {
        return Err(Error::invalid("an image in it has no Config"));
    }
    let layers = strings(field(object, "Layers")?, "Layers")?;
    if layers.len() > MAX_LAYERS {
        return Err(Error::invalid(format!(
            "an image in it has {} layers; at most {MAX_LAYERS} are allowed",
            layers.len()
        )));
    }
    let layers: Vec<String> = layers.into_iter().map(|layer| clean(layer.as_bytes())).collect::<Result<_>>()?;
    if let Some(at) = layers.iter().position(String::is_empty) {
        let (nth, config) = (at + 1, shown(&config));
        return Err(Error::invalid(format!("layer {nth} of the image with config {config} has an empty file name")));
    }
    let mut tags = Vec::new();
    for tag in strings(field(object, "RepoTags")?, "RepoTags")? {
        let tag = canonical(tag)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(SavedImage { config, tags, layers })
}

/// Returns the value of `key`. The case of the key is ignored, as Go does (jib wrote lower case).
fn field<'v>(object: &'v Map<String, Value>, key: &str) -> Result<Option<&'v Value>> {
    let mut found = object.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Error::invalid(format!("an image in it has {key} twice"))),
        (first, _) => Ok(first.map(|(_, value)| value)),
    }
}

fn strings<'v>(value: Option<&'v Value>, key: &str) -> Result<Vec<&'v str>> {
    let wrong = || Error::invalid(format!("the {key} of an image in it is not a list of strings"));
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|text| text.as_str().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

/// Completes a tag that is a reference (`docker.io/library/app:2`), as in `index.json`.
fn canonical(tag: &str) -> Result<Name> {
    let name = Name::new(tag)?;
    Ok(name.reference().map_or(name, |reference| Name::from(&reference)))
}

/// Returns the digest in the path of a blob (`blobs/sha256/<hex>`).
pub(crate) fn blob_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Returns the bytes of a `manifest.json` with `images`.
pub(crate) fn write(images: &[ManifestEntry]) -> Vec<u8> {
    serde_json::to_vec(images).expect("strings can always be written")
}

/// Parses a `repositories` file: the layer of each name. Invalid entries are skipped.
pub(crate) fn repositories(bytes: &[u8]) -> BTreeMap<Reference, String> {
    let all: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(bytes).unwrap_or_default();
    let tags =
        all.into_iter().flat_map(|(repository, tags)| tags.into_iter().map(move |tag| (repository.clone(), tag)));
    tags.filter_map(|(name, (tag, layer))| Some((format!("{name}:{tag}").parse().ok()?, layer))).collect()
}

/// Returns the bytes of a `repositories` file.
pub(crate) fn write_repositories(tags: &BTreeMap<Reference, String>) -> Vec<u8> {
    let mut all: BTreeMap<String, BTreeMap<&str, &str>> = BTreeMap::new();
    for (name, layer) in tags {
        let Some(tag) = &name.tag else { continue };
        all.entry(name.full_repository()).or_default().insert(tag, layer);
    }
    serde_json::to_vec(&all).expect("strings can always be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_any_case_and_tags_may_be_missing() {
        for text in [
            r#"[{"config":"c.json","repoTags":["app:2"],"layers":["./a//layer.tar"]}]"#,
            r#"[{"Config":"c.json","RepoTags":["docker.io/library/app:2","app:2"],"Layers":["a/layer.tar"]}]"#,
        ] {
            let saved = parse(text.as_bytes()).unwrap();
            assert_eq!(saved[0].tags, [Name::new("docker.io/library/app:2").unwrap()]);
            assert_eq!(saved[0].layers, ["a/layer.tar"]);
        }
        let bare = parse(br#"[{"Config":"c.json","RepoTags":null,"Layers":null}]"#).unwrap();
        assert!(bare[0].tags.is_empty() && bare[0].layers.is_empty());
    }

    #[test]
    fn what_means_two_things_or_leads_out_is_refused() {
        for text in [
            r#"[{"Config":"a","config":"b","Layers":[]}]"#,
            r#"[{"Config":"../../etc/passwd","Layers":[]}]"#,
            r#"[{"Config":"c","Layers":["/etc/passwd"]}]"#,
            r#"[{"Config":"c","RepoTags":["a\u001b[2J:1"],"Layers":[]}]"#,
            r#"[{"Layers":[]}]"#,
            r#"[{"Config":"./","Layers":[]}]"#,
            r#"[{"Config":"c","Layers":[""]}]"#,
            r#"[{"Config":"c","Layers":["a/layer.tar","./"]}]"#,
            r#"{"Config":"c"}"#,
            r#"[1]"#,
            "",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_whole_digests_are_blob_paths() {
        let digest = Digest::of(b"x");
        assert_eq!(blob_digest(&digest.blob_path()), Some(digest));
        assert_eq!(blob_digest(&format!("{}.tar.gz", digest.blob_path())), None);
        assert_eq!(blob_digest("blobs/sha256/ab"), None);
    }
}
