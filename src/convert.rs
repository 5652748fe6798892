//! Manifests made anew where layers were packed anew, a subset was chosen, or docker's types were asked for.
//! Everything in them that imgmv does not know is kept. Every conversion changes digests, so the engine says each.

use crate::error::{Error, Result};
use crate::image::{Body, Coding, Descriptor, Digest, Manifest, Name, json_tree, media_type, with_coding};
use crate::plan::{ATTESTS, Image};
use serde_json::Value;
use std::collections::HashMap;

/// Which family of media types manifests are to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Keep,
    Docker,
    Oci,
}

/// What became of a layer that was packed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub coding: Coding,
}

/// `image` with every layer in `packed` replaced and its manifests in `format`; the same bytes where nothing changes.
pub fn image(image: &Image, packed: &HashMap<Digest, Packed>, format: Format) -> Result<Image> {
    let mut renamed: HashMap<Digest, Descriptor> = HashMap::new();
    let mut tree = Vec::with_capacity(image.tree.len());
    for manifest in &image.tree {
        let made = one(manifest, packed, &renamed, format)?;
        renamed.insert(manifest.digest(), made.descriptor.clone());
        tree.push(made);
    }
    let root = tree.last().map(Manifest::digest);
    // A name that holds a digest is the name of these bytes only.
    let true_still = |name: &&Name| name.digest().is_none_or(|digest| Some(digest) == root);
    let names = image.names.iter().filter(true_still).cloned().collect();
    Ok(Image { names, tree, synthesised: image.synthesised, source_digest: image.source_digest })
}

fn one(
    manifest: &Manifest,
    packed: &HashMap<Digest, Packed>,
    renamed: &HashMap<Digest, Descriptor>,
    format: Format,
) -> Result<Manifest> {
    let stays = |at: &Descriptor| {
        !packed.contains_key(&at.digest) && renamed.get(&at.digest).is_none_or(|child| child.digest == at.digest)
    };
    let opaque = matches!(manifest.body, Body::Opaque);
    if opaque || format == Format::Keep && manifest.layers().iter().chain(manifest.children()).all(stays) {
        return Ok(manifest.clone());
    }
    let wrong = |why: String| Error::invalid(format!("manifest {} cannot be converted: {why}", manifest.digest()));
    let mut value = json_tree(&manifest.bytes).map_err(wrong)?;
    let before = value.clone();
    let kind = match format {
        Format::Keep => manifest.descriptor.media_type.clone(),
        Format::Docker => docker(&manifest.descriptor.media_type).to_owned(),
        Format::Oci => oci(&manifest.descriptor.media_type).to_owned(),
    };
    for field in ["layers", "manifests"] {
        let Some(entries) = value.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for entry in entries {
            entry_anew(entry, packed, renamed, format)?;
        }
    }
    if let Some(config) = value.get_mut("config") {
        family(config, format);
    }
    let stated = value.get("mediaType").and_then(Value::as_str).map(str::to_owned);
    if stated.as_deref() != Some(&kind)
        && (stated.is_some() || value != before || kind != manifest.descriptor.media_type)
    {
        value["mediaType"] = kind.clone().into();
    }
    if value == before {
        return Ok(manifest.clone());
    }
    made(&value, &kind)
}

/// A layer or a child in a manifest, brought up to date.
fn entry_anew(
    entry: &mut Value,
    packed: &HashMap<Digest, Packed>,
    renamed: &HashMap<Digest, Descriptor>,
    format: Format,
) -> Result<()> {
    let of = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<Digest>().ok());
    if let Some(packed) = of(entry.get("digest")).and_then(|digest| packed.get(&digest)) {
        let was = entry.get("mediaType").and_then(Value::as_str).unwrap_or(media_type::OCI_LAYER);
        entry["mediaType"] = with_coding(was, packed.coding).into();
        point(entry, packed.digest, packed.size);
    }
    if let Some(child) = of(entry.get("digest")).and_then(|digest| renamed.get(&digest)) {
        entry["mediaType"] = child.media_type.clone().into();
        point(entry, child.digest, child.size);
    }
    if let Some(child) = of(entry.pointer(&format!("/annotations/{ATTESTS}"))).and_then(|digest| renamed.get(&digest)) {
        entry["annotations"][ATTESTS] = child.digest.to_string().into();
    }
    family(entry, format);
    Ok(())
}

fn point(entry: &mut Value, digest: Digest, size: u64) {
    if entry["digest"] != digest.to_string() {
        entry["digest"] = digest.to_string().into();
        entry["size"] = size.into();
        if let Some(object) = entry.as_object_mut() {
            object.remove("data");
        }
    }
}

fn family(entry: &mut Value, format: Format) {
    let Some(was) = entry.get("mediaType").and_then(Value::as_str) else { return };
    let now = match format {
        Format::Keep => return,
        Format::Docker => docker(was),
        Format::Oci => oci(was),
    };
    if now != was {
        entry["mediaType"] = now.to_owned().into();
    }
}

/// `top`, an index, with only the entries that are `kept`; `chosen` that lie in nested indexes are put at the top.
pub fn narrowed(top: &Manifest, kept: &dyn Fn(&Descriptor) -> bool, chosen: &[Descriptor]) -> Result<Manifest> {
    let wrong = |why: String| Error::invalid(format!("index {} cannot be made smaller: {why}", top.digest()));
    let mut value = json_tree(&top.bytes).map_err(wrong)?;
    let entries = value.get_mut("manifests").and_then(Value::as_array_mut);
    let entries = entries.ok_or_else(|| Error::invalid(format!("index {} lists no manifests", top.digest())))?;
    let read = |entry: &Value| serde_json::from_value::<Descriptor>(entry.clone());
    entries.retain(|entry| read(entry).is_ok_and(|entry| kept(&entry)));
    for entry in chosen {
        if !entries.iter().any(|have| read(have).is_ok_and(|have| have.digest == entry.digest)) {
            entries.push(serde_json::to_value(entry).map_err(|e| Error::failed(e.to_string()))?);
        }
    }
    made(&value, &top.descriptor.media_type)
}

fn made(value: &Value, media_type: &str) -> Result<Manifest> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::failed(e.to_string()))?;
    Manifest::unclaimed(bytes, media_type)
}

const PAIRS: [(&str, &str); 6] = [
    (media_type::OCI_INDEX, media_type::DOCKER_LIST),
    (media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST),
    (media_type::OCI_CONFIG, media_type::DOCKER_CONFIG),
    (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
    (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
    (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
];

fn docker(media_type: &str) -> &str {
    PAIRS.iter().find(|(oci, _)| *oci == media_type).map_or(media_type, |(_, docker)| docker)
}

fn oci(media_type: &str) -> &str {
    PAIRS.iter().find(|(_, docker)| *docker == media_type).map_or(media_type, |(oci, _)| oci)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Image {
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let layer = Descriptor::of(media_type::OCI_LAYER, b"layer");
        let child = Manifest::synthesise(&config, &[layer]);
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","x-unknown":7,"manifests":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            child.digest(),
            child.descriptor.size
        );
        let top = Manifest::unclaimed(text.into_bytes(), "").unwrap();
        let source_digest = top.digest();
        Image { names: vec![], tree: vec![child, top], synthesised: false, source_digest }
    }

    #[test]
    fn nothing_changed_keeps_every_byte() {
        let image = sample();
        let same = super::image(&image, &HashMap::new(), Format::Keep).unwrap();
        assert_eq!(same.root().bytes, image.root().bytes);
        let oci = super::image(&image, &HashMap::new(), Format::Oci).unwrap();
        assert_eq!(oci.root().digest(), image.root().digest());
    }

    #[test]
    fn a_packed_layer_changes_its_manifest_and_the_index_above() {
        let image = sample();
        let new = Packed { digest: Digest::of(b"packed"), size: 6, coding: Coding::Gzip };
        let made = super::image(&image, &HashMap::from([(Digest::of(b"layer"), new)]), Format::Keep).unwrap();
        assert_eq!(made.tree[0].layers()[0].digest, new.digest);
        assert_eq!(made.tree[0].layers()[0].media_type, media_type::OCI_LAYER_GZIP);
        assert_eq!(made.root().children()[0].digest, made.tree[0].digest());
        assert!(String::from_utf8_lossy(&made.root().bytes).contains("x-unknown"));
    }

    #[test]
    fn dockers_types_go_all_the_way_down() {
        let made = super::image(&sample(), &HashMap::new(), Format::Docker).unwrap();
        assert_eq!(made.root().descriptor.media_type, media_type::DOCKER_LIST);
        assert_eq!(made.tree[0].config().unwrap().media_type, media_type::DOCKER_CONFIG);
        assert_eq!(made.tree[0].layers()[0].media_type, media_type::DOCKER_LAYER);
    }
}
