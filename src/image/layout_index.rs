//! `index.json` of an OCI layout (image-layout.md), which layouts, OCI archives and docker's newer archives share: it
//! lists images and their names. Changes preserve fields and entries that imgmv does not know.

use super::{Descriptor, Digest, Name, media_type};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// The annotation that carries a tag (annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation of containerd and docker that carries the full name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The maximum number of entries in one index.
pub const MAX_NAMES: usize = 100_000;
/// The content of the file `oci-layout`.
const LAYOUT_VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An `index.json`, including fields that imgmv does not know.
#[derive(Debug, Clone)]
pub struct LayoutIndex(Value);

impl Default for LayoutIndex {
    fn default() -> Self {
        LayoutIndex(json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }))
    }
}

impl LayoutIndex {
    /// Returns the content of the file `oci-layout`.
    pub fn layout_file() -> &'static [u8] {
        LAYOUT_VERSION.as_bytes()
    }

    /// Parses an `index.json`. `"manifests": null`, which docker 25 wrote, is an empty index.
    pub fn parse(bytes: &[u8]) -> Result<LayoutIndex> {
        let wrong = |why: String| Error::invalid(format!("index.json is refused: {why}"));
        let mut value: Value = super::json_tree(bytes).map_err(wrong)?;
        let Some(object) = value.as_object_mut() else {
            return Err(wrong("it is not an object".into()));
        };
        if object.contains_key("layers") || object.contains_key("config") {
            return Err(wrong(
                "it is both a manifest and an index, so tools would read it differently (CVE-2021-41190)".into(),
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
            return Err(wrong(format!("it lists {} manifests; at most {MAX_NAMES} are allowed", list.len())));
        }
        let index = LayoutIndex(value);
        index.iter().try_for_each(|entry| entry.map(drop))?;
        Ok(index)
    }

    /// Returns the index as JSON.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a JSON value can always be written")
    }

    /// Returns an index of `entries`, each with its own annotations.
    pub fn of(entries: &[Descriptor]) -> LayoutIndex {
        LayoutIndex(json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries }))
    }

    fn list(&mut self) -> &mut Vec<Value> {
        self.0["manifests"].as_array_mut().expect("checked when read")
    }

    /// Returns all entries.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        self.iter().collect()
    }

    fn iter(&self) -> impl Iterator<Item = Result<Descriptor>> + '_ {
        let wrong = |e| Error::invalid(format!("index.json is refused: an entry is not a descriptor ({e})"));
        let list = self.0["manifests"].as_array().expect("checked when read");
        list.iter().map(move |entry| Descriptor::deserialize(entry).map_err(wrong))
    }

    /// Returns the annotation `key` of the index itself.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0.get("annotations")?.get(key)?.as_str()
    }

    /// Sets the annotation `key` of the index itself.
    pub fn annotate(&mut self, key: &str, value: &str) {
        if !self.0.get("annotations").is_some_and(Value::is_object) {
            self.0["annotations"] = json!({});
        }
        self.0["annotations"][key] = value.into();
    }

    /// Returns all entries with their names: the full name if containerd's annotation has it, otherwise the tag.
    /// Fails for names with control characters, see [`Name::new`].
    pub fn named(&self) -> Result<Vec<(Option<Name>, Descriptor)>> {
        let name = |entry: &Descriptor| match entry.annotation(CONTAINERD_NAME).or(entry.annotation(REF_NAME)) {
            Some("") | None => Ok(None),
            Some(text) => Name::new(text).map(Some),
        };
        self.iter().map(|entry| entry.and_then(|entry| Ok((name(&entry)?, entry)))).collect()
    }

    /// Makes `name` refer to `root` only. An unnamed entry with the same digest gets the name. The platform and the
    /// annotations of `root` are preserved.
    pub fn point(&mut self, name: Option<&Name>, root: &Descriptor) {
        self.point_all(&[(name.cloned(), root.clone())]);
    }

    /// As [`LayoutIndex::point`] for each of `names`, in one pass: named images first, then unnamed ones.
    pub fn point_all(&mut self, names: &[(Option<Name>, Descriptor)]) {
        let list = self.list();
        let mut positions: HashMap<ListingKey, Vec<usize>> = HashMap::new();
        for (at, entry) in list.iter().enumerate() {
            positions.entry(ListingKey::of(entry)).or_default().push(at);
        }
        let mut duplicates = HashSet::new();
        for (name, root) in names.iter().filter_map(|(name, root)| Some((name.as_ref()?, root))) {
            let key = ListingKey::Name(name.to_string());
            let mut same = positions.remove(&key).unwrap_or_default();
            same.extend(positions.remove(&ListingKey::Unnamed(root.digest.to_string())).unwrap_or_default());
            same.sort_unstable();
            let at = match same.split_first() {
                Some((first, others)) => {
                    duplicates.extend(others.iter().copied());
                    list[*first] = new_entry(Some(name), root);
                    *first
                }
                None => {
                    list.push(new_entry(Some(name), root));
                    list.len() - 1
                }
            };
            positions.insert(key, vec![at]);
        }
        let mut at = 0..;
        list.retain(|_| !at.next().is_some_and(|at| duplicates.contains(&at)));
        let mut digests: HashSet<String> =
            list.iter().filter_map(|e| Some(e.get("digest")?.as_str()?.into())).collect();
        for (_, root) in names.iter().filter(|(name, _)| name.is_none()) {
            if digests.insert(root.digest.to_string()) {
                list.push(new_entry(None, root));
            }
        }
    }

    /// Removes `name`; returns whether it existed.
    pub fn remove(&mut self, name: &Name) -> bool {
        let before = self.list().len();
        let key = ListingKey::Name(name.to_string());
        self.list().retain(|old| ListingKey::of(old) != key);
        self.list().len() != before
    }

    /// Removes every name with the tag `tag`; returns the digests of those images.
    pub fn remove_tag(&mut self, tag: &str) -> Vec<Digest> {
        let mut had = Vec::new();
        self.list().retain(|old| {
            let tagged = match ListingKey::of(old) {
                ListingKey::Name(name) => {
                    Name::new(name).ok().and_then(|name| name.tag()).is_some_and(|own| own == tag)
                }
                ListingKey::Unnamed(_) => false,
            };
            had.extend(digest_of(old).filter(|_| tagged));
            !tagged
        });
        had
    }

    /// Removes every entry for `digest`, whatever its name; returns whether one existed.
    pub fn remove_digest(&mut self, digest: &Digest) -> bool {
        let before = self.list().len();
        self.list().retain(|old| digest_of(old) != Some(*digest));
        self.list().len() != before
    }

    /// Returns those of `digests` that have an unnamed entry, each once.
    pub fn unnamed(&self, digests: &HashSet<Digest>) -> Vec<Digest> {
        let list = self.0["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let nameless = list.iter().filter(|entry| matches!(ListingKey::of(entry), ListingKey::Unnamed(_)));
        let mut seen = HashSet::new();
        nameless.filter_map(digest_of).filter(|own| digests.contains(own) && seen.insert(*own)).collect()
    }

    /// Removes the unnamed entries for `digests`.
    pub fn remove_unnamed(&mut self, digests: &[Digest]) {
        let nameless = |old: &Value| matches!(ListingKey::of(old), ListingKey::Unnamed(_));
        self.list().retain(|old| !nameless(old) || !digest_of(old).is_some_and(|own| digests.contains(&own)));
    }

    /// Returns the digest that `name` refers to.
    pub fn target(&self, name: &Name) -> Option<Digest> {
        let list = self.0["manifests"].as_array()?;
        let key = ListingKey::Name(name.to_string());
        list.iter().find(|entry| ListingKey::of(entry) == key)?["digest"].as_str()?.parse().ok()
    }
}

/// Removes the name annotations of an entry.
pub fn remove_name(entry: &mut Descriptor) {
    if let Some(annotations) = &mut entry.annotations {
        annotations.retain(|key, _| key != REF_NAME && key != CONTAINERD_NAME);
    }
    entry.annotations = entry.annotations.take().filter(|left| !left.is_empty());
}

fn digest_of(entry: &Value) -> Option<Digest> {
    entry.get("digest")?.as_str()?.parse().ok()
}

/// The key of an entry.
#[derive(PartialEq, Eq, Hash)]
enum ListingKey {
    /// The full name, otherwise the tag.
    Name(String),
    /// The digest of an unnamed entry.
    Unnamed(String),
}

impl ListingKey {
    fn of(entry: &Value) -> ListingKey {
        let annotation = |key| entry.get("annotations")?.get(key)?.as_str().filter(|name: &&str| !name.is_empty());
        match annotation(CONTAINERD_NAME).or(annotation(REF_NAME)) {
            Some(name) => ListingKey::Name(name.to_owned()),
            None => ListingKey::Unnamed(entry.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned()),
        }
    }
}

/// Returns the entry that names `root` as `name`.
fn new_entry(name: Option<&Name>, root: &Descriptor) -> Value {
    let mut entry = root.clone();
    if let Some(name) = name {
        match name.reference() {
            Some(reference) => {
                entry.annotate(CONTAINERD_NAME, name.as_str());
                // docker and oras expect only the tag in this annotation.
                if let Some(tag) = &reference.tag {
                    entry.annotate(REF_NAME, tag);
                }
            }
            None => entry.annotate(REF_NAME, name.as_str()),
        }
    }
    serde_json::to_value(&entry).expect("a descriptor can always be written")
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
    fn many_names_are_given_in_one_pass() {
        let name = |text: &str| Some(Name::new(text).unwrap());
        let before = json!([root(b"bare"), new_entry(name("v1").as_ref(), &root(b"old")), root(b"two")]);
        let mut index = LayoutIndex::parse(json!({ "manifests": before }).to_string().as_bytes()).unwrap();
        index.point_all(&[
            (None, root(b"bare")),
            (name("v1"), root(b"one")),
            (None, root(b"one")),
            (name("v2"), root(b"bare")),
            (name("v1"), root(b"two")),
            (name("docker.io/library/app:v1"), root(b"two")),
            (None, root(b"last")),
            (None, root(b"last")),
        ]);
        let listed = index.named().unwrap();
        let listed: Vec<_> = listed.iter().map(|(name, at)| (name.as_ref().map(Name::as_str), at.digest)).collect();
        let expected: [(Option<&str>, &[u8]); 5] = [
            (Some("v2"), b"bare"),
            (Some("v1"), b"two"),
            (Some("docker.io/library/app:v1"), b"two"),
            (None, b"one"),
            (None, b"last"),
        ];
        assert_eq!(listed, expected.map(|(name, content)| (name, Digest::of(content))));
    }

    #[test]
    fn removing_an_entry_preserves_the_others() {
        let names = ["v1", "docker.io/library/app:v1", "v2"].map(|name| Some(Name::new(name).unwrap()));
        let mut index = LayoutIndex::default();
        for (name, content) in names.iter().zip([b"one", b"two", b"one"]) {
            index.point(name.as_ref(), &root(content));
        }
        index.point(None, &root(b"bare"));
        index.point(None, &root(b"left"));
        index.remove_unnamed(&[Digest::of(b"bare"), Digest::of(b"one")]);
        assert_eq!(index.remove_tag("v1"), [Digest::of(b"one"), Digest::of(b"two")]);
        let left: Vec<Digest> = index.entries().unwrap().iter().map(|entry| entry.digest).collect();
        assert_eq!(left, [Digest::of(b"one"), Digest::of(b"left")]);
        assert!(index.remove_digest(&Digest::of(b"one")) && !index.remove_digest(&Digest::of(b"one")));
    }

    #[test]
    fn unnamed_entries_are_found_once() {
        let mut index = LayoutIndex::default();
        index.point(Some(&Name::new("v1").unwrap()), &root(b"named"));
        index.point(None, &root(b"bare"));
        index.list().push(serde_json::to_value(root(b"bare")).unwrap());
        let digests = [&b"named"[..], b"bare", b"absent"].map(Digest::of);
        assert_eq!(index.unnamed(&HashSet::from(digests)), [Digest::of(b"bare")]);
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
