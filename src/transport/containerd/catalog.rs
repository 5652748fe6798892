//! The images that containerd lists, and their selection: the same from its database and from its socket.

use super::records::Record;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Name};
use crate::source::{Root, Selector, select, with_unlisted};
use std::collections::BTreeSet;

/// The images of one namespace, or of all.
#[derive(Debug)]
pub(super) struct Catalog {
    /// The place for messages: `containerd at /var/lib/containerd`.
    place: String,
    namespaces: Vec<String>,
    /// The requested namespace; `None`: all.
    namespace: Option<String>,
    records: Vec<Record>,
}

impl Catalog {
    /// Keeps the `records` of `namespace`, or all. `place` names containerd in messages.
    ///
    /// # Errors
    /// - `NotFound`: `namespace` is not one of `namespaces`.
    pub fn new(
        place: String,
        namespaces: Vec<String>,
        mut records: Vec<Record>,
        namespace: Option<&str>,
    ) -> Result<Catalog> {
        if let Some(namespace) = namespace {
            if !namespaces.iter().any(|existing| existing == namespace) {
                return Err(Error::not_found(format!(
                    "{place} has no namespace {namespace}; its namespaces: {}",
                    if namespaces.is_empty() { "none".to_owned() } else { namespaces.join(", ") }
                )));
            }
            records.retain(|record| record.namespace == namespace);
        }
        Ok(Catalog { place, namespaces, namespace: namespace.map(str::to_owned), records })
    }

    /// Where the images are, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// All namespaces.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// The namespaces whose images are listed.
    pub fn read_namespaces(&self) -> &[String] {
        match &self.namespace {
            Some(namespace) => std::slice::from_ref(namespace),
            None => &self.namespaces,
        }
    }

    /// All names of the requested namespaces.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records as roots, each name and image once. Images that only have CRI's id come last, without a name.
    pub fn all(&self) -> Vec<Root> {
        let mut seen = BTreeSet::new();
        let (ids, named): (Vec<&Record>, Vec<&Record>) = self.records.iter().partition(|record| is_id(record));
        let mut roots = Vec::new();
        let mut known = BTreeSet::new();
        for record in named.iter().filter(|record| seen.insert((&record.name, record.target.digest))) {
            known.insert(record.target.digest);
            // An image whose name is invalid is listed by its digest.
            roots.push(Root::new(Name::new(record.name.as_str()).ok(), record.target.clone()));
        }
        for record in ids {
            if known.insert(record.target.digest) {
                roots.push(Root::new(None, record.target.clone()));
            }
        }
        roots
    }

    /// The names, each once.
    pub fn names(&self) -> Vec<Name> {
        let names: BTreeSet<Name> = self.all().into_iter().filter_map(|root| root.name).collect();
        names.into_iter().collect()
    }

    /// The roots that `selectors` select, as [`crate::source::Store::roots`] promises. `read` returns the manifest of a
    /// digest that is not listed.
    pub fn roots(
        &self,
        selectors: &[Selector],
        read: impl Fn(&Digest) -> Result<Option<Vec<u8>>>,
    ) -> Result<Vec<Root>> {
        let all = with_unlisted(self.all(), selectors, read)?.into_owned();
        let mut chosen = Vec::new();
        for selector in selectors {
            if let Selector::Name(text) = selector {
                if let Some(root) = self.by_id(text) {
                    chosen.push(root);
                    continue;
                }
                let is_named = |root: &&Root| root.name.as_ref().is_some_and(|name| name.as_str() == text);
                self.check_unambiguous(&all.iter().filter(is_named).cloned().collect::<Vec<_>>())?;
            }
            let found = select(&all, std::slice::from_ref(selector));
            chosen.extend(found.map_err(|e| e.at(&self.place))?);
        }
        let chosen = if selectors.is_empty() { all } else { chosen };
        self.check_unambiguous(&chosen)?;
        Ok(chosen)
    }

    /// The image with CRI's id `text` (`sha256:` and its config's digest).
    fn by_id(&self, text: &str) -> Option<Root> {
        let record = self.records.iter().find(|record| record.name == text && is_id(record))?;
        Some(Root::new(None, record.target.clone()))
    }

    /// Fails with `Usage` if a name of `chosen` has different images in different namespaces.
    fn check_unambiguous(&self, chosen: &[Root]) -> Result<()> {
        for root in chosen {
            let Some(name) = &root.name else { continue };
            let same: Vec<&Record> = self.records.iter().filter(|record| record.name == name.as_str()).collect();
            if same.iter().any(|record| record.target.digest != root.descriptor.digest) {
                let namespaces: Vec<String> =
                    same.iter().map(|r| format!("{} ({})", r.namespace, r.target.digest.short())).collect();
                return Err(Error::usage(format!(
                    "{name} is ambiguous: the namespaces {} have different images; choose one with --src-namespace",
                    namespaces.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// The media type of the image with `digest`; empty if no name points at it.
    pub fn media_type(&self, digest: &Digest) -> &str {
        let named = self.records.iter().find(|record| record.target.digest == *digest);
        named.map_or("", |record| &record.target.media_type)
    }

    /// The error for a manifest that containerd lists and does not have.
    pub fn missing_manifest(&self, digest: &Digest) -> Error {
        Error::not_found(format!("manifest {digest} is not in the content store of {}", self.place))
    }

    /// The error for a config or layer that containerd does not have.
    pub fn missing_blob(&self, blob: &Descriptor) -> Error {
        let (digest, place) = (blob.digest, &self.place);
        let namespace = self.namespace.as_deref().unwrap_or("NAMESPACE");
        if !blob.media_type.contains("layer") && !blob.media_type.contains("rootfs") {
            return Error::not_found(format!("blob {digest} is not in the content store of {place}"));
        }
        Error::not_found(format!(
            "{place} has the image, but not its layer {digest}: with discard_unpacked_layers it discards layers after \
             unpacking; fetch them again with `ctr -n {namespace} content fetch IMAGE`, or copy from the image's \
             registry"
        ))
    }

    /// The message for a containerd without images.
    pub fn empty_message(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} has no image in its namespace {namespace}", self.place),
            None => {
                let all = self.namespaces.join(", ");
                format!("{} has no image in any of its namespaces ({all})", self.place)
            }
        }
    }
}

/// Whether the record is an image id: CRI gives each image a second name that is its config's digest.
fn is_id(record: &Record) -> bool {
    record.name.parse::<Digest>().is_ok()
}
