//! Manifests that are rewritten: for recompressed layers, for a smaller index, or for docker's or OCI's media types.
//! Fields that imgmv does not know stay. Every conversion changes digests, and the copy reports each one.

use super::belonging::{parts_of, still_attached};
use super::plan::ATTESTS;
use super::unchanged;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{
    Coding, Descriptor, Digest, Manifest, Name, SOCI_INDEX, ZSTD_PREFERRED, describes_bytes, json_tree, media_type,
    with_coding,
};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The family of media types for manifests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The media types of the source.
    #[default]
    Keep,
    /// docker's image manifest version 2, schema 2.
    Docker,
    /// The OCI image-spec.
    Oci,
}

/// A layer after its recompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecompressedLayer {
    /// The digest of the recompressed bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// The compression of the layer now.
    pub coding: Coding,
}

/// `image` with every layer in `recompressed` replaced and its manifests in `format`. Without a change the bytes stay the
/// same. Artifacts in it are never changed ([`Manifest::is_container_image`]).
pub fn image(image: &Image, recompressed: &HashMap<Digest, RecompressedLayer>, format: Format) -> Result<Image> {
    let mut change = Change { recompressed, format, renamed: HashMap::new() };
    let fixed = unchanged::manifests(image);
    let mut tree = Vec::with_capacity(image.tree.len());
    for manifest in &image.tree {
        let made = match fixed.contains(&manifest.digest()) {
            true => manifest.clone(),
            false => change.manifest(manifest)?,
        };
        let now = RenamedDescriptor { descriptor: made.descriptor.clone(), zstd: is_zstd(&made) };
        change.renamed.insert(manifest.digest(), now);
        tree.push(made);
    }
    let root = tree.last().map(Manifest::digest);
    // A name with a digest names only the manifest with that digest.
    let is_still_true = |name: &&Name| name.digest().is_none_or(|digest| Some(digest) == root);
    let names = image.names.iter().filter(is_still_true).cloned().collect();
    // A converted image is not a part of the index any more.
    let original = image.original.clone().filter(|_| root == Some(image.root().digest()));
    let left = image.original.as_ref().filter(|_| original.is_none());
    let left = left.map_or_else(HashSet::new, |index| parts_of(index, &image.attached));
    let before = image.attached.iter().filter(|one| !left.contains(&one.manifest.digest()));
    let attached = still_attached(before, &tree);
    Ok(Image { names, tree, attached, original, ..image.clone() })
}

/// The changes to an image's manifests, children first.
struct Change<'a> {
    recompressed: &'a HashMap<Digest, RecompressedLayer>,
    format: Format,
    /// The manifests that were written so far, by their old digests.
    renamed: HashMap<Digest, RenamedDescriptor>,
}

struct RenamedDescriptor {
    descriptor: Descriptor,
    /// Whether it has zstd layers.
    zstd: bool,
}

fn is_zstd(manifest: &Manifest) -> bool {
    manifest.layers().iter().any(|layer| layer.coding() == Some(Coding::Zstd))
}

impl Change<'_> {
    fn manifest(&self, manifest: &Manifest) -> Result<Manifest> {
        let child_stays =
            |at: &Descriptor| self.renamed.get(&at.digest).is_none_or(|child| child.descriptor.digest == at.digest);
        let has_recompressed = manifest.layers().iter().any(|layer| self.recompressed.contains_key(&layer.digest));
        if self.format == Format::Keep && !has_recompressed && manifest.children().iter().all(child_stays) {
            return Ok(manifest.clone());
        }
        let wrong = |why: String| Error::invalid(format!("manifest {} cannot be converted: {why}", manifest.digest()));
        let mut value = json_tree(&manifest.bytes).map_err(wrong)?;
        let before = value.clone();
        let kind = self.family(&manifest.descriptor.media_type).to_owned();
        for layer in value.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
            self.layer(layer);
        }
        for child in value.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten() {
            self.child(child);
        }
        if let Some(config) = value.get_mut("config") {
            self.retype(config);
        }
        if has_recompressed {
            drop_annotations(&mut value, |key| key == SOCI_INDEX);
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

    /// Updates a layer's descriptor in a manifest.
    fn layer(&self, entry: &mut Value) {
        if let Some(recompressed) = digest(entry.get("digest")).and_then(|digest| self.recompressed.get(&digest)) {
            let was = entry.get("mediaType").and_then(Value::as_str).unwrap_or(media_type::OCI_LAYER);
            entry["mediaType"] = with_coding(was, recompressed.coding).into();
            point(entry, recompressed.digest, recompressed.size);
            drop_annotations(entry, describes_bytes);
            // Its URLs serve the old bytes.
            entry.as_object_mut().and_then(|entry| entry.remove("urls"));
        }
        self.retype(entry);
    }

    /// Updates a manifest's descriptor in an index. A manifest that is not copied stays as it is.
    fn child(&self, entry: &mut Value) {
        if let Some(child) = digest(entry.get("digest")).and_then(|digest| self.renamed.get(&digest)) {
            entry["mediaType"] = child.descriptor.media_type.clone().into();
            point(entry, child.descriptor.digest, child.descriptor.size);
            drop_annotations(entry, |key| key == ZSTD_PREFERRED && !child.zstd);
        }
        let about = digest(entry.pointer(&format!("/annotations/{ATTESTS}")));
        if let Some(child) = about.and_then(|digest| self.renamed.get(&digest)) {
            entry["annotations"][ATTESTS] = child.descriptor.digest.to_string().into();
        }
    }

    /// Changes the media type of `entry` to the wanted family.
    fn retype(&self, entry: &mut Value) {
        let Some(was) = entry.get("mediaType").and_then(Value::as_str) else { return };
        let now = self.family(was);
        if now != was {
            entry["mediaType"] = now.to_owned().into();
        }
    }

    fn family<'t>(&self, media_type: &'t str) -> &'t str {
        match self.format {
            Format::Keep => media_type,
            Format::Docker => docker(media_type),
            Format::Oci => oci(media_type),
        }
    }
}

fn digest(value: Option<&Value>) -> Option<Digest> {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok())
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

/// Removes the annotations of `value` that became untrue.
fn drop_annotations(value: &mut Value, untrue: impl Fn(&str) -> bool) {
    let Some(annotations) = value.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    let before = annotations.len();
    annotations.retain(|key, _| !untrue(key));
    if annotations.is_empty() && before > 0 {
        value.as_object_mut().and_then(|value| value.remove("annotations"));
    }
}

/// The index `top` with only `entries`; entries of nested indexes become entries of the top.
pub fn narrowed(top: &Manifest, entries: &[Descriptor]) -> Result<Manifest> {
    let wrong = |why: String| Error::invalid(format!("index {} cannot be made smaller: {why}", top.digest()));
    let mut value = json_tree(&top.bytes).map_err(wrong)?;
    let listed = value.get_mut("manifests").and_then(Value::as_array_mut);
    let listed = listed.ok_or_else(|| Error::invalid(format!("index {} lists no manifests", top.digest())))?;
    let wanted: HashSet<Digest> = entries.iter().map(|entry| entry.digest).collect();
    listed.retain(|entry| digest(entry.get("digest")).is_some_and(|digest| wanted.contains(&digest)));
    let here: HashSet<Digest> = listed.iter().filter_map(|entry| digest(entry.get("digest"))).collect();
    for entry in entries.iter().filter(|entry| !here.contains(&entry.digest)) {
        listed.push(serde_json::to_value(entry).map_err(|e| Error::failed(e.to_string()))?);
    }
    made(&value, &top.descriptor.media_type)
}

fn made(value: &Value, media_type: &str) -> Result<Manifest> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::failed(e.to_string()))?;
    Manifest::from_bytes(bytes, media_type)
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
        let top = Manifest::from_bytes(text.into_bytes(), "").unwrap();
        let source_digest = top.digest();
        Image {
            names: vec![],
            tree: vec![child, top],
            synthesised: false,
            lost_manifest: None,
            source_digest,
            foreign_layers: vec![],
            narrowed: None,
            original: None,
            attached: vec![],
            is_current: false,
        }
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
        let new = RecompressedLayer { digest: Digest::of(b"packed"), size: 6, coding: Coding::Gzip };
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
