//! `index.json` of an OCI layout (image-layout.md), which layouts, oci-archives and docker's newer archives share:
//! which images it names, and how a name is added without losing what imgmv does not know.

use super::{Descriptor, Digest, Manifest, Name, media_type};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// The annotation that carries a tag (annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's and docker's: the full name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// More names than this in one index are refused.
pub const MAX_NAMES: usize = 100_000;
/// What the file `oci-layout` holds.
const LAYOUT_VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An `index.json`, with everything in it that is not understood kept.
#[derive(Debug, Clone)]
pub struct LayoutIndex(Value);

impl Default for LayoutIndex {
    fn default() -> Self {
        LayoutIndex(json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }))
    }
}

impl LayoutIndex {
    /// The content of the file `oci-layout` beside an index.
    pub fn layout_file() -> &'static [u8] {
        LAYOUT_VERSION.as_bytes()
    }

    /// Reads the bytes of an `index.json`. `"manifests": null`, as docker 25 wrote it, is an empty index.
    pub fn parse(bytes: &[u8]) -> Result<LayoutIndex> {
        let wrong = |why: String| Error::invalid(format!("index.json is refused: {why}"));
        let mut value: Value = super::json_tree(bytes).map_err(wrong)?;
        let Some(object) = value.as_object_mut() else {
            return Err(wrong("it is not an object".into()));
        };
        if object.contains_key("layers") || object.contains_key("config") {
            return Err(wrong(
                "it is a manifest and an index at once, which tools read differently (CVE-2021-41190)".into(),
            ));
        }
        let manifests = object.entry("manifests").or_insert(Value::Null);
        if manifests.is_null() {
            *manifests = json!([]);
        }
        let Some(list) = manifests.as_array() else {
            return Err(wrong("its manifests are not a list".into()));
        };
        if list.len() > MAX_NAMES {
            return Err(wrong(format!("it names {} manifests, more than the {MAX_NAMES} allowed", list.len())));
        }
        let index = LayoutIndex(value);
        index.entries()?;
        Ok(index)
    }

    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a JSON value can always be written")
    }

    fn list(&mut self) -> &mut Vec<Value> {
        self.0["manifests"].as_array_mut().expect("checked when read")
    }

    /// Every entry as it stands.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        let list = self.0["manifests"].as_array().expect("checked when read");
        let read = |entry: &Value| serde_json::from_value(entry.clone());
        let all: std::result::Result<Vec<Descriptor>, _> = list.iter().map(read).collect();
        all.map_err(|e| Error::invalid(format!("index.json is refused: an entry is no descriptor ({e})")))
    }

    /// Every entry with the name it carries: the full one where containerd's annotation has it.
    /// Names that are not fit to be shown or used are refused.
    pub fn named(&self) -> Result<Vec<(Option<Name>, Descriptor)>> {
        let name = |entry: &Descriptor| match entry.annotation(CONTAINERD_NAME).or(entry.annotation(REF_NAME)) {
            Some("") | None => Ok(None),
            Some(text) => Name::new(text).map(Some),
        };
        self.entries()?.into_iter().map(|entry| Ok((name(&entry)?, entry))).collect()
    }

    /// Makes `name` point at `root`, and at nothing else. An entry without a name that points at the same digest
    /// takes the name. `root`'s platform and annotations are kept.
    pub fn point(&mut self, name: Option<&Name>, root: &Descriptor) {
        let mut entry = root.clone();
        if let Some(name) = name {
            match name.reference() {
                Some(reference) => {
                    entry.annotate(CONTAINERD_NAME, name.as_str());
                    // docker and oras read the tag alone here.
                    if let Some(tag) = &reference.tag {
                        entry.annotate(REF_NAME, tag);
                    }
                }
                None => entry.annotate(REF_NAME, name.as_str()),
            }
        }
        let mut placed = false;
        let value = serde_json::to_value(&entry).expect("a descriptor can always be written");
        self.list().retain_mut(|old| {
            let Ok(there) = serde_json::from_value::<Descriptor>(old.clone()) else {
                return true;
            };
            let same_name = name.is_some_and(|name| is_called(&there, name));
            let nameless = !is_named(&there) && there.digest == root.digest;
            let same = same_name || nameless || name.is_none() && there.digest == root.digest;
            if !same {
                return true;
            }
            if name.is_none() {
                placed = true;
                return true;
            }
            if placed {
                return false;
            }
            placed = true;
            *old = value.clone();
            true
        });
        if !placed {
            self.list().push(value);
        }
    }

    /// Removes `name`; says whether it was there.
    pub fn remove(&mut self, name: &Name) -> bool {
        let before = self.list().len();
        self.list().retain(|old| {
            !serde_json::from_value::<Descriptor>(old.clone()).is_ok_and(|there| is_called(&there, name))
        });
        self.list().len() != before
    }

    /// The digest that `name` points at.
    pub fn target(&self, name: &Name) -> Option<Digest> {
        self.entries().ok()?.into_iter().find(|entry| is_called(entry, name)).map(|entry| entry.digest)
    }

    /// A descriptor of `root` for an entry.
    pub fn entry(root: &Manifest) -> Descriptor {
        root.descriptor.clone()
    }
}

fn is_named(entry: &Descriptor) -> bool {
    [CONTAINERD_NAME, REF_NAME].iter().any(|key| entry.annotation(key).is_some_and(|name| !name.is_empty()))
}

/// Whether `entry` is what `name` means here: by its full name when it has one, else by its tag.
fn is_called(entry: &Descriptor, name: &Name) -> bool {
    match entry.annotation(CONTAINERD_NAME) {
        Some(full) => full == name.as_str(),
        None => entry.annotation(REF_NAME).is_some_and(|tag| tag == name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(content: &[u8]) -> Descriptor {
        Descriptor::of(media_type::OCI_MANIFEST, content)
    }

    #[test]
    fn a_name_points_at_one_thing_and_strangers_entries_stay() {
        let before = br#"{"schemaVersion":2,"manifests":[],"annotations":{"keep":"me"}}"#;
        let mut index = LayoutIndex::parse(before).unwrap();
        let (v1, v2) = (Name::new("v1").unwrap(), Name::new("docker.io/library/app:v2").unwrap());
        index.point(Some(&v1), &root(b"one"));
        index.point(Some(&v2), &root(b"one"));
        index.point(Some(&v1), &root(b"two"));
        assert_eq!(index.target(&v1), Some(Digest::of(b"two")));
        assert_eq!(index.target(&v2), Some(Digest::of(b"one")));
        assert_eq!(index.entries().unwrap().len(), 2);
        assert!(String::from_utf8(index.bytes()).unwrap().contains("keep"));
    }

    #[test]
    fn dockers_null_is_an_empty_index() {
        assert!(LayoutIndex::parse(br#"{"schemaVersion":2,"manifests":null}"#).unwrap().entries().unwrap().is_empty());
    }

    #[test]
    fn an_image_without_a_name_is_listed_once() {
        let mut index = LayoutIndex::default();
        index.point(None, &root(b"one"));
        index.point(None, &root(b"one"));
        assert_eq!(index.entries().unwrap().len(), 1);
        index.point(Some(&Name::new("v1").unwrap()), &root(b"one"));
        assert_eq!(index.entries().unwrap().len(), 1);
    }
}
